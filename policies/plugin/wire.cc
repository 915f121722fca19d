// SPDX-License-Identifier: Apache-2.0
#include "policies/plugin/wire.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <type_traits>

#include "base/text.h"
#include "policies/window_advice.h"

namespace thermocline::plugin {

namespace {

template <class T>
void put(std::vector<std::byte>& out, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto bytes = std::as_bytes(std::span(&value, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void put_text(std::vector<std::byte>& out, std::string_view text) {
  put(out, static_cast<std::uint32_t>(text.size()));
  const auto bytes = std::as_bytes(std::span(text));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

/// Takes values from the front; once something is missing, everything is.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <class T>
  T take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    if (const auto bytes = take_bytes(sizeof(T)); !bytes.empty())
      std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }

  /// With its end it fits what policy_abi.h allows.
  std::string take_text() {
    const auto length = take<std::uint32_t>();
    if (length >= THERMOCLINE_MOST_TEXT) ok_ = false;
    const auto bytes = take_bytes(length);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  /// A count of things that follow.
  std::size_t take_count(std::size_t most) {
    const auto count = take<std::uint32_t>();
    if (count > most) ok_ = false;
    return ok_ ? count : 0;
  }

  template <class T>
  std::vector<T> take_array(std::uint64_t count) {
    std::vector<T> values;
    if (count > rest_.size() / sizeof(T)) ok_ = false;
    if (!ok_ || count == 0) return values;
    values.resize(count);
    const auto bytes = take_bytes(count * sizeof(T));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  /// All was there, and nothing is left.
  [[nodiscard]] bool complete() const { return ok_ && rest_.empty(); }

 private:
  std::span<const std::byte> take_bytes(std::size_t count) {
    if (!ok_ || count > rest_.size()) {
      ok_ = false;
      return {};
    }
    const auto bytes = rest_.first(count);
    rest_ = rest_.subspan(count);
    return bytes;
  }

  std::span<const std::byte> rest_;
  bool ok_ = true;
};

/// Where the parts of `view` are once they are in their place.
void point(ShownView& shown) {
  shown.view.tiers = shown.tiers.data();
  const thermocline_page* at = shown.pages.data();
  for (thermocline_tier& tier : shown.tiers)
    for (thermocline_pages* list : {&tier.hottest, &tier.coldest}) {
      list->pages = at;
      at += list->count;
    }
}

/// Of two lists of one tier that go towards each other: both end where their heats meet, so that no
/// page is in both. What is neither hot nor cold there is with the coldest.
void part(std::vector<PageRef>& hottest, std::vector<PageRef>& coldest) {
  std::size_t hot = 0;
  while (hot < hottest.size() &&
         hottest[hot].heat > coldest[std::min(hot, coldest.size() - 1)].heat)
    ++hot;
  hottest.resize(hot);
  if (hottest.empty()) return;
  std::size_t cold = 0;
  while (cold < coldest.size() && coldest[cold].heat < hottest.back().heat) ++cold;
  coldest.resize(cold);
}

/// Moves into each tier and out of it, in pages, and which of them were planned last.
struct Traffic {
  std::vector<std::int64_t> room, in;  ///< room: with what goes
  std::vector<std::vector<std::size_t>> coming;
};

std::optional<std::size_t> overfilled(const Traffic& traffic) {
  for (std::size_t t = 0; t < traffic.room.size(); ++t)
    if (traffic.in[t] > 0 && traffic.in[t] > traffic.room[t]) return t;
  return std::nullopt;
}

/// Which moves stay when those that no room is left for go, last first. One that goes keeps its
/// page on the tier that it would have left.
std::vector<bool> that_fit(const View& view, const ShownView& shown, const PlanReply& reply) {
  Traffic traffic;
  traffic.in.resize(view.tiers.size());
  traffic.coming.resize(view.tiers.size());
  for (const TierView& tier : view.tiers)
    traffic.room.push_back(static_cast<std::int64_t>(tier.free.get()) -
                           static_cast<std::int64_t>(tier.used.minus_floor(tier.capacity).get()));
  const auto size = [&](const thermocline_move& move) {
    return std::int64_t{1} << shown.pages[move.page].order;
  };
  for (std::size_t i = 0; i < reply.moves.size(); ++i) {
    const thermocline_move& move = reply.moves[i];
    traffic.in[move.to] += size(move);
    traffic.room[shown.pages[move.page].tier] += size(move);
    traffic.coming[move.to].push_back(i);
  }
  std::vector<bool> stays(reply.moves.size(), true);
  while (const auto tier = overfilled(traffic)) {
    const std::size_t last = traffic.coming[*tier].back();
    traffic.coming[*tier].pop_back();
    stays[last] = false;
    traffic.in[*tier] -= size(reply.moves[last]);
    traffic.room[shown.pages[reply.moves[last].page].tier] -= size(reply.moves[last]);
  }
  return stays;
}

}  // namespace

Status check_header(const FrameHeader& header, std::uint64_t most) {
  if (header.magic != FrameHeader::kMagic || header.type < FrameType::kHello ||
      header.type > FrameType::kPlan)
    return fail(ErrorKind::kCorrupt, "sent something that is no message");
  if (header.length > most)
    return fail(ErrorKind::kCorrupt, "sent a message of {} bytes, where {} are the most",
                header.length, most);
  return {};
}

std::vector<std::byte> encode(const Hello& hello) {
  std::vector<std::byte> out;
  put(out, hello.needs);
  for (const std::string* text : {&hello.name, &hello.summary, &hello.source}) put_text(out, *text);
  put(out, static_cast<std::uint32_t>(hello.rules.size()));
  for (const std::string& rule : hello.rules) put_text(out, rule);
  put(out, static_cast<std::uint32_t>(hello.options.size()));
  for (const PolicyOptionHelp& option : hello.options)
    for (const std::string* text : {&option.key, &option.meaning, &option.default_text})
      put_text(out, *text);
  return out;
}

Result<Hello> decode_hello(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  Hello hello;
  hello.needs = reader.take<std::uint32_t>();
  for (std::string* text : {&hello.name, &hello.summary, &hello.source})
    *text = printable(reader.take_text());
  hello.rules.resize(reader.take_count(THERMOCLINE_MOST_RULES));
  for (std::string& rule : hello.rules) rule = printable(reader.take_text());
  hello.options.resize(reader.take_count(THERMOCLINE_MOST_OPTIONS));
  for (PolicyOptionHelp& option : hello.options)
    for (std::string* text : {&option.key, &option.meaning, &option.default_text})
      *text = printable(reader.take_text());
  if (!reader.complete()) return fail(ErrorKind::kCorrupt, "tells about itself what can't be read");
  if (hello.needs & ~std::uint32_t{THERMOCLINE_NEEDS_TOUCHES | THERMOCLINE_NEEDS_LOADED_LATENCY})
    return fail(ErrorKind::kCorrupt, "needs something that isn't known, {:#x}", hello.needs);
  return hello;
}

std::vector<std::byte> encode(const Create& create) {
  std::vector<std::byte> out;
  put(out, create.seed);
  put(out, static_cast<std::uint32_t>(create.values.size()));
  for (const std::string& value : create.values) put_text(out, value);
  return out;
}

Result<Create> decode_create(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  Create create;
  create.seed = reader.take<std::uint64_t>();
  create.values.resize(reader.take_count(THERMOCLINE_MOST_OPTIONS));
  for (std::string& value : create.values) value = reader.take_text();
  if (!reader.complete()) return fail(ErrorKind::kCorrupt, "options that can't be read");
  return create;
}

std::vector<std::byte> encode_text(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::string decode_text(std::span<const std::byte> bytes) {
  const auto length = std::min<std::size_t>(bytes.size(), THERMOCLINE_MOST_TEXT);
  return printable({reinterpret_cast<const char*>(bytes.data()), length});
}

ShownView show(const View& view) {
  ShownView shown;
  thermocline_view& v = shown.view;
  v.epoch = view.epoch.get();
  v.tier_count = view.tiers.size();
  v.budget = view.budget.moves.get();
  v.threshold_heat = view.threshold.heat.get();
  v.at_or_above = view.threshold.at_or_above.get();
  v.below_edge = view.threshold.below_edge.get();
  v.promoted = view.feedback.promoted.get();
  v.demoted = view.feedback.demoted.get();
  v.failed = view.feedback.failed.get();
  v.regretted = view.feedback.regretted.get();
  v.windows = view.feedback.windows;
  v.window_ns = static_cast<std::uint64_t>(view.feedback.window.count());
  v.accessed_page_windows = view.feedback.accessed_page_windows.get();
  v.accessed_page_windows_fast = view.feedback.accessed_page_windows_fast.get();
  v.present_page_windows = view.feedback.present_page_windows.get();
  v.changed = view.feedback.changed ? 1 : 0;
  const PageCount limit = std::min(view.budget.moves, kMostListed);
  for (std::size_t t = 0; t < view.tiers.size(); ++t) {
    const TierView& from = view.tiers[t];
    thermocline_tier& tier = shown.tiers.emplace_back();
    tier.capacity = from.capacity.get();
    tier.used = from.used.get();
    tier.free = from.free.get();
    tier.latency_ns = from.latency_ns;
    tier.bandwidth_mbps = from.bandwidth_mbps;
    tier.loaded_latency_ns = from.loaded_latency_ns;
    std::vector<PageRef> hottest, coldest;
    if (t > 0) hottest = view.heat.candidates(from.id, Heat(0), Heat(255), true, limit);
    if (t + 1 < view.tiers.size())
      coldest = view.heat.candidates(from.id, Heat(0), Heat(255), false, limit);
    if (!hottest.empty() && !coldest.empty()) part(hottest, coldest);
    const auto add = [&](const std::vector<PageRef>& pages, thermocline_pages& list) {
      for (const PageRef& page : pages)
        shown.pages.push_back(
            {page.asid.get(), page.vpn.address(), static_cast<std::uint32_t>(shown.pages.size()),
             static_cast<std::uint8_t>(t), page.order.get(), page.heat.get(), page.touches.raw()});
      list.count = pages.size();
    };
    add(hottest, tier.hottest);
    add(coldest, tier.coldest);
    const auto by_heat = view.heat.histogram(from.id, false);
    for (std::size_t h = 0; h < by_heat.size(); ++h) tier.heat[h] = by_heat[h].get();
  }
  point(shown);
  return shown;
}

std::vector<std::byte> encode(const ShownView& shown) {
  std::vector<std::byte> out;
  out.reserve(sizeof(thermocline_view) + shown.tiers.size() * sizeof(thermocline_tier) +
              shown.pages.size() * sizeof(thermocline_page));
  thermocline_view view = shown.view;
  view.tiers = nullptr;
  put(out, view);
  for (thermocline_tier tier : shown.tiers) {
    tier.hottest.pages = tier.coldest.pages = nullptr;
    put(out, tier);
  }
  const auto pages = std::as_bytes(std::span(shown.pages));
  out.insert(out.end(), pages.begin(), pages.end());
  return out;
}

Result<ShownView> decode_view(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  ShownView shown;
  shown.view = reader.take<thermocline_view>();
  if (shown.view.tier_count < 1 || shown.view.tier_count > kMaxTiers)
    return fail(ErrorKind::kCorrupt, "a view of {} tiers", shown.view.tier_count);
  shown.tiers = reader.take_array<thermocline_tier>(shown.view.tier_count);
  std::uint64_t listed = 0;
  for (const thermocline_tier& tier : shown.tiers)
    for (const std::uint64_t count : {tier.hottest.count, tier.coldest.count}) {
      if (count > kMostListed.get())
        return fail(ErrorKind::kCorrupt, "a view with a list of {} pages", count);
      listed += count;
    }
  shown.pages = reader.take_array<thermocline_page>(listed);
  if (!reader.complete()) return fail(ErrorKind::kCorrupt, "a view that can't be read");
  for (std::size_t i = 0; i < shown.pages.size(); ++i) {
    const thermocline_page& page = shown.pages[i];
    if (page.id != i || page.tier >= shown.tiers.size() || page.order > kOrder1G.get())
      return fail(ErrorKind::kCorrupt, "a view with a page that can't be");
  }
  point(shown);
  return shown;
}

std::vector<std::byte> encode(const PlanReply& reply) {
  std::vector<std::byte> out;
  put(out, reply.window_eighths);
  put(out, static_cast<std::uint64_t>(reply.moves.size()));
  const auto moves = std::as_bytes(std::span(reply.moves));
  out.insert(out.end(), moves.begin(), moves.end());
  return out;
}

Result<PlanReply> decode_plan(std::span<const std::byte> bytes, std::size_t most_moves) {
  Reader reader(bytes);
  PlanReply reply;
  reply.window_eighths = reader.take<std::uint64_t>();
  const auto count = reader.take<std::uint64_t>();
  if (count > most_moves)
    return fail(ErrorKind::kCorrupt, "planned {} moves of {} pages that it was shown", count,
                most_moves);
  reply.moves = reader.take_array<thermocline_move>(count);
  if (!reader.complete()) return fail(ErrorKind::kCorrupt, "sent a plan that can't be read");
  return reply;
}

Result<Plan> to_plan(const View& view, const ShownView& shown, const PlanReply& reply,
                     std::size_t rules) {
  if (reply.window_eighths > 64)
    return fail(ErrorKind::kCorrupt, "wants windows of {} eighths, where 0 to 64 can be",
                reply.window_eighths);
  std::vector<bool> planned(shown.pages.size());
  PageCount moved;
  for (std::size_t i = 0; i < reply.moves.size(); ++i) {
    const thermocline_move& move = reply.moves[i];
    const auto wrong = [&](const std::string& why) {
      return fail(ErrorKind::kCorrupt, "planned nonsense: move {} of {} {}", i + 1,
                  reply.moves.size(), why);
    };
    if (move.page >= shown.pages.size())
      return wrong(fmt::format("is of page {}, where there are {}", move.page, shown.pages.size()));
    const thermocline_page& page = shown.pages[move.page];
    if (move.to >= view.tiers.size())
      return wrong(fmt::format("goes to tier {}, where there are {}", move.to, view.tiers.size()));
    if (move.to == page.tier)
      return wrong(fmt::format("goes to tier {}, on which the page lies", move.to));
    if (move.rule >= rules)
      return wrong(fmt::format("is by rule {}, where there are {}", move.rule, rules));
    moved += PageOrder(page.order).pages();
    if (moved > view.budget.moves)
      return wrong(fmt::format("is beyond the budget of {} pages", view.budget.moves.get()));
    if (planned[move.page])
      return wrong(fmt::format("is of a page that has been moved already, at {:#x}", page.address));
    planned[move.page] = true;
  }
  Plan plan;
  if (reply.window_eighths == 0)
    plan.advice = advise_windows(view);
  else
    plan.advice.window_eighths = static_cast<unsigned>(reply.window_eighths);
  const std::vector<bool> stays = that_fit(view, shown, reply);
  for (std::size_t i = 0; i < reply.moves.size(); ++i) {
    if (!stays[i]) continue;
    const thermocline_move& move = reply.moves[i];
    const thermocline_page& page = shown.pages[move.page];
    (move.to > page.tier ? plan.demotions : plan.promotions)
        .push_back({Asid(page.space), Vpn::of_address(page.address), PageOrder(page.order),
                    view.tiers[page.tier].id, view.tiers[move.to].id, Heat(page.heat), move.rule});
  }
  return plan;
}

}  // namespace thermocline::plugin

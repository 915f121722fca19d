// SPDX-License-Identifier: Apache-2.0
// What a policy plug-in may send, from any bytes: what is accepted is bounded and printable, and a
// plan that is accepted keeps every rule of policy_abi.h.
#include <cstdlib>
#include <set>
#include <span>

#include "base/text.h"
#include "policies/plugin/wire.h"
#include "tracking/record.h"

namespace {

using namespace thermocline;

void check(bool holds) {
  if (!holds) std::abort();
}

/// Three tiers with pages of two sizes.
struct World {
  HeatMap heat;
  std::vector<TierView> tiers;
  World() {
    const TierId of_node[] = {TierId(0), TierId(1), TierId(2)};
    heat.set_node_tiers(of_node);
    for (std::uint64_t t = 0; t < 3; ++t) {
      const EntryObservation page{NodeId(static_cast<std::int32_t>(t)), true, true, t == 2, false};
      std::vector<std::byte> bytes;
      RecordHeader header;
      header.asid = Asid(1);
      RecordWriter(bytes).append(header, 0, Vpn(t * 1024), kOrder4K,
                                 std::vector<EntryObservation>(4, page));
      RecordWriter(bytes).append(header, 1, Vpn(t * 1024 + 512), kOrder2M, {{page}});
      RecordReader reader(bytes);
      while (const auto record = reader.next()) heat.apply(*record, true);
      tiers.push_back({TierId(static_cast<std::uint8_t>(t)), PageCount(1000), PageCount(516),
                       PageCount(t == 1 ? 0 : 484)});
    }
  }
};

void check_plan(const View& view, const plugin::ShownView& shown, const Plan& plan,
                std::size_t rules) {
  std::set<Vpn> seen;
  PageCount moved;
  std::vector<PageCount> in(3), out(3);
  for (const auto& [moves, down] : {std::pair(&plan.demotions, true), {&plan.promotions, false}})
    for (const Move& move : *moves) {
      const auto page = view.heat.look_up(move.asid, move.vpn);
      check(page && page->second.tier() == move.from && page->first == move.heat);
      check(move.to.get() < 3 && move.to != move.from && (move.to > move.from) == down);
      check(move.rule < rules && seen.insert(move.vpn).second);
      moved += move.order.pages();
      in[move.to.get()] += move.order.pages();
      out[move.from.get()] += move.order.pages();
    }
  check(moved <= view.budget.moves && seen.size() <= shown.pages.size());
  for (std::size_t t = 0; t < 3; ++t) check(in[t] <= view.tiers[t].free + out[t]);
  check(plan.advice.window_eighths >= 1 && plan.advice.window_eighths <= 64);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const World world;
  const View view{Epoch(1),    world.heat, world.tiers,
                  Threshold{}, Feedback{}, Budget{PageCount(600)}};
  static const plugin::ShownView shown = plugin::show(view);
  const auto bytes = std::as_bytes(std::span(data, size));
  if (const auto hello = plugin::decode_hello(bytes)) {
    check(hello->rules.size() <= THERMOCLINE_MOST_RULES);
    check(printable(hello->name) == hello->name);
    const auto again = plugin::decode_hello(plugin::encode(*hello));
    check(!again || again->rules == hello->rules);  // printable may be longer
  }
  if (const auto create = plugin::decode_create(bytes))
    check(plugin::encode(*create).size() == size);
  if (const auto decoded = plugin::decode_view(bytes))
    check(plugin::encode(*decoded).size() == size);
  if (const auto reply = plugin::decode_plan(bytes, shown.pages.size())) {
    constexpr std::size_t kRules = 3;
    if (const auto plan = plugin::to_plan(view, shown, *reply, kRules))
      check_plan(view, shown, *plan, kRules);
  }
  (void)plugin::decode_text(bytes);
  return 0;
}

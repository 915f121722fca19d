// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/truth.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>

#include "base/text.h"
#include "emulation/lab/files.h"

namespace thermocline::suite {

namespace {

constexpr unsigned kMostTiers = 8;

/// Words of one line, and its numbers by name: "misses tier 0 loads 5" has loads 5.
class Line {
 public:
  explicit Line(std::string_view text) {
    while (count_ < words_.size()) {
      const auto start = text.find_first_not_of(' ');
      if (start == std::string_view::npos) break;
      text.remove_prefix(start);
      words_[count_] = text.substr(0, text.find(' '));
      text.remove_prefix(words_[count_++].size());
    }
  }
  [[nodiscard]] std::string_view word(std::size_t i) const {
    return i < count_ ? words_[i] : std::string_view();
  }
  [[nodiscard]] std::optional<std::uint64_t> number(std::size_t i, int base = 10) const {
    const std::string_view text = word(i);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (text.empty() || error != std::errc() || end != text.data() + text.size())
      return std::nullopt;
    return value;
  }
  [[nodiscard]] std::optional<std::uint64_t> value(std::string_view name) const {
    for (std::size_t i = 1; i + 1 < count_; ++i)
      if (words_[i] == name) return number(i + 1);
    return std::nullopt;
  }

 private:
  std::array<std::string_view, 24> words_;
  std::size_t count_ = 0;
};

struct PageStory {
  std::uint64_t misses = 0;
  std::uint64_t phase_misses = 0;
  std::size_t phase = 0;  ///< that those are of
  int tier = -1;          ///< where it was last missed; -1: not known
  std::uint64_t left_ns = 0;
  int left_tier = -1;
};

class Reader {
 public:
  explicit Reader(int fast_node) : fast_node_(static_cast<std::uint64_t>(fast_node)) {}

  /// False when the line is none of the truth's.
  bool take(std::string_view text) {
    const Line line(text);
    const std::string_view kind = line.word(0);
    if (kind == "v") return !inside_ || page(line);
    if (kind == "f" || kind == "space" || kind == "mode" || kind == "profile_period_ns")
      return true;
    if (kind == "misses") return !inside_ || misses(line);
    if (kind == "profile") return !inside_ || profile(line);
    if (kind == "profile_space") return true;
    if (kind == "slice") return slice(line);
    if (kind == "mark") return mark(line);
    if (kind == "range") return range(line);
    return kind == "thermocline-truth" && line.word(1) == "1";
  }

  [[nodiscard]] bool complete() const { return ended_; }
  Truth finish() {
    const Space* best = nullptr;
    for (const auto& [number, space] : spaces_)
      if (number != 0 && (best == nullptr || space.pages.size() > best->pages.size()))
        best = &space;
    if (best != nullptr) {
      for (const auto& [number, story] : best->pages) {
        truth_.pages.emplace_back(number, story.misses);
        if (story.phase == truth_.phases_ns.size())
          truth_.last_phase_pages.emplace_back(number, story.phase_misses);
      }
      std::sort(truth_.pages.begin(), truth_.pages.end(), [](const auto& a, const auto& b) {
        return a.second != b.second ? a.second > b.second : a.first < b.first;
      });
      truth_.moves = best->moves;
      truth_.returns = best->returns;
    }
    return std::move(truth_);
  }

 private:
  struct Space {
    std::unordered_map<std::uint64_t, PageStory> pages;
    std::uint64_t moves = 0, returns = 0;
  };

  bool range(const Line& line) {
    const auto tier = line.value("tier"), node = line.value("node");
    if (!tier || !node || *tier >= kMostTiers) return false;
    fast_tier_[*tier] = *node == fast_node_;
    return true;
  }

  // A slice's own records follow it, so the pages of the one before are complete by now.
  bool slice(const Line& line) {
    close_pages();
    const auto begin = line.value("begin_ns"), end = line.value("end_ns");
    if (!begin || !end || *end < *begin) return false;
    if (scanning_) {
      const auto instructions = line.value("instructions");
      if (!instructions) return false;
      truth_.scan_instructions += *instructions;
    }
    inside_ = running_;
    if (inside_) truth_.slices.push_back({*begin - start_ns_, *end - start_ns_, 0, 0, 0});
    return true;
  }

  bool mark(const Line& line) {
    close_pages();
    inside_ = false;
    const auto at = line.value("at_ns");
    if (!at) return false;
    const std::string_view name = line.word(1);
    if (name == "scan" || name == "scanned") scanning_ = name == "scan";
    if (name == "run") {
      running_ = true;
      start_ns_ = *at;
    } else if (name == "phase" && running_) {
      truth_.phases_ns.push_back(*at - start_ns_);
    } else if (name == "end" && running_) {
      running_ = false;
      ended_ = true;
      truth_.end_ns = *at - start_ns_;
    }
    return true;
  }

  bool misses(const Line& line) {
    const auto tier = line.value("tier"), loads = line.value("loads"),
               stores = line.value("stores"), prefetched = line.value("prefetched"),
               latency = line.value("latency_ns");
    if (!tier || *tier >= kMostTiers || !loads || !stores || !prefetched || !latency) return false;
    Truth::Slice& slice = truth_.slices.back();
    const std::uint64_t all = *loads + *stores + *prefetched;
    slice.all_misses += all;
    slice.latency_ns += *latency;
    if (fast_tier_[*tier]) slice.fast_misses += all;
    return true;
  }

  bool profile(const Line& line) {
    if (!truth_.profile) truth_.profile = Truth::Profile{};
    Truth::Profile& sum = *truth_.profile;
    for (const auto& [name, field] : {std::pair{"tracker", &Truth::Profile::tracker},
                                      {"policy", &Truth::Profile::policy},
                                      {"mover", &Truth::Profile::mover},
                                      {"kernel", &Truth::Profile::kernel},
                                      {"user", &Truth::Profile::user},
                                      {"idle", &Truth::Profile::idle}}) {
      const auto samples = line.value(name);
      if (!samples) return false;
      sum.*field += *samples;
    }
    return true;
  }

  bool page(const Line& line) {
    const auto space = line.number(1), number = line.number(2, 16), count = line.number(3),
               tier = line.number(4);
    if (!space || !number || !count || !tier || *tier >= kMostTiers) return false;
    // Both lines of a page that moved within the slice stand together.
    if (pending_ && (pending_space_ != *space || pending_number_ != *number)) close_page();
    pending_ = true;
    pending_space_ = *space;
    pending_number_ = *number;
    pending_count_ += *count;
    (fast_tier_[*tier] ? pending_fast_ : pending_slow_) = true;
    return true;
  }

  void close_pages() {
    if (pending_) close_page();
  }

  void close_page() {
    Space& space = spaces_[pending_space_];
    PageStory& story = space.pages[pending_number_];
    story.misses += pending_count_;
    if (std::exchange(story.phase, truth_.phases_ns.size()) != truth_.phases_ns.size())
      story.phase_misses = 0;
    story.phase_misses += pending_count_;
    const std::uint64_t now = truth_.slices.back().end_ns;
    const bool both = pending_fast_ && pending_slow_;
    // Where it is now: on both sides within one slice means it left where it was.
    const int tier = both ? (story.tier < 0 ? -1 : 1 - story.tier) : (pending_fast_ ? 0 : 1);
    if (story.tier >= 0 && tier != story.tier) {
      ++space.moves;
      if (story.left_tier == tier && now - story.left_ns <= Truth::kReturnNs) ++space.returns;
      story.left_tier = story.tier;
      story.left_ns = now;
    }
    story.tier = tier;
    pending_ = pending_fast_ = pending_slow_ = false;
    pending_count_ = 0;
  }

  std::uint64_t fast_node_;
  std::array<bool, kMostTiers> fast_tier_{};
  bool running_ = false, inside_ = false, ended_ = false, scanning_ = false;
  std::uint64_t start_ns_ = 0;
  Truth truth_;
  std::map<std::uint64_t, Space> spaces_;
  bool pending_ = false, pending_fast_ = false, pending_slow_ = false;
  std::uint64_t pending_space_ = 0, pending_number_ = 0, pending_count_ = 0;
};

}  // namespace

std::optional<double> Truth::fast_share(std::uint64_t from_ns, std::uint64_t to_ns) const {
  Slice sum;
  for (const Slice& slice : slices) {
    const std::uint64_t middle = (slice.begin_ns + slice.end_ns) / 2;
    if (middle < from_ns || middle >= to_ns) continue;
    sum.fast_misses += slice.fast_misses;
    sum.all_misses += slice.all_misses;
  }
  if (sum.all_misses == 0) return std::nullopt;
  return sum.fast_share();
}

Result<Truth> parse_truth(std::string_view text, int fast_node) {
  Reader reader(fast_node);
  std::size_t number = 0;
  while (!text.empty()) {
    ++number;
    const auto end = text.find('\n');
    if (!reader.take(text.substr(0, end)))
      return fail(ErrorKind::kCorrupt, "line {} is none of a ground truth: \"{}\"", number,
                  printable(text.substr(0, std::min<std::size_t>(end, 80))));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  if (!reader.complete())
    return fail(ErrorKind::kCorrupt, "the ground truth has no run between the marks run and end");
  return reader.finish();
}

Result<Truth> read_truth(const std::string& path, int fast_node) {
  TC_ASSIGN(const std::string text, lab::read_whole(path));
  return parse_truth(text, fast_node);
}

}  // namespace thermocline::suite

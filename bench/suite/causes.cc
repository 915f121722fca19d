// SPDX-License-Identifier: Apache-2.0
// Where the time of a lost cell goes. The parts add up to what ours takes longer than the other:
//   scan, decide, move, other work   our CPU shares times our slow-down (reference mode: the one
//                                    CPU is the program's; in parallel mode they run beside it)
//   its own work                     the same of the other, which counts against it
//   wrong pages                      difference of steady hit ratios times what all misses cost:
//                                    all-slow's slow-down - 1
//   late                             whole - steady of ours, beyond the same of the other
//   unexplained                      the rest
// What can't be told says so and counts as 0, so that its time is in the rest.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "bench/suite/summary.h"

namespace thermocline::suite {

namespace {

/// What a cell is lost to: those that the program would have been better off with.
constexpr std::array<std::string_view, 3> kLosable{kBetterRival, "first-touch", "interleave"};

/// Of CPU shares that are sampled every 50 us of a run of seconds, with room to spare.
constexpr double kSamplingError = 0.005;

/// What the daemon's own accounts leave of the overhead that was sampled.
Cause::Part other_work(double beyond, double accounted, double time) {
  if (accounted > beyond + kSamplingError) return {"other work", 0, "accounts disagree"};
  return {"other work", std::max(0.0, beyond - accounted) * time};
}

void decompose(Cause& cause, const Cell& cell, std::string_view mode) {
  const SystemFigures* ours = cell.find(kOurs);
  const SystemFigures* other = cell.find(cause.against);
  const SystemFigures* slow = cell.find("all-slow");
  if (!ours->slowdown || !other->slowdown) {
    cause.why = "not known: there is no all-fast cell to count in";
    return;
  }
  cause.excess = ours->slowdown->value - other->slowdown->value;
  if (!ours->steady_slowdown || !other->steady_slowdown || !slow || !slow->slowdown ||
      !ours->mean.steady_fast_hit_ratio) {
    cause.why = "not known: steady figures or the all-slow cell are missing";
    return;
  }
  const CellRecord& own = ours->mean;
  const double tracker = own.tracker_cpu_share.value_or(0);
  const double policy = own.policy_cpu_share.value_or(0);
  const double mover = own.mover_cpu_share.value_or(0);
  // The kernel works for the program as well; what it does without any tiering is no overhead.
  const SystemFigures* plain = cell.find("first-touch");
  const double usual = plain ? plain->mean.overhead_cpu_share.value_or(0) : 0;
  const double beyond =
      own.overhead_cpu_share ? *own.overhead_cpu_share - usual : tracker + policy + mover;
  const bool one_cpu = mode == "reference";
  const double our_time = one_cpu ? ours->slowdown->value : 0;
  const double its_time = one_cpu ? other->slowdown->value : 0;
  const double our_hits = *own.steady_fast_hit_ratio;
  const std::optional<double> its_hits = steady_hits(*other);
  const std::optional<double>& its_overhead = other->mean.overhead_cpu_share;
  const double late = (ours->slowdown->value - ours->steady_slowdown->value) -
                      (other->slowdown->value - other->steady_slowdown->value);
  cause.parts = {
      {"scan", tracker * our_time},
      {"decide", policy * our_time},
      {"move", mover * our_time},
      other_work(beyond, tracker + policy + mover, our_time),
      its_hits ? Cause::Part{"wrong pages", (*its_hits - our_hits) * (slow->slowdown->value - 1)}
               : Cause::Part{"wrong pages", 0, "its hits not known"},
      {"late", late}};
  const auto largest =
      std::max_element(cause.parts.begin(), cause.parts.end(),
                       [](const auto& a, const auto& b) { return a.slowdown < b.slowdown; });
  Cause::Part main = *largest;
  cause.parts.push_back(its_overhead
                            ? Cause::Part{"its own work", (usual - *its_overhead) * its_time}
                            : Cause::Part{"its own work", 0, "not known"});
  double explained = 0;
  for (const Cause::Part& part : cause.parts) explained += part.slowdown;
  cause.parts.push_back({"unexplained", cause.excess - explained});
  if (cause.parts.back().slowdown > main.slowdown) main = cause.parts.back();
  cause.main = main.name;

  std::vector<std::string> numbers;
  numbers.push_back(
      fmt::format("steady hit ratio {:.1f} % against {}", 100 * our_hits,
                  its_hits ? fmt::format("{:.1f} %", 100 * *its_hits) : "one that is not known"));
  if (const SystemFigures* oracle = cell.find("oracle-static"))
    if (const auto hits = steady_hits(*oracle))
      numbers.push_back(fmt::format("oracle {:.1f} %", 100 * *hits));
  numbers.push_back(fmt::format("slow-down {:.3f} whole, {:.3f} steady against {:.3f}, {:.3f}",
                                ours->slowdown->value, ours->steady_slowdown->value,
                                other->slowdown->value, other->steady_slowdown->value));
  numbers.push_back(fmt::format("CPU {:.1f} % scan, {:.1f} % decide, {:.1f} % move{}",
                                100 * tracker, 100 * policy, 100 * mover,
                                one_cpu ? "" : " beside the program"));
  if (own.promoted_bytes && own.demoted_bytes && own.footprint_bytes &&
      own.footprint_bytes->get() > 0)
    numbers.push_back(
        fmt::format("moved {:.1f} footprints",
                    static_cast<double>(own.promoted_bytes->get() + own.demoted_bytes->get()) /
                        static_cast<double>(own.footprint_bytes->get())));
  if (own.reconverge_s)
    numbers.push_back(fmt::format("{:.1f} s to re-converge", *own.reconverge_s));
  cause.why =
      fmt::format("{:+.3f} of {:+.3f}: {}", main.slowdown, cause.excess, fmt::join(numbers, "; "));
}

}  // namespace

std::optional<Cause> cause_of(const Cell& cell, std::string_view mode) {
  std::optional<Cause> cause;
  std::vector<std::string> lost_to;
  for (const std::string_view opponent : kLosable) {
    const auto& versus = cell.against(opponent).whole;
    if (verdict(versus) != Verdict::kLoss) continue;
    lost_to.push_back(versus->system);
    if (!cause) cause.emplace();
    if (cause->against.empty() || versus->ratio.value < cause->ratio.value) {
      cause->against = versus->system;
      cause->ratio = versus->ratio;
    }
  }
  if (!cause) return std::nullopt;
  cause->lost_to = std::move(lost_to);
  decompose(*cause, cell, mode);
  return cause;
}

}  // namespace thermocline::suite

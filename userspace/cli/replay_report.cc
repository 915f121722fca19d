// SPDX-License-Identifier: Apache-2.0
#include "cli/replay_report.h"

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/table.h"

namespace thermocline::cli {

double of_best_static(const ReplayReport& report, const replay::Outcome& outcome) {
  const double best = report.best.best_share();
  return best > 0 ? outcome.hit_ratio() / best : 0;
}

std::string replay_text(const ReplayReport& report) {
  const auto percent = [](double share) { return fmt::format("{:.2f} %", 100 * share); };
  std::vector<std::vector<std::string>> rows;
  for (const replay::Outcome& o : report.outcomes)
    rows.push_back({o.policy == "static" ? "static (first touch)" : o.policy,
                    percent(o.hit_ratio()), percent(of_best_static(report, o)),
                    std::to_string(o.moves.promotions.applied.get()),
                    std::to_string(o.moves.demotions.applied.get()), percent(o.ping_pong_share())});
  rows.push_back({"best static", percent(report.best.best_share()), percent(1), "-", "-", "-"});
  const replay::Survey& s = report.survey;
  const PageCount fast = replay::fast_pages(s.footprint, report.ratio);
  return fmt::format(
      "trace   {}: {} windows of {} (median), {} left out, {} address space{} (measured)\n"
      "tiers   fast {}, slow {}: {}:{} of the {} that were there at most (modelled)\n\n{}\n\n"
      "Hit ratio: share of the accessed page-windows that were on the fast tier (modelled).",
      report.trace, s.windows, format_duration(s.median_window), s.windows_left_out,
      s.address_spaces, s.address_spaces == 1 ? "" : "s", format_bytes(bytes_of(fast)),
      format_bytes(bytes_of(s.footprint.minus_floor(fast))), report.ratio.fast, report.ratio.slow,
      format_bytes(bytes_of(s.footprint)),
      format_table({{"POLICY"},
                    {"HIT RATIO", true},
                    {"OF BEST STATIC", true},
                    {"PROMOTED", true},
                    {"DEMOTED", true},
                    {"PING-PONG", true}},
                   rows, kLineWidth));
}

nlohmann::ordered_json replay_json(const ReplayReport& report) {
  const replay::Survey& s = report.survey;
  nlohmann::ordered_json policies = nlohmann::ordered_json::array();
  for (const replay::Outcome& o : report.outcomes) {
    nlohmann::ordered_json epochs = nlohmann::ordered_json::array();
    for (const replay::EpochOutcome& e : o.epochs)
      epochs.push_back({{"epoch", e.epoch},
                        {"time_ns", e.time.count()},
                        {"accessed_page_windows", e.accessed_page_windows.get()},
                        {"accessed_page_windows_fast", e.accessed_page_windows_fast.get()},
                        {"promoted_pages", e.promoted.get()},
                        {"demoted_pages", e.demoted.get()},
                        {"failed_pages", e.failed.get()},
                        {"regretted_pages", e.regretted.get()}});
    const PageCount failed = o.moves.promotions.tried + o.moves.demotions.tried -
                             o.moves.promotions.applied - o.moves.demotions.applied;
    policies.push_back({{"policy", o.policy},
                        {"hit_ratio", o.hit_ratio()},
                        {"of_best_static", of_best_static(report, o)},
                        {"accessed_page_windows", o.accessed_page_windows.get()},
                        {"accessed_page_windows_fast", o.accessed_page_windows_fast.get()},
                        {"promoted_pages", o.moves.promotions.applied.get()},
                        {"demoted_pages", o.moves.demotions.applied.get()},
                        {"failed_pages", failed.get()},
                        {"abandoned_pages", o.moves.abandoned.get()},
                        {"regretted_pages", o.moves.regretted.get()},
                        {"ping_pong_share", o.ping_pong_share()},
                        {"epochs", std::move(epochs)}});
  }
  const PageCount fast = replay::fast_pages(s.footprint, report.ratio);
  return {{"label", "modelled"},
          {"trace",
           {{"file", report.trace},
            {"windows", s.windows},
            {"windows_left_out", s.windows_left_out},
            {"median_window_ns", s.median_window.count()},
            {"address_spaces", s.address_spaces},
            {"footprint_pages", s.footprint.get()}}},
          {"ratio", fmt::format("{}:{}", report.ratio.fast, report.ratio.slow)},
          {"fast_pages", fast.get()},
          {"best_static_hit_ratio", report.best.best_share()},
          {"policies", std::move(policies)}};
}

}  // namespace thermocline::cli

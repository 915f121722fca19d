// SPDX-License-Identifier: Apache-2.0
#include "control/status.h"

#include <nlohmann/json.hpp>

#include "base/json_read.h"
#include "base/text.h"

namespace thermocline {

namespace {

using nlohmann::json;

double seconds(Nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

void add_moves(json& out, const std::string& verb, const MoveTotals& totals) {
  out[verb + "d_pages"] = totals.applied.get();
  out[verb + "_tried_pages"] = totals.tried.get();
  for (std::size_t i = 1; i < kMoveOutcomes; ++i)
    out[fmt::format("{}_failed_{}_pages", verb, outcome_name(static_cast<MoveOutcome>(i)))] =
        totals.by_outcome[i].get();
}

json occupancy_json(const Engine& engine, const Occupancy& occupancy) {
  json tiers = json::array();
  for (const TierState& tier : engine.tiers())
    tiers.push_back(occupancy.per_tier[tier.id.get()].get());
  return tiers;
}

PageCount failed(const json& counters, const std::string& verb) {
  PageCount total;
  for (std::size_t i = 1; i < kMoveOutcomes; ++i)
    total += PageCount(whole_or<std::uint64_t>(
        counters,
        fmt::format("{}_failed_{}_pages", verb, outcome_name(static_cast<MoveOutcome>(i))), 0));
  return total;
}

std::string percent(double part, double whole) {
  return whole > 0.0 ? fmt::format("{:.1f} %", 100.0 * part / whole) : std::string("-");
}

/// Throws json::exception when a key is missing or of another type.
std::string text_of(const json& status) {
  const json& engine = status.at("engine");
  const json& counters = status.at("counters");
  const auto pages = [](std::uint64_t n) { return format_bytes(bytes_of(PageCount(n))); };
  const auto time = [](const json& ns) {
    return format_duration(Nanoseconds(whole<std::int64_t>(ns)));
  };
  std::string out;
  if (status.contains("daemon")) {
    const json& daemon = status.at("daemon");
    out += fmt::format(
        "daemon    pid {}, up {:.0f} s, {:.2f} % of a core (measured), event loop {}\n",
        whole<int>(daemon.at("pid")), daemon.at("uptime_s").get<double>(),
        100.0 * daemon.at("cpu_share").get<double>(), daemon.at("event_loop").get<std::string>());
  }
  out += fmt::format("engine    {}, policy {}, tracker {}; epoch {} with {} windows of {}{}\n",
                     engine.at("mode").get<std::string>(), engine.at("policy").get<std::string>(),
                     engine.at("tracker").get<std::string>(), time(engine.at("epoch_ns")),
                     whole<unsigned>(engine.at("windows_per_epoch")), time(engine.at("window_ns")),
                     engine.at("window_auto").get<bool>() ? " (auto)" : "");
  if (status.contains("plugin")) {
    const json& plugin = status.at("plugin");
    out += fmt::format(
        "plug-in   {} decides; {} plans of its own, {} failures, {} restarts\n",
        plugin.at("deciding").get<std::string>(), whole<std::uint64_t>(plugin.at("decisions")),
        whole<std::uint64_t>(plugin.at("failures")), whole<std::uint64_t>(plugin.at("restarts")));
    if (const auto last = plugin.at("last_failure").get<std::string>(); !last.empty())
      out += fmt::format("          last failure: {}\n", last);
  }
  const auto hot = whole<std::uint64_t>(engine.at("hot_pages"));
  if (const auto heat = whole<unsigned>(engine.at("threshold_heat")); heat > 0)
    out += fmt::format("hot set   {} at heat {} and above\n", pages(hot), heat);
  else if (hot > 0)
    out += fmt::format("hot set   none is told apart: all {} fit the fast tier\n", pages(hot));
  else
    out += "hot set   not known yet\n";
  const double accessed = counters.at("accessed_page_windows").get<double>();
  out += fmt::format("hits      {} of the accessed pages were on the fast tier (measured)\n",
                     percent(counters.at("accessed_page_windows_fast").get<double>(), accessed));
  out += fmt::format("scans     {} in {} epochs, {} entries",
                     whole<std::uint64_t>(counters.at("scan_calls")),
                     whole<std::uint64_t>(counters.at("epochs")),
                     whole<std::uint64_t>(counters.at("scan_entries")));
  const double entries = counters.at("scan_entries").get<double>();
  if (entries > 0.0)
    out +=
        fmt::format(", {:.1f} ns each (measured)", counters.at("scan_ns").get<double>() / entries);
  out += fmt::format("\nmoves     promoted {}, demoted {}; failed {}, regretted {}, abandoned {}\n",
                     pages(whole<std::uint64_t>(counters.at("promoted_pages"))),
                     pages(whole<std::uint64_t>(counters.at("demoted_pages"))),
                     pages((failed(counters, "promote") + failed(counters, "demote")).get()),
                     pages(whole<std::uint64_t>(counters.at("regretted_pages"))),
                     pages(whole<std::uint64_t>(counters.at("abandoned_pages"))));
  for (const json& tier : status.at("tiers"))
    out += fmt::format("tier {}    nodes {}, {} free\n", whole<int>(tier.at("tier")),
                       tier.at("nodes").dump(-1, ' ', false, json::error_handler_t::replace),
                       format_bytes(Bytes(whole<std::uint64_t>(tier.at("free_bytes")))));
  for (const json& tenant : status.at("tenants"))
    out += fmt::format("share     {}: {} of the fast tier; wants {}, is entitled to {}\n",
                       tenant.at("name").get<std::string>(),
                       pages(whole<std::uint64_t>(tenant.at("fast_pages"))),
                       pages(whole<std::uint64_t>(tenant.at("wanted_pages"))),
                       pages(whole<std::uint64_t>(tenant.at("entitled_pages"))));
  if (status.at("targets").empty()) out += "targets   none now\n";
  for (const json& target : status.at("targets")) {
    out += fmt::format("target    {} {}:", whole<int>(target.at("pid")),
                       target.at("command").get<std::string>());
    std::size_t tier = 0;
    for (const json& count : target.at("tier_pages")) {
      out += fmt::format("{} {} on tier {}", tier == 0 ? "" : ",",
                         pages(whole<std::uint64_t>(count)), tier);
      ++tier;
    }
    if (const auto shared = whole_or<std::uint64_t>(target, "shared_pages", 0); shared > 0)
      out += fmt::format("; {} shared with other targets, counted once", pages(shared));
    out += '\n';
    if (const auto pinned = whole_or<std::uint64_t>(target, "pinned_pages", 0); pinned > 0)
      out +=
          fmt::format("          {} of it can't be moved: a device, io_uring or RDMA holds them\n",
                      pages(pinned));
    if (target.value("unseen", false))
      out +=
          "          it uses CPU, but no page of it is seen accessed: the daemon's log says more\n";
  }
  out.pop_back();
  return out;
}

}  // namespace

json plugin_json(const PluginHealth& health) {
  return {{"deciding", health.deciding},  {"decisions", health.decisions},
          {"failures", health.failures},  {"restarts", health.restarts},
          {"cpu_s", seconds(health.cpu)}, {"last_failure", health.last_failure}};
}

json tenant_json(const TenantStatus& tenant) {
  const PageCount ceiling = tenant.limits.ceiling;
  return {
      {"name", tenant.limits.name},
      {"processes", tenant.processes},
      {"weight", tenant.limits.weight},
      {"floor_bytes", bytes_of(tenant.limits.floor).get()},
      {"ceiling_bytes", ceiling == TenantLimits{}.ceiling ? json() : json(bytes_of(ceiling).get())},
      {"fast_pages", tenant.fast.get()},
      {"wanted_pages", tenant.wanted.get()},
      {"entitled_pages", tenant.entitled.get()}};
}

json counters_json(const Engine& engine) {
  const EngineCounters& c = engine.counters();
  const LedgerTotals& l = engine.ledger().totals();
  json out;
  add_moves(out, "promote", l.promotions);
  add_moves(out, "demote", l.demotions);
  out["regretted_pages"] = l.regretted.get();
  out["abandoned_pages"] = l.abandoned.get();
  out["epochs"] = c.epochs;
  out["epochs_stretched"] = c.epochs_stretched;
  out["epochs_calm"] = c.epochs_calm;
  out["epochs_early"] = c.epochs_early;
  out["looks"] = c.looks;
  out["windows"] = c.windows;
  out["scan_calls"] = c.scan_calls;
  out["scan_entries"] = c.scans.entries;
  out["scan_ns"] = c.scans.elapsed.count();
  out["scan_records"] = c.scans.records;
  out["scan_bytes"] = c.scans.bytes;
  out["scan_skipped_pages"] = c.scans.skipped.get();
  out["scan_errors"] = c.scan_errors;
  out["longest_lock_ns"] = c.scans.longest_lock.count();
  out["lock_holds"] = c.scans.lock_holds;
  out["corrupt_records"] = c.corrupt_records;
  out["lost_records"] = c.lost_records;
  out["tracking_cpu_ns"] = c.tracking_cpu.count();
  out["source_cpu_ns"] = c.source_cpu.count();
  out["deciding_cpu_ns"] = c.deciding_cpu.count();
  out["moving_cpu_ns"] = c.moving_cpu.count();
  out["longest_batch_ns"] = c.longest_batch.count();
  out["accessed_page_windows"] = c.accessed_page_windows.get();
  out["accessed_page_windows_fast"] = c.accessed_page_windows_fast.get();
  out["present_page_windows"] = c.present_page_windows.get();
  return out;
}

json status_json(const Engine& engine) {
  json out;
  const EngineOptions& o = engine.options();
  out["engine"] = {{"mode", o.mode == EngineMode::kManage ? "manage" : "observe"},
                   {"policy", std::string(engine.policy().name())},
                   {"tracker", engine.tracker().name()},
                   {"epochs", engine.counters().epochs},
                   {"epoch_ns", o.epoch.count()},
                   {"last_epoch_ns", engine.last_epoch_duration().count()},
                   {"window_ns", engine.window().count()},
                   {"window_auto", o.window_auto},
                   {"windows_per_epoch", o.windows_per_epoch},
                   {"cpu_budget", o.cpu_budget},
                   {"cpu_burst_ns", o.cpu_burst.count()},
                   {"rate_limit_bytes_per_s", o.rate_limit.get()},
                   {"threshold_heat", engine.threshold().heat.get()},
                   {"hot_pages", engine.threshold().at_or_above.get()},
                   {"heat_map_bytes", engine.heat().memory().get()}};
  if (const auto health = engine.policy().plugin_health()) out["plugin"] = plugin_json(*health);
  out["counters"] = counters_json(engine);
  out["tiers"] = json::array();
  for (const TierState& tier : engine.tiers()) {
    json nodes = json::array();
    PageCount free, reserve;
    for (const NodeState& node : tier.nodes) {
      nodes.push_back(node.id.get());
      free += node.free;
      reserve += node.reserve;
    }
    out["tiers"].push_back({{"tier", tier.id.get()},
                            {"nodes", nodes},
                            {"free_bytes", bytes_of(free).get()},
                            {"reserve_bytes", bytes_of(reserve).get()}});
  }
  out["tenants"] = json::array();
  for (const TenantStatus& tenant : engine.tenants()) out["tenants"].push_back(tenant_json(tenant));
  out["targets"] = json::array();
  for (const TargetStatus& target : engine.targets())
    out["targets"].push_back({{"pid", target.process.pid.get()},
                              {"command", target.process.command},
                              {"asid", fmt::format("{:#x}", target.process.asid.get())},
                              {"tier_pages", occupancy_json(engine, target.occupancy)},
                              {"unobservable_pages", target.occupancy.unobservable.get()},
                              {"shared_pages", target.shared.get()},
                              {"pinned_pages", target.pinned.get()},
                              {"sections", target.sections},
                              {"unseen", target.unseen}});
  return out;
}

Result<std::string> status_text(const json& status) {
  try {
    return text_of(status);
  } catch (const json::exception& e) {
    return fail(ErrorKind::kFailure,
                "the daemon's status has another form than this command knows ({}); are both of "
                "the same version?",
                e.what());
  }
}

std::string history_line(const Engine& engine, const EpochReport& report, std::size_t max_bins) {
  json line;
  line["epoch"] = report.epoch.get();
  line["time_s"] = seconds(report.time);
  line["epoch_s"] = seconds(report.duration);
  line["window_ns"] = report.window.count();
  line["threshold_heat"] = report.threshold.heat.get();
  line["promoted_pages"] = report.promoted.get();
  line["demoted_pages"] = report.demoted.get();
  line["failed_pages"] = report.failed.get();
  line["accessed_page_windows"] = report.accessed_page_windows.get();
  line["accessed_page_windows_fast"] = report.accessed_page_windows_fast.get();
  line["present_page_windows"] = report.present_page_windows.get();
  line["counters"] = counters_json(engine);
  line["targets"] = json::array();
  for (const TargetStatus& target : engine.targets()) {
    json bins = json::array();
    for (const HeatBin& bin : engine.heat().bins(target.process.asid, max_bins))
      bins.push_back({{"first_page", bin.first.get()},
                      {"pages", bin.span.get()},
                      {"present", bin.present.get()},
                      {"fast", bin.fast.get()},
                      {"heat_mean", bin.heat_mean}});
    line["targets"].push_back({{"pid", target.process.pid.get()},
                               {"command", target.process.command},
                               {"asid", fmt::format("{:#x}", target.process.asid.get())},
                               {"bins", std::move(bins)}});
  }
  return line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace thermocline

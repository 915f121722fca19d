// SPDX-License-Identifier: Apache-2.0
// `thermocline migrate` and `thermocline drain`: pages that somebody names go where somebody says.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/command.h"
#include "cli/page_carrier.h"
#include "cli/table.h"
#include "topology/topology.h"

namespace thermocline::cli {

namespace {

constexpr Nanoseconds kProgress = std::chrono::seconds(2);
/// Pages that were busy are tried again, and processes go on allocating meanwhile.
constexpr int kRounds = 3;

std::atomic<bool> interrupted{false};
void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = true; };
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

std::string pages_text(PageCount pages) {
  return format_bytes(bytes_of(pages));
}

/// Neither moved nor gone.
PageCount left_of(const CarryResult& r) {
  return r.asked.minus_floor(r.of(MoveOutcome::kMoved) + r.of(MoveOutcome::kGone));
}

/// Why pages stayed, and what can be done.
std::string reason(MoveOutcome outcome, NodeId to, bool all_owners) {
  switch (outcome) {
    case MoveOutcome::kMoved:
      return "";
    case MoveOutcome::kGone:
      return "went away meanwhile, or others alone map them now";
    case MoveOutcome::kBusy:
      return "in use by the kernel or held by a device (RDMA, io_uring, O_DIRECT): try again, or "
             "end "
             "what holds them";
    case MoveOutcome::kNoMemory:
      return fmt::format("node {} has no more room: make some, or name another node", to.get());
    case MoveOutcome::kDenied:
      return all_owners
                 ? "the process's cpuset doesn't allow the node"
                 : "other processes map them as well (--shared moves those, as root), or the "
                   "process's cpuset doesn't allow the node";
    case MoveOutcome::kRefused:
      return "the kernel refuses to move them at all";
  }
  return "";
}

/// Speaks on standard error every other second.
class Teller {
 public:
  Teller(const System& system, std::string verb, PageCount all)
      : system_(system), verb_(std::move(verb)), all_(all), begun_(system.now()), next_(begun_) {
    next_ += kProgress;
  }
  bool operator()(const CarryResult& now) {
    if (system_.now() >= next_) {
      next_ = system_.now() + kProgress;
      const PageCount moved = before_ + now.of(MoveOutcome::kMoved);
      const auto seconds = std::chrono::duration<double>(system_.now() - begun_).count();
      const double rate = static_cast<double>(bytes_of(moved).get()) / seconds;
      const double left = static_cast<double>(bytes_of(all_.minus_floor(moved)).get());
      fmt::print(stderr, "thermocline: {}: {} of {} moved{}\n", verb_, pages_text(moved),
                 pages_text(all_),
                 rate > 0 ? fmt::format(", some {:.0f} s left", left / rate) : std::string());
    }
    return !interrupted;
  }
  void done(const CarryResult& one) { before_ += one.of(MoveOutcome::kMoved); }
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(system_.now() - begun_).count();
  }

 private:
  const System& system_;
  std::string verb_;
  PageCount all_, before_;
  Nanoseconds begun_, next_;
};

/// A node that pages can be moved to. kUsage, with those that there are, for any other.
Result<const Node*> usable_node(const Topology& topology, NodeId id, const char* option) {
  std::vector<std::int32_t> usable;
  for (const Node& node : topology.nodes) {
    if (node.usable() && node.id == id) return &node;
    if (node.usable()) usable.push_back(node.id.get());
  }
  return fail(ErrorKind::kUsage,
              "{} {}: no node with memory that this process may use; there {} {}", option, id.get(),
              usable.size() == 1 ? "is only" : "are", fmt::join(usable, ", "));
}

nlohmann::ordered_json to_json(const CarryResult& r) {
  nlohmann::ordered_json json;
  json["already_bytes"] = bytes_of(r.already).get();
  json["asked_bytes"] = bytes_of(r.asked).get();
  for (std::size_t o = 0; o < kMoveOutcomes; ++o)
    json[fmt::format("{}_bytes", outcome_name(static_cast<MoveOutcome>(o)))] =
        bytes_of(r.outcomes[o]).get();
  json["interrupted"] = interrupted.load();
  return json;
}

void print_left(const CarryResult& r, NodeId to, bool all_owners) {
  for (std::size_t o = 1; o < kMoveOutcomes; ++o)
    if (r.outcomes[o] > PageCount(0))
      print_line(fmt::format("  {} not moved: {}", pages_text(r.outcomes[o]),
                             reason(static_cast<MoveOutcome>(o), to, all_owners)));
  const PageCount untried =
      left_of(r).minus_floor(r.of(MoveOutcome::kBusy) + r.of(MoveOutcome::kNoMemory) +
                             r.of(MoveOutcome::kDenied) + r.of(MoveOutcome::kRefused));
  if (untried > PageCount(0))
    print_line(fmt::format("  {} not tried{}", pages_text(untried),
                           interrupted ? ": interrupted"
                           : r.full    ? ": there was no more room"
                                       : ""));
  if (r.set_aside > PageCount(0))
    print_line(fmt::format(
        "  {} of address ranges that are hardly used not looked at; name them with migrate --range",
        pages_text(r.set_aside)));
}

// -------------------------------------------------------------------- migrate

struct MigrateOptions {
  std::int32_t pid = 0, to = 0;
  std::optional<std::int32_t> from;
  std::vector<std::string> ranges;
  bool shared = false, dry_run = false, json = false;
};

Result<int> migrate(const MigrateOptions& o) {
  CarryRequest request;
  TC_ASSIGN(request.ranges, parse_ranges(o.ranges));
  request.to = NodeId(o.to);
  if (o.from) request.from = NodeId(*o.from);
  if (o.from && *o.from == o.to)
    return fail(ErrorKind::kUsage, "--from and --to name the same node {}", o.to);
  request.shared = o.shared;
  const auto system = make_real_system();
  TC_ASSIGN(const Topology topology, discover(*system));
  TC_TRY(usable_node(topology, request.to, "--to"));
  TC_ASSIGN(const ProcessIdentity process, identify_process(*system, Pid(o.pid)));

  catch_interrupts();
  request.dry_run = true;
  TC_ASSIGN(CarryResult result, carry_pages(*system, process, request,
                                            [](const CarryResult&) { return !interrupted; }));
  Teller teller(*system, "migrate", result.asked);
  if (!o.dry_run && !interrupted && result.asked > PageCount(0)) {
    request.dry_run = false;
    const PageCount all = result.asked;
    TC_ASSIGN(result, carry_pages(*system, process, request, std::ref(teller)));
    // Where it ended early, it has not seen all.
    result.asked = std::max(result.asked, all);
  }
  const double seconds = teller.seconds();
  if (o.json) {
    nlohmann::ordered_json json;
    json["pid"] = o.pid;
    json["command"] = process.command;
    json["to"] = o.to;
    json["dry_run"] = o.dry_run;
    json.update(to_json(result));
    json["seconds"] = seconds;
    print_line(json_text(json));
  } else if (o.dry_run) {
    print_line(fmt::format("process {} ({}): {} would be moved to node {}; {} there already", o.pid,
                           process.command, pages_text(result.asked), o.to,
                           pages_text(result.already)));
  } else {
    const PageCount moved = result.of(MoveOutcome::kMoved);
    if (result.asked == PageCount(0)) {
      print_line(fmt::format("process {} ({}): nothing to be moved; {} on node {} already", o.pid,
                             process.command, pages_text(result.already), o.to));
      return 0;
    }
    print_line(
        fmt::format("process {} ({}): {} of {} moved to node {} in {:.1f} s; {} there already",
                    o.pid, process.command, pages_text(moved), pages_text(result.asked), o.to,
                    seconds, pages_text(result.already)));
    print_left(result, request.to, o.shared);
  }
  return interrupted || (!o.dry_run && left_of(result) > PageCount(0)) ? 1 : 0;
}

// -------------------------------------------------------------------- drain

struct DrainOptions {
  std::int32_t node = 0;
  std::vector<std::int32_t> to;
  bool dry_run = false, json = false;
};

/// Where the pages of a node may go, best first: where somebody says, else the others by free
/// memory.
Result<std::vector<NodeId>> destinations(const Topology& topology, const DrainOptions& o) {
  std::vector<NodeId> to;
  for (const std::int32_t id : o.to) {
    if (id == o.node) return fail(ErrorKind::kUsage, "--to {}: that is the node to be emptied", id);
    TC_TRY(usable_node(topology, NodeId(id), "--to"));
    to.push_back(NodeId(id));
  }
  if (!to.empty()) return to;
  std::vector<const Node*> others;
  for (const Node& node : topology.nodes)
    if (node.usable() && node.id.get() != o.node) others.push_back(&node);
  if (others.empty())
    return fail(ErrorKind::kUnsupported,
                "there is no other node with memory that this process may use, so node {} can't be "
                "emptied",
                o.node);
  std::stable_sort(others.begin(), others.end(),
                   [](const Node* a, const Node* b) { return a->free > b->free; });
  for (const Node* node : others) to.push_back(node->id);
  return to;
}

struct Held {
  ProcessIdentity process;
  CarryResult result;  ///< what was there, and what became of it
  std::string error;   ///< why nobody could look
};

/// What the kernel says is still used on a node, in its own words.
std::map<std::string, Bytes> node_memory(const System& system, std::int32_t node) {
  std::map<std::string, Bytes> kinds;
  const auto text = system.read_file(fmt::format("/sys/devices/system/node/node{}/meminfo", node));
  for (const std::string_view line : split(text.value_or(""), '\n')) {
    // Node 1 MemUsed:   1234 kB
    const auto fields = words(line);
    if (fields.size() < 4) continue;
    if (const auto kib = parse_u64(fields[3]))
      kinds[std::string(fields[2].substr(0, fields[2].find(':')))] = Bytes(*kib * 1024);
  }
  return kinds;
}

/// Goes through all processes once, and tells those that hold pages of the node, or may.
Result<std::vector<Held>> go_through(System& system, CarryRequest request,
                                     std::span<const NodeId> to, Teller* teller) {
  TC_ASSIGN(const auto all, find_targets(system, {}));
  std::vector<Held> held;
  std::size_t destination = 0;
  const CarryProgress progress = [&](const CarryResult& now) {
    return teller != nullptr ? (*teller)(now) : !interrupted;
  };
  for (const ProcessIdentity& process : all) {
    if (interrupted) break;
    if (process.pid.get() == ::getpid()) continue;
    Held one{process, {}, {}};
    for (;;) {
      request.to = to[destination];
      const auto carried = carry_pages(system, process, request, progress);
      if (!carried) {
        // One that has ended holds nothing.
        if (carried.error().kind != ErrorKind::kNotFound) one.error = carried.error().message;
        break;
      }
      if (teller != nullptr) teller->done(*carried);
      // The last try tells what there was left to do.
      const PageCount moved = one.result.of(MoveOutcome::kMoved);
      one.result = *carried;
      one.result.outcomes[static_cast<std::size_t>(MoveOutcome::kMoved)] += moved;
      one.result.asked += moved;
      if (!carried->full || destination + 1 == to.size()) break;
      ++destination;
    }
    if (one.result.asked > PageCount(0) || one.result.set_aside > PageCount(0) ||
        !one.error.empty())
      held.push_back(std::move(one));
  }
  return held;
}

PageCount asked_of(std::span<const Held> held) {
  PageCount sum;
  for (const Held& one : held) sum += one.result.asked;
  return sum;
}

Result<int> drain(const DrainOptions& o) {
  const auto system = make_real_system();
  TC_ASSIGN(const Topology topology, discover(*system));
  TC_TRY(usable_node(topology, NodeId(o.node), "--node"));
  TC_ASSIGN(const auto to, destinations(topology, o));
  if (::geteuid() != 0) return fail(ErrorKind::kPermission, "to move everybody's pages takes root");
  catch_interrupts();
  CarryRequest request;
  request.from = NodeId(o.node);
  request.shared = true;
  request.dry_run = true;
  TC_ASSIGN(std::vector<Held> held, go_through(*system, request, to, nullptr));
  const PageCount all = asked_of(held);
  Teller teller(*system, "drain", all);
  PageCount moved;
  if (!o.dry_run && !interrupted) {
    std::map<Pid, CarryResult> tries;
    request.dry_run = false;
    for (int round = 0; round < kRounds && !interrupted; ++round) {
      TC_ASSIGN(held, go_through(*system, request, to, &teller));
      PageCount now;
      for (const Held& one : held) {
        now += one.result.of(MoveOutcome::kMoved);
        tries[one.process.pid] = one.result;
      }
      moved += now;
      if (now == PageCount(0)) break;
    }
    // What is there now is looked at, not reckoned; why it is, the last try tells.
    const bool was_interrupted = interrupted.exchange(false);
    request.dry_run = true;
    TC_ASSIGN(held, go_through(*system, request, to, nullptr));
    interrupted = interrupted || was_interrupted;
    for (Held& one : held) {
      const auto last = tries.find(one.process.pid);
      if (last == tries.end()) continue;
      one.result.outcomes = last->second.outcomes;
      one.result.outcomes[static_cast<std::size_t>(MoveOutcome::kMoved)] = PageCount(0);
      one.result.full = last->second.full;
    }
  }
  std::sort(held.begin(), held.end(),
            [](const Held& a, const Held& b) { return a.result.asked > b.result.asked; });
  const PageCount left = asked_of(held);
  const bool unseen = std::any_of(held.begin(), held.end(), [](const Held& one) {
    return !one.error.empty() || one.result.set_aside > PageCount(0);
  });
  const int code = interrupted || (!o.dry_run && (left > PageCount(0) || unseen)) ? 1 : 0;
  const auto memory = node_memory(*system, o.node);
  const auto used = memory.find("MemUsed");
  if (o.json) {
    nlohmann::ordered_json json;
    json["node"] = o.node;
    for (const NodeId id : to) json["to"].push_back(id.get());
    json["dry_run"] = o.dry_run;
    json["moved_bytes"] = bytes_of(moved).get();
    json["left_bytes"] = bytes_of(left).get();
    json["node_used_bytes"] = nullptr;
    if (used != memory.end()) json["node_used_bytes"] = used->second.get();
    json["interrupted"] = interrupted.load();
    json["seconds"] = teller.seconds();
    json["processes"] = nlohmann::ordered_json::array();
    for (const Held& one : held) {
      nlohmann::ordered_json process{{"pid", one.process.pid.get()},
                                     {"command", one.process.command}};
      process.update(to_json(one.result));
      process["set_aside_bytes"] = bytes_of(one.result.set_aside).get();
      process["error"] = nullptr;
      if (!one.error.empty()) process["error"] = one.error;
      json["processes"].push_back(process);
    }
    print_line(json_text(json));
    return code;
  }
  if (o.dry_run)
    print_line(fmt::format("node {}: {} of {} processes would be moved to node {}", o.node,
                           pages_text(all), held.size(),
                           fmt::join(
                               [&] {
                                 std::vector<std::int32_t> ids;
                                 for (const NodeId id : to) ids.push_back(id.get());
                                 return ids;
                               }(),
                               ", then ")));
  else
    print_line(fmt::format("node {}: {} moved in {:.1f} s, {} of processes left", o.node,
                           pages_text(moved), teller.seconds(), pages_text(left)));
  for (const Held& one : held) {
    print_line(fmt::format(
        "process {} ({}): {}", one.process.pid.get(), one.process.command,
        one.error.empty() ? pages_text(one.result.asked) : "not looked at: " + one.error));
    if (!o.dry_run) print_left(one.result, to.back(), true);
  }
  if (used != memory.end() && !o.dry_run) {
    std::vector<std::string> kinds;
    for (const char* kind :
         {"FilePages", "AnonPages", "Shmem", "Slab", "KernelStack", "PageTables"})
      if (const auto found = memory.find(kind); found != memory.end() && found->second > Bytes(0))
        kinds.push_back(fmt::format("{} {}", kind, format_bytes(found->second)));
    print_line(fmt::format("in use there now: {} ({})", format_bytes(used->second),
                           fmt::join(kinds, ", ")));
    print_line(
        "  what no process maps, cached files and the kernel's own, goes when the memory is taken "
        "offline: daxctl offline-memory, or state in /sys/devices/system/memory");
  }
  return code;
}

}  // namespace

void register_migrate(CLI::App& app, Context& context) {
  auto o = std::make_shared<MigrateOptions>();
  CLI::App* verb = app.add_subcommand("migrate", "move pages of a process to a node, now");
  verb->add_option("--pid", o->pid, "the process")->required()->type_name("PID");
  verb->add_option("--to", o->to, "the node")->required()->check(node_number())->type_name("N");
  verb->add_option("--from", o->from, "only pages of this node")
      ->check(node_number())
      ->type_name("N");
  verb->add_option("--range", o->ranges,
                   "only pages of these addresses, as in /proc/PID/maps; may be repeated")
      ->type_name("A-B");
  verb->add_flag("--shared", o->shared, "also pages that other processes map (root)");
  verb->add_flag("--dry-run", o->dry_run, "say how much it would be, and move nothing");
  verb->add_flag("--json", o->json, "print JSON with stable keys");
  verb->callback([o, &context] { context.action = [o] { return migrate(*o); }; });
}

void register_drain(CLI::App& app, Context& context) {
  auto o = std::make_shared<DrainOptions>();
  CLI::App* verb =
      app.add_subcommand("drain", "empty a node of all processes' pages, before maintenance");
  verb->add_option("--node", o->node, "the node")->required()->check(node_number())->type_name("N");
  verb->add_option("--to", o->to,
                   "nodes to fill, one after the other (default: those with most free)")
      ->delimiter(',')
      ->type_name("N,...");
  verb->add_flag("--dry-run", o->dry_run, "say how much it would be, and move nothing");
  verb->add_flag("--json", o->json, "print JSON with stable keys");
  verb->callback([o, &context] { context.action = [o] { return drain(*o); }; });
}

}  // namespace thermocline::cli

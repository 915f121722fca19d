// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <set>
#include <utility>

#include "heat/scale.h"
#include "tracking/forks.h"
#include "tracking/proc_maps.h"

namespace thermocline {

namespace {

constexpr Nanoseconds kShortestWindow = std::chrono::milliseconds(1);
/// Sections of a target at most.
constexpr std::size_t kMostSections = 256;
/// TASK_SIZE_MAX of arch/x86/include/asm/page_64_types.h, in pages.
constexpr Vpn kEndOfFourLevels{(std::uint64_t{1} << (47 - kPageShift)) - 1};
constexpr Vpn kEndOfFiveLevels{(std::uint64_t{1} << (56 - kPageShift)) - 1};
/// Time for which the token bucket may save up, at least.
constexpr Nanoseconds kShortestBurst = std::chrono::milliseconds(100);

/// Moves of other address spaces that a batch passes over at most.
constexpr std::size_t kPassedOver = 4096;
/// Epochs in which a page that could not be moved just now (shared by a fork, under I/O) rests.
/// Each failure in a row doubles them, up to kLongestRest: a page that a device holds is busy for
/// good.
constexpr unsigned kFirstRest = 4, kLongestRest = 64;
/// A page that was busy so often in a row, with rests of 28 epochs in between, is pinned.
constexpr unsigned kPinnedAfter = 4;
/// Of so many pages it is known how often they failed; of more, only that they did just now.
constexpr std::size_t kMostResting = 16384;

/// Reading memory maps may take one in so many parts of the CPU budget.
constexpr int kMapsShare = 16;
/// Forks of forks of a target, at most.
constexpr unsigned kMostGenerations = 16;

/// So many epochs without an accessed page, and so much CPU time (clock ticks, half a second)
/// meanwhile, are no accident.
constexpr unsigned kUnseenEpochs = 16;
constexpr std::uint64_t kUnseenTicks = 50;

/// An epoch whose plan moves less than one in so many pages of the fast tier is calm. After each
/// calm epoch in a row the engine rests for twice as long, up to 2^kMostCalm epochs, but for no
/// longer than brings what tracking costs down to one in kCalmBudget of the budget.
constexpr std::uint64_t kCalmShare = 16;
constexpr unsigned kMostCalm = 2;
constexpr double kCalmBudget = 4;
/// Epochs after a new target or a change in which heat is too young to tell. They follow each other
/// at once, until there is something to move.
constexpr unsigned kYoungEpochs = 3;
/// What is known from one in so many accesses is no share to compare with.
constexpr std::uint64_t kFewAccesses = 16;
/// When young epochs after a change have brought nothing so often in a row, it takes twice as many
/// epochs each time until another change may call for them, up to 2^kMostDoublings.
constexpr unsigned kFruitless = 3, kMostDoublings = 5;
constexpr std::pair<std::uint64_t, std::uint64_t> kNoHope{0, 0};
/// Epochs begin early at most once in so many because an epoch found that the fast tier serves
/// less.
constexpr unsigned kLookAgainAfter = 8;
/// A program that touches so many pages in the first windows of an epoch is not asleep.
constexpr PageCount kAwake{64};

/// A source that watches by itself looks at memory in which nothing is touched once in so many
/// epochs.
constexpr unsigned kEpochsAWhole = 8;

/// Looks while the engine rests take one in so many parts of the budget, and come no more often
/// than this, and once in so many windows.
constexpr int kLookShare = 16;
constexpr Nanoseconds kShortestLook = std::chrono::milliseconds(20);
constexpr int kWindowsALook = 8;
/// Rounds of looks have this for their epoch: their records are no evidence of heat.
constexpr Epoch kLookEpoch{~std::uint64_t{0}};

/// A round that isn't over when it should be is looked for so often; usually the tracker tells.
constexpr Nanoseconds kLookForRound = std::chrono::milliseconds(10);
/// Without a sign of life for so many epochs, the epoch goes on without it. A process of terabytes
/// takes seconds a pass, and brings records all the time.
constexpr int kPatientEpochs = 4;
/// It stays asked for, and what it still brings counts; after so many epochs it is asked for anew.
constexpr unsigned kMostLate = 3;

Nanoseconds scaled(Nanoseconds time, double factor) {
  return Nanoseconds(static_cast<Nanoseconds::rep>(static_cast<double>(time.count()) * factor));
}

template <class F>
PageCount sum(const TierState& tier, F of_node) {
  PageCount total;
  for (const NodeState& node : tier.nodes) total += of_node(node);
  return total;
}

PageCount failures(const MoveTotals& totals) {
  return totals.tried - totals.applied;
}

}  // namespace

void MoveQueue::push(const Move& move) {
  moves_.push_back(move);
  pages_ += move.order.pages();
}

void MoveQueue::take(PageCount limit, std::vector<Move>& out) {
  if (moves_.empty()) return;
  const Asid asid = moves_.front().asid;
  const TierId to = moves_.front().to;
  PageCount taken;
  std::vector<Move> passed;
  while (!moves_.empty() && passed.size() < kPassedOver) {
    const Move& move = moves_.front();
    if (move.asid == asid && move.to == to) {
      if (taken > PageCount(0) && taken + move.order.pages() > limit) break;
      taken += move.order.pages();
      out.push_back(move);
    } else {
      passed.push_back(move);
    }
    moves_.pop_front();
  }
  moves_.insert(moves_.begin(), passed.begin(), passed.end());
  pages_ -= taken;
}

bool MoveQueue::bring_forward(TierId from) {
  return std::stable_partition(moves_.begin(), moves_.end(), [from](const Move& move) {
           return move.from == from;
         }) != moves_.begin();
}

PageCount MoveQueue::drop(TierId to) {
  PageCount dropped;
  std::erase_if(moves_, [&](const Move& move) {
    if (move.to == to) dropped += move.order.pages();
    return move.to == to;
  });
  pages_ -= dropped;
  return dropped;
}

void MoveQueue::clear() {
  moves_.clear();
  pages_ = PageCount(0);
}

Engine::Engine(Parts parts, const EngineOptions& options)
    : parts_(std::move(parts)),
      options_(options),
      next_options_(options),
      shared_(heat_, [this](Asid from, Vpn first, PageCount count, Asid to,
                            Vpn to_first) { follow_hand_over(from, first, count, to, to_first); }),
      rounds_(parts_.tracker->rounds()),
      window_(options.window),
      credit_(scaled(options.cpu_burst, options.cpu_budget)) {
  heat_.keep_touches(parts_.policy->needs_touches());
}

Engine::~Engine() = default;

void Engine::log(const std::string& text) const {
  if (parts_.hooks.log) parts_.hooks.log(text);
}

Nanoseconds Engine::step(Nanoseconds now) {
  if (rounds_ != nullptr) drain(now);
  switch (phase_) {
    case Phase::kRest:
      if (now < next_epoch_) return keep_watch(now);
      begin_epoch(now);
      return now;
    case Phase::kScan:
      if (!scan_queue_.empty()) {
        const auto target = targets_.find(scan_queue_.back());
        scan_queue_.pop_back();
        if (target != targets_.end()) scan_target(target->second, now, !arming_);
        return now;
      }
      if (arming_) {
        arming_ = false;
      } else {
        ++windows_done_;
      }
      if (windows_done_ >= options_.windows_per_epoch) {
        end_section(now);
        return now;
      }
      heat_.set_window_heat(window_heat(windows_done_, options_.windows_per_epoch));
      phase_ = Phase::kWindow;
      deadline_ = now + window_;
      return deadline_;
    case Phase::kWindow:
      if (now < deadline_) return deadline_;
      for (const auto& [pid, target] : targets_)
        if (is_watched(target)) scan_queue_.push_back(pid);
      phase_ = Phase::kScan;
      return now;
    case Phase::kRound:
      if (!rounds_are_over() && now < patience_)
        return now < deadline_ ? deadline_ : std::min(patience_, now + kLookForRound);
      if (!rounds_are_over()) give_up_rounds();
      if (phase_ != Phase::kRound) return now;
      windows_done_ = options_.windows_per_epoch;
      end_section(now);
      return now;
    case Phase::kDecide:
      decide();
      return now;
    case Phase::kMove: {
      if (just_decided_) {
        // Moves get their share of time, however long watching and deciding took.
        just_decided_ = false;
        moves_end_ = std::max(next_epoch_, now + options_.epoch / 2);
        // The limit holds over the epoch: what watching took of it is saved up for the moves.
        burst_ = std::max(kShortestBurst, std::min(now - epoch_start_, options_.epoch));
      }
      if (now >= moves_end_ || moving_stopped_) {
        drop_plan();
        phase_ = Phase::kRest;
        return now;
      }
      if (demotions_.empty() && promotions_.empty()) {
        phase_ = Phase::kRest;
        return now;
      }
      const auto rate = static_cast<double>(options_.rate_limit.get());
      const auto batch_bytes = static_cast<double>(bytes_of(options_.batch).get());
      const std::chrono::duration<double> passed = now - tokens_at_;
      const std::chrono::duration<double> burst = burst_;
      tokens_ =
          std::min(tokens_ + rate * passed.count(), std::max(rate * burst.count(), batch_bytes));
      tokens_at_ = now;
      const PageCount planned = demotions_.pages() + promotions_.pages();
      const double need = std::min(batch_bytes, static_cast<double>(bytes_of(planned).get()));
      if (tokens_ < need) {
        const auto wait = std::chrono::duration<double>((need - tokens_) / rate);
        return std::min(moves_end_, now + std::chrono::ceil<Nanoseconds>(wait));
      }
      const Nanoseconds cpu = parts_.system.process_cpu_time();
      if (!move_batch(now)) phase_ = Phase::kRest;
      counters_.moving_cpu += parts_.system.process_cpu_time() - cpu;
      return now;
    }
  }
  return now;
}

void Engine::begin_epoch(Nanoseconds now) {
  if (epoch_.get() > 0) end_epoch(now);
  if (next_policy_ || next_options_.mode != options_.mode) {
    unpaid_ = 0;
    next_look_ = next_again_ = epoch_;
  }
  options_ = next_options_;
  credit_ = std::min(credit_ + scaled(now - epoch_start_, options_.cpu_budget),
                     scaled(options_.cpu_burst, options_.cpu_budget));
  if (next_policy_) {
    parts_.policy = std::move(next_policy_);
    heat_.keep_touches(parts_.policy->needs_touches());
    plugin_cpu_ = Nanoseconds(0);
  }
  // Looks while it rested.
  counters_.tracking_cpu += tracking_cpu_epoch_ - charged_;
  credit_ -= tracking_cpu_epoch_ - charged_;
  looking_ = false;
  for (auto& [pid, target] : targets_) target.in_look = false;
  epoch_ = Epoch(epoch_.get() + 1);
  ++counters_.epochs;
  epoch_start_ = now;
  next_epoch_ = now + options_.epoch;
  epoch_base_ = counters_;
  epoch_base_ledger_ = ledger_.totals();
  tracking_cpu_epoch_ = charged_ = Nanoseconds(0);
  longest_scan_ = Nanoseconds(0);
  if (!options_.window_auto) window_ = options_.window;

  const Nanoseconds cpu = parts_.system.process_cpu_time();
  refresh_targets();
  if (parts_.tenants) tenants_ = parts_.tenants();
  refresh_mappings(now);
  refresh_tiers();
  for (auto& [pid, target] : targets_) {
    if (!was_told(target)) target.known = false;
    target.sections_told = 0;
    target.touched = PageCount(0);
  }
  cut_targets();
  tracking_cpu_epoch_ += parts_.system.process_cpu_time() - cpu;
  section_ = 0;
  begin_section(now);
}

bool Engine::was_told(const Target& target) {
  return target.sections_told >= std::max<std::size_t>(target.sections.size(), 1);
}

void Engine::choose_reach(Target& target) {
  target.whole = !target.known || ++target.part_epochs >= kEpochsAWhole;
  if (!target.whole) return;
  target.known = true;  // until something is lost
  target.part_epochs = 0;
}

bool Engine::may_cut() const {
  return options_.sections && parts_.tracker->scans_ranges();
}

void Engine::cut_targets() {
  cut_in_vain_ = false;
  for (auto& [pid, target] : targets_) {
    if (target.in_round) continue;  // it is late, with the sections that it has
    const Nanoseconds pass = std::exchange(target.scan_time, Nanoseconds(0)) /
                             static_cast<int>(options_.windows_per_epoch + 1);
    target.sections.clear();
    target.section = 0;
    const auto parts = static_cast<std::size_t>(pass / window_ + 1);
    if (parts < 2 || !may_cut()) continue;
    Vpn first{0};
    for (const Vpn cut : heat_.cuts(target.process.asid, std::min(parts, kMostSections))) {
      target.sections.push_back({first, cut - first});
      first = cut;
    }
    cut_in_vain_ = cut_in_vain_ || target.sections.empty() || parts > kMostSections;
    if (target.sections.empty()) continue;
    // Up to where x86 lets programs map: with five levels of tables only for those that ask.
    const bool asked = heat_.end(target.process.asid) > kEndOfFourLevels + PageCount(1);
    const Vpn end = asked ? kEndOfFiveLevels : kEndOfFourLevels;
    target.sections.push_back({first, end - first});
  }
}

bool Engine::enter_section(Target& target) {
  if (!target.attached || section_ >= std::max<std::size_t>(target.sections.size(), 1))
    return false;
  target.section = section_;
  target.pass = Pass{begin_of_section(target), true};
  return true;
}

bool Engine::is_watched(const Target& target) const {
  return target.attached && target.section == section_ &&
         section_ < std::max<std::size_t>(target.sections.size(), 1);
}

std::span<const ScanRange> Engine::ranges_of(const Target& target) {
  if (target.sections.empty()) return {};
  return std::span(target.sections).subspan(target.section, 1);
}

Vpn Engine::begin_of_section(const Target& target) {
  return target.sections.empty() ? Vpn(0) : target.sections[target.section].first;
}

void Engine::begin_section(Nanoseconds now) {
  windows_done_ = 0;
  if (rounds_ != nullptr) {
    begin_rounds(now);
    return;
  }
  arming_ = true;
  scan_queue_.clear();
  for (auto& [pid, target] : targets_)
    if (enter_section(target)) scan_queue_.push_back(pid);
  phase_ = scan_queue_.empty() ? Phase::kRest : Phase::kScan;
}

void Engine::end_section(Nanoseconds now) {
  ++section_;
  if (std::any_of(targets_.begin(), targets_.end(), [&](const auto& entry) {
        const Target& target = entry.second;
        return target.attached && !target.in_round && section_ < target.sections.size();
      })) {
    begin_section(now);
    return;
  }
  counters_.windows += windows_done_;
  phase_ = Phase::kDecide;
}

Nanoseconds Engine::keep_watch(Nanoseconds now) {
  if (lookout_.parts().empty()) return next_epoch_;
  if (now < look_due_) return std::min(look_due_, next_epoch_);
  if (!looking_) {
    // It would be over too late to be of use.
    if (next_epoch_ - now < kWindowsALook * window_) return next_epoch_;
    begin_look(now);
  } else if (rounds_ == nullptr) {
    for (const Lookout::Part& part : lookout_.parts())
      if (Target* target = find(part.asid))
        look_at(*target, part, true);
      else
        lookout_.miss();
    end_look(parts_.system.now());
  } else {
    lookout_.clear();  // the tracker has no time for it
    looking_ = false;
  }
  return looking_ ? look_due_ : now;
}

void Engine::begin_look(Nanoseconds now) {
  lookout_.begin();
  looking_ = true;
  looks_pending_ = 0;
  look_cpu_ = tracking_cpu_epoch_;
  ++counters_.looks;
  const Nanoseconds cpu = parts_.system.process_cpu_time();
  for (const Lookout::Part& part : lookout_.parts()) {
    Target* target = find(part.asid);
    if (target == nullptr || target->in_round) {
      lookout_.miss();
      continue;
    }
    if (rounds_ == nullptr) {
      look_at(*target, part, false);
      continue;
    }
    RoundRequest request;
    request.asid = part.asid;
    request.epoch = kLookEpoch;
    request.ranges = part.ranges;
    request.shared = shared_.shares(part.asid);
    request.windows = 1;
    request.window = window_;
    request.cpu_share = options_.cpu_budget;
    request.cpu_burst = scaled(options_.cpu_burst, options_.cpu_budget);
    // What is wrong with it the next epoch will find, and say.
    if (!rounds_->begin_round(request)) {
      lookout_.miss();
      continue;
    }
    target->in_look = true;
    target->look_armed = false;
    ++looks_pending_;
  }
  if (rounds_ == nullptr) {
    look_due_ = parts_.system.now() + window_;
    return;
  }
  tracking_cpu_epoch_ += parts_.system.process_cpu_time() - cpu;
  look_due_ = now + kWindowsALook * window_ + kPatientEpochs * kShortestLook;
  if (looks_pending_ == 0) end_look(now);
}

void Engine::look_at(Target& target, const Lookout::Part& part, bool count) {
  const Nanoseconds cpu = parts_.system.process_cpu_time();
  ScanRequest request;
  request.asid = part.asid;
  request.ranges = part.ranges;
  request.shared = shared_.shares(part.asid);
  request.window = window_;
  const auto stats = parts_.tracker->scan(request, [&](std::span<const std::byte> bytes) {
    RecordReader reader(bytes);
    while (const auto record = reader.next())
      if (count && record->asid == target.process.asid) lookout_.take(*record);
  });
  ++counters_.scan_calls;
  if (stats)
    counters_.scans += *stats;
  else
    lookout_.miss();
  tracking_cpu_epoch_ += parts_.system.process_cpu_time() - cpu;
}

void Engine::end_look(Nanoseconds now) {
  looking_ = false;
  const Nanoseconds cost = tracking_cpu_epoch_ - look_cpu_;
  look_due_ = now + std::max({kShortestLook, kWindowsALook * window_,
                              scaled(cost, kLookShare / options_.cpu_budget)});
  const bool can_pay = credit_ + scaled(now - epoch_start_, options_.cpu_budget) > Nanoseconds(0);
  const Lookout::Change change = lookout_.compare();
  if (change == Lookout::Change::kNone || epoch_ < next_look_ || !can_pay) return;
  ++counters_.epochs_early;
  look_closer();
  for (const Asid asid : lookout_.gone())
    if (Target* target = find(asid)) target->fade_due = true;
  next_epoch_ = now;
}

void Engine::refresh_targets() {
  auto found = parts_.targets();
  if (!found) {
    log(fmt::format("can't look for targets: {}", found.error().message));
    return;
  }
  std::set<Pid> seen;
  for (ProcessIdentity& process : *found) {
    seen.insert(process.pid);
    auto [it, is_new] = targets_.try_emplace(process.pid);
    Target& target = it->second;
    if (!is_new && target.process.start_ticks != process.start_ticks) {
      parts_.tracker->detach(target.process.asid);
      shared_.leave(target.process.asid);
      heat_.forget(target.process.asid);
      target = Target{};
    }
    if (target.attached && has_another_image(target.process, process))
      lose(target, Error{ErrorKind::kNotFound, "another image"});
    if (target.attached) {
      target.process.command = process.command;
      look_for_unseen(target, process.cpu_ticks);
      continue;
    }
    process.asid = make_asid(process.pid, process.start_ticks, target.generation);
    target.process = std::move(process);
    // The pidfd first: if the tracker then finds the start time right, both mean the same process.
    auto pidfd = parts_.system.pidfd_open(target.process.pid);
    const Status attached =
        pidfd ? parts_.tracker->attach(target.process) : tl::make_unexpected(pidfd.error());
    if (attached) {
      target.pidfd = std::move(*pidfd);
      target.attached = true;
      target.attach_failed = false;
      target.sections.clear();
      target.section = 0;
      target.scan_time = Nanoseconds(0);
      target.known = false;
      target.pass = Pass{};
      target.sequence = 0;
      target.maps_hash = 0;
      target.told_pinned = false;
      target.idle_epochs = 0;
      target.seen_ticks = target.process.cpu_ticks;
      young_until_ = Epoch(epoch_.get() + kYoungEpochs);
      log(fmt::format("following process {} ({})", target.process.pid.get(),
                      target.process.command));
    } else if (!target.attach_failed) {
      target.attach_failed = true;
      log(attached.error().message);
    }
  }
  for (auto it = targets_.begin(); it != targets_.end();) {
    if (seen.contains(it->first)) {
      ++it;
      continue;
    }
    const ProcessIdentity& process = it->second.process;
    // A scan may have noticed first, and detached.
    if (it->second.attached || it->second.generation > 0)
      log(fmt::format("process {} ({}) is gone", process.pid.get(), process.command));
    parts_.tracker->detach(process.asid);
    shared_.leave(process.asid);
    heat_.forget(process.asid);
    it = targets_.erase(it);
  }
}

void Engine::refresh_mappings(Nanoseconds now) {
  std::vector<Target*> queue;
  for (auto& [pid, target] : targets_)
    if (target.attached && (target.maps_hash == 0 || now >= target.maps_due))
      queue.push_back(&target);
  std::stable_sort(queue.begin(), queue.end(), [](const Target* a, const Target* b) {
    return std::pair(a->maps_hash != 0, a->maps_turn) < std::pair(b->maps_hash != 0, b->maps_turn);
  });
  const double share = options_.cpu_budget / kMapsShare;
  Nanoseconds cpu = parts_.system.process_cpu_time();
  const Nanoseconds stop = cpu + scaled(options_.epoch, share);
  for (Target* target : queue) {
    if (target->maps_hash != 0 && cpu > stop) break;
    read_mappings(*target);
    look_for_fork(*target);
    const Nanoseconds begun = std::exchange(cpu, parts_.system.process_cpu_time());
    target->maps_due = now + scaled(cpu - begun, 1 / share);
  }
  shared_.settle();
}

void Engine::read_mappings(Target& target) {
  target.maps_turn = ++maps_turn_;
  const Pid pid = target.process.pid;
  const auto text = parts_.system.read_file(fmt::format("/proc/{}/maps", pid.get()));
  // Who may not read it, or comes too late, keeps what is known; the tracker says why.
  if (!text || parts_.system.pidfd_exited(target.pidfd.get())) return;
  const std::uint64_t hash = std::hash<std::string>{}(*text) | 1;
  if (std::exchange(target.maps_hash, hash) == hash) return;
  const auto mappings = parse_maps(*text);
  if (!mappings) return;
  const auto ipc = parts_.system.read_link_name(fmt::format("/proc/{}/ns/ipc", pid.get()));
  shared_.set_mappings(target.process, *mappings, ipc ? std::hash<std::string>{}(*ipc) : 0);
}

void Engine::look_for_fork(const Target& target) {
  const Target* ancestor = nullptr;
  Pid pid = target.process.pid;
  for (unsigned generation = 0; generation < kMostGenerations; ++generation) {
    const auto parent = parent_of_fork(parts_.system, pid);
    const auto found = parent ? targets_.find(*parent) : targets_.end();
    if (found == targets_.end() || !found->second.attached) break;
    ancestor = &found->second;
    pid = *parent;
  }
  const Asid asid = target.process.asid;
  if (ancestor == nullptr) {
    shared_.set_forked(asid, asid, {});
    return;
  }
  const auto common = shared_.common_anonymous(ancestor->process.asid, asid);
  const auto same = still_shared(parts_.system, pid, target.process.pid, common, maps_turn_);
  if (parts_.system.pidfd_exited(target.pidfd.get()) ||
      parts_.system.pidfd_exited(ancestor->pidfd.get()))
    return;
  shared_.set_forked(asid, ancestor->process.asid, same);
}

void Engine::look_for_unseen(Target& target, std::uint64_t cpu_ticks) {
  if (std::exchange(target.accessed, false)) {
    target.idle_epochs = 0;
    target.seen_ticks = cpu_ticks;
    target.unseen = false;
    return;
  }
  ++target.idle_epochs;
  if (target.unseen || target.idle_epochs < kUnseenEpochs ||
      cpu_ticks < target.seen_ticks + kUnseenTicks)
    return;
  target.unseen = true;
  log(fmt::format(
      "process {} ({}) uses CPU, but for {} epochs none of its pages was seen accessed: its memory "
      "may be that of a KVM guest, hugetlbfs or a device, or its translations stay cached (which "
      "tracker.flush = true rules out)",
      target.process.pid.get(), target.process.command, target.idle_epochs));
}

void Engine::refresh_tiers() {
  auto tiers = parts_.tiers();
  if (!tiers) {
    log(fmt::format("can't read the tiers: {}", tiers.error().message));
    return;
  }
  tiers_ = std::move(*tiers);
  std::vector<TierId> tier_of_node;
  for (const TierState& tier : tiers_) {
    for (const NodeState& node : tier.nodes) {
      const auto index = static_cast<std::size_t>(node.id.get());
      if (tier_of_node.size() <= index) tier_of_node.resize(index + 1, kNoTier);
      tier_of_node[index] = tier.id;
    }
  }
  heat_.set_node_tiers(tier_of_node);
}

void Engine::scan_target(Target& target, Nanoseconds now, bool count) {
  const Nanoseconds cpu = parts_.system.process_cpu_time();
  ScanRequest request;
  request.asid = target.process.asid;
  request.shared = shared_.shares(request.asid);
  request.ranges = ranges_of(target);
  request.clear = true;
  request.epoch = epoch_;
  if (target.last_clear.count() > 0) request.window = now - target.last_clear;
  target.last_clear = now;

  target.pass = Pass{begin_of_section(target), true};
  const Result<ScanStats> stats = parts_.tracker->scan(
      request,
      [&](std::span<const std::byte> bytes) { take_records(target, bytes, count, false); });
  ++counters_.scan_calls;
  if (stats) {
    counters_.scans += *stats;
    longest_scan_ = std::max(longest_scan_, stats->elapsed);
    target.scan_time += stats->elapsed;
    end_pass(target, true);
  } else {
    lose(target, stats.error());
  }
  tracking_cpu_epoch_ += parts_.system.process_cpu_time() - cpu;
}

void Engine::take_records(Target& target, std::span<const std::byte> bytes, bool count,
                          bool numbered) {
  // Looks are not told: they see a few pages, and a trace of them would take the others for gone.
  // The records of a pass come by themselves, so the first tells.
  // Neither are sections: whoever asks for whole passes gets them from the next epoch on.
  if (parts_.hooks.on_records && target.sections.empty()) {
    const auto first = RecordReader(bytes).next();
    if (!first || first->epoch != kLookEpoch) parts_.hooks.on_records(bytes);
  }
  Pass& pass = target.pass;
  RecordReader reader(bytes);
  while (const auto record = reader.next()) {
    if (record->asid == target.process.asid && record->epoch == kLookEpoch) {
      target.sequence = record->sequence + 1;
      if (target.in_look && target.look_armed) lookout_.take(*record);
      continue;
    }
    if (record->asid != target.process.asid || record->first < pass.cursor) {
      pass.intact = false;
      ++counters_.corrupt_records;
      continue;
    }
    const bool gap = numbered && target.sequence != 0 && record->sequence != target.sequence;
    target.sequence = record->sequence + 1;
    pass.intact = pass.intact && !gap;
    // Records come in address order; what lies between them is not mapped (any more).
    if (record->first > pass.cursor && !gap)
      shared_.clear_range(record->asid, pass.cursor, record->first - pass.cursor);
    pass.cursor = record->first + record->pages();
    const bool counts = count && (!numbered || record->epoch == target.round);
    const auto window =
        counts ? std::optional(numbered ? target.passes - 1 : static_cast<unsigned>(windows_done_))
               : std::nullopt;
    const auto [stats, touched] = shared_.apply(*record, window);
    target.accessed = target.accessed || touched;
    if (!counts) continue;
    counters_.present_page_windows += stats.pages;
    counters_.accessed_page_windows += stats.accessed;
    target.touched += stats.accessed;
    counters_.accessed_page_windows_fast += stats.accessed_fast;
  }
  if (reader.error()) {
    pass.intact = false;
    ++counters_.corrupt_records;
  }
}

void Engine::end_pass(Target& target, bool whole) {
  const Vpn end = target.section + 1 < target.sections.size()
                      ? target.sections[target.section + 1].first
                      : Vpn(std::uint64_t{1} << (57 - kPageShift));
  // A program that touches nothing now is asleep: its hot set need not have moved.
  if (target.fade_due && target.touched >= kAwake) {
    target.fade_due = false;
    heat_.fade(target.process.asid);
    feedback_.changed = true;
  }
  const Vpn cursor = target.pass.cursor;
  if (whole && target.pass.intact) {
    if (target.sections_told == target.section) ++target.sections_told;
    if (cursor < end) shared_.clear_range(target.process.asid, cursor, end - cursor);
  } else {
    target.known = false;
  }
  target.pass = Pass{begin_of_section(target), true};
}

void Engine::lose(Target& target, const Error& why) {
  if (why.kind != ErrorKind::kNotFound) {
    ++counters_.scan_errors;
    log(why.message);
  }
  parts_.tracker->detach(target.process.asid);
  shared_.leave(target.process.asid);
  heat_.forget(target.process.asid);
  target.attached = false;
  target.in_round = false;
  ++target.generation;
}

void Engine::begin_rounds(Nanoseconds now) {
  const Nanoseconds cpu = parts_.system.process_cpu_time();
  RoundRequest request;
  request.epoch = epoch_;
  request.windows = options_.windows_per_epoch;
  request.window = window_;
  // Each target has a thread of its own; together they have the budget.
  const auto attached = std::count_if(targets_.begin(), targets_.end(),
                                      [](const auto& entry) { return entry.second.attached; });
  request.cpu_share =
      options_.cpu_budget / static_cast<double>(std::max<std::ptrdiff_t>(attached, 1));
  request.cpu_burst = scaled(options_.cpu_burst, request.cpu_share);
  if (section_ > 0) {
    // The epoch pays for all its sections, by its length: none waits for the one before.
    request.cpu_share = 1;
    request.cpu_burst = options_.cpu_burst;
  }
  for (auto& [pid, target] : targets_) {
    // One that is late goes on with its section, even when it is asked for anew.
    if (target.in_round ? section_ > 0 || target.late < kMostLate : !enter_section(target))
      continue;
    // With the first section only: the others look as far as it does.
    if (section_ == 0) choose_reach(target);
    request.asid = target.process.asid;
    request.ranges = ranges_of(target);
    request.shared = shared_.shares(request.asid);
    request.whole = target.whole;
    target.passes = 0;
    target.in_round = true;
    target.round = epoch_;
    target.late = 0;
    if (const Status begun = rounds_->begin_round(request); !begun) lose(target, begun.error());
  }
  tracking_cpu_epoch_ += parts_.system.process_cpu_time() - cpu;
  phase_ = section_ == 0 && rounds_are_over() ? Phase::kRest : Phase::kRound;
  deadline_ = now + window_ * (options_.windows_per_epoch + 1);
  patience_ = deadline_ + kPatientEpochs * options_.epoch;
}

void Engine::give_up_rounds() {
  bool any = section_ > 0;
  for (auto& [pid, target] : targets_) {
    if (!target.in_round) {
      any = any || target.attached;
      continue;
    }
    if (target.late++ == 0)
      log(fmt::format("process {} ({}): its windows take too long, the epoch goes on without",
                      pid.get(), target.process.command));
  }
  if (any) return;
  // Nothing was seen: heat that aged now would take unknown pages for cold ones.
  counters_.tracking_cpu += tracking_cpu_epoch_;
  credit_ -= tracking_cpu_epoch_;
  charged_ = tracking_cpu_epoch_;
  next_epoch_ = epoch_start_;
  phase_ = Phase::kRest;
}

bool Engine::rounds_are_over() const {
  // One that was late in a section is not waited for in the others.
  return std::none_of(targets_.begin(), targets_.end(), [this](const auto& entry) {
    return entry.second.in_round && (section_ == 0 || entry.second.late == 0);
  });
}

void Engine::drain(Nanoseconds now) {
  drained_at_ = now;
  const Nanoseconds cpu = parts_.system.process_cpu_time();
  rounds_->drain(*this);
  for (const auto& [asid, why] : gone_)
    if (Target* target = find(asid)) lose(*target, why);
  gone_.clear();
  tracking_cpu_epoch_ += parts_.system.process_cpu_time() - cpu;
}

Engine::Target* Engine::find(Asid asid) {
  for (auto& [pid, target] : targets_)
    if (target.attached && target.process.asid == asid) return &target;
  return nullptr;
}

void Engine::on_records(Asid asid, std::span<const std::byte> records) {
  Target* target = find(asid);
  if (target == nullptr) return;
  if (target->in_round)
    patience_ = std::max(patience_, drained_at_ + kPatientEpochs * options_.epoch);
  // The first pass opens the first window.
  const bool count = target->in_round && target->passes > 0;
  if (count) heat_.set_window_heat(window_heat(target->passes - 1, options_.windows_per_epoch));
  take_records(*target, records, count, true);
}

void Engine::on_pass(Asid asid, const RoundPass& pass) {
  Target* target = find(asid);
  if (target == nullptr) return;
  if (pass.epoch == kLookEpoch) {
    on_look(*target, pass);
    return;
  }
  end_pass(*target, pass.lost_records == 0);
  ++counters_.scan_calls;
  counters_.scans += pass.stats;
  counters_.lost_records += pass.lost_records;
  tracking_cpu_epoch_ += pass.cpu;
  counters_.source_cpu += pass.cpu;
  longest_scan_ = std::max(longest_scan_, pass.stats.elapsed);
  if (pass.epoch != target->round) return;
  target->scan_time += pass.stats.elapsed;
  target->passes = pass.pass + 1;
  if (pass.pass < pass.windows) return;
  target->in_round = false;
  target->late = 0;
}

void Engine::on_look(Target& target, const RoundPass& pass) {
  ++counters_.scan_calls;
  counters_.scans += pass.stats;
  tracking_cpu_epoch_ += pass.cpu;
  counters_.source_cpu += pass.cpu;
  if (!target.in_look) return;
  target.look_armed = true;
  if (pass.pass < pass.windows) return;
  target.in_look = false;
  if (--looks_pending_ == 0) end_look(drained_at_);
}

void Engine::on_gone(Asid asid, const Error& why) {
  gone_.emplace_back(asid, why);
}

PageCount Engine::room(const NodeState& node, std::size_t nodes, PageCount lent) const {
  // Pages on per-CPU lists count as free, but the kernel hands out nothing, not even those, when
  // what its watermarks see is down to the floor.
  const PageCount headroom((options_.headroom.minus_floor(lent).get() + nodes - 1) / nodes);
  return std::min(node.free.minus_floor(node.floor),
                  (node.free + node.cpu_lists).minus_floor(node.reserve + headroom));
}

PageCount Engine::room(const TierState& tier) const {
  return sum(tier, [&](const NodeState& node) { return room(node, tier.nodes.size()); });
}

Engine::NodeRoom Engine::roomiest_node(TierId tier, PageCount lent) const {
  NodeRoom best;
  for (const TierState& state : tiers_) {
    if (state.id != tier) continue;
    for (const NodeState& node : state.nodes) {
      const PageCount pages = room(node, state.nodes.size(), lent);
      if (best.node.get() < 0 || pages > best.pages) best = {node.id, pages};
    }
  }
  return best;
}

void Engine::decide() {
  const Nanoseconds cpu = parts_.system.process_cpu_time();
  refresh_tiers();
  const bool complete = std::all_of(targets_.begin(), targets_.end(), [](const auto& entry) {
    const Target& target = entry.second;
    return !target.attached || was_told(target);
  });
  counters_.present_page_windows += PageCount(shared_.end_epoch(complete).get() * windows_done_);
  const Occupancy occupancy = heat_.occupancy();
  std::vector<TierView> views;
  for (const TierState& state : tiers_) {
    TierView view;
    view.id = state.id;
    view.used = occupancy.per_tier[state.id.get()];
    view.free = room(state);
    view.capacity = view.used + view.free;
    // Below its reserve a tier must give pages back: capacity is then less than what is used.
    const PageCount kept =
        sum(state, [](const NodeState& node) { return node.reserve; }) + options_.headroom;
    const PageCount missing = kept.minus_floor(
        sum(state, [](const NodeState& node) { return node.free + node.cpu_lists; }));
    view.capacity = view.capacity.minus_floor(missing);
    view.latency_ns = state.latency_ns;
    view.bandwidth_mbps = state.bandwidth_mbps;
    view.loaded_latency_ns = state.loaded_latency_ns;
    views.push_back(view);
  }

  allow_for_pinned(views);

  feedback_.windows = windows_done_;
  feedback_.window = window_;
  feedback_.epoch = last_epoch_duration_;
  learn_page_move();
  feedback_.accessed_page_windows =
      counters_.accessed_page_windows - epoch_base_.accessed_page_windows;
  feedback_.accessed_page_windows_fast =
      counters_.accessed_page_windows_fast - epoch_base_.accessed_page_windows_fast;
  feedback_.present_page_windows =
      counters_.present_page_windows - epoch_base_.present_page_windows;

  Plan plan;
  keep_resting();
  if (!views.empty()) {
    threshold_ = heat_.age_and_select(views.front().capacity);
    View view{epoch_, heat_, views, threshold_, feedback_, Budget{}};
    const std::chrono::duration<double> epoch_seconds = options_.epoch;
    view.budget.moves = thermocline::pages_of(Bytes(static_cast<std::uint64_t>(
        static_cast<double>(options_.rate_limit.get()) * epoch_seconds.count())));
    std::vector<Move> kept_fast = hold_ranges(view);
    const Nanoseconds before = parts_.system.process_cpu_time();
    plan = parts_.policy->decide(view);
    feedback_.changed = false;
    for (auto& [pid, target] : targets_) target.fade_due = false;
    counters_.deciding_cpu += parts_.system.process_cpu_time() - before;
    // A plug-in's process is not this one.
    if (const auto plugin = parts_.policy->plugin_health()) {
      const Nanoseconds used = std::max(plugin->cpu - plugin_cpu_, Nanoseconds(0));
      counters_.deciding_cpu += used;
      tracking_cpu_epoch_ += used;
      plugin_cpu_ = plugin->cpu;
    }
    overrule(view, std::move(kept_fast), plan);
  }
  if (options_.mode == EngineMode::kObserve) plan.interleave = {};
  if (parts_.hooks.on_interleave && plan.interleave.tier_weights != interleave_.tier_weights) {
    interleave_ = plan.interleave;
    parts_.hooks.on_interleave(interleave_);
  }

  if (options_.window_auto) {
    const auto eighths = std::clamp(plan.advice.window_eighths, 1u, 64u);
    const Nanoseconds longest = options_.epoch / (options_.windows_per_epoch + 1);
    // A window is at least as long as a pass, so where passes can't be cut it lasts as long as one.
    window_ = std::clamp(
        window_ * eighths / 8,
        may_cut() && !cut_in_vain_ ? kShortestWindow : std::max(kShortestWindow, longest_scan_),
        std::max({longest, kShortestWindow, longest_scan_}));
  }
  tracking_cpu_epoch_ += parts_.system.process_cpu_time() - cpu;
  counters_.tracking_cpu += tracking_cpu_epoch_;
  queue_plan(std::move(plan));
  pace();
  tokens_at_ = std::max(tokens_at_, epoch_start_);
  phase_ = Phase::kMove;
  just_decided_ = true;
}

std::vector<Move> Engine::hold_ranges(const View& view) {
  std::vector<Move> kept_fast;
  // The other half of the budget is for what makes room.
  std::uint64_t budget = view.budget.moves.get() / 2;
  const TierId fast = view.tiers.front().id;
  for (const TenantMembers& tenant : tenants_) {
    for (const Pid pid : tenant.members) {
      const auto target = targets_.find(pid);
      if (target == targets_.end() || !target->second.attached) continue;
      const std::set<Asid> space{target->second.process.asid};
      const auto hold = [&](const PageRange& range, TierId tier) {
        std::vector<Vpn> pages;
        heat_.for_each(tier, {TouchSet(), &space, range.first, range.end},
                       [&](const PageRef& page) {
                         pages.push_back(page.vpn);
                         return true;
                       });
        for (const Vpn page : pages) heat_.rest(*space.begin(), page, 3);
      };
      for (const PageRange& range : tenant.never_move)
        for (const TierView& tier : view.tiers) hold(range, tier.id);
      for (const PageRange& range : tenant.keep_fast) {
        hold(range, fast);
        for (const TierView& tier : view.tiers.subspan(1))
          heat_.for_each(
              tier.id, {TouchSet(), &space, range.first, range.end}, [&](const PageRef& page) {
                if (page.order.pages().get() > budget) return false;
                budget -= page.order.pages().get();
                kept_fast.push_back(
                    {page.asid, page.vpn, page.order, page.tier, fast, page.heat, kEngineRule});
                return true;
              });
      }
    }
  }
  return kept_fast;
}

void Engine::overrule(const View& view, std::vector<Move> kept_fast, Plan& plan) {
  if (!kept_fast.empty()) {
    std::set<std::pair<Asid, Vpn>> kept;
    for (const Move& move : kept_fast) kept.emplace(move.asid, move.vpn);
    for (auto* moves : {&plan.demotions, &plan.promotions, &plan.spares})
      std::erase_if(*moves, [&](const Move& m) { return kept.contains({m.asid, m.vpn}); });
    plan.promotions.insert(plan.promotions.begin(), kept_fast.begin(), kept_fast.end());
    PageCount in;
    for (const Move& move : kept_fast) in += move.order.pages();
    demote_coldest(view, in.minus_floor(view.tiers.front().free), plan);
  }
  tenant_status_.clear();
  std::vector<Tenant> tenants;
  for (const TenantMembers& members : tenants_) {
    if (!members.shares) continue;
    Tenant& tenant = tenants.emplace_back(Tenant{members.limits, {}});
    for (const Pid pid : members.members) {
      const auto target = targets_.find(pid);
      if (target != targets_.end() && target->second.attached)
        tenant.spaces.insert(target->second.process.asid);
    }
  }
  if (!tenants.empty()) tenant_status_ = enforce_shares(view, tenants, plan);
  if (options_.oom_headroom > PageCount(0)) {
    const TierState& fast = tiers_.front();
    const PageCount kept =
        sum(fast, [](const NodeState& node) { return node.reserve; }) + options_.oom_headroom;
    const PageCount missing = kept.minus_floor(
        sum(fast, [](const NodeState& node) { return node.free + node.cpu_lists; }));
    if (missing > PageCount(0)) make_headroom(view, missing, plan);
  }
}

void Engine::learn_page_move() {
  constexpr std::int64_t kMemory = 8;     // decisions after which something was tried
  constexpr std::int64_t kEnough = 1024;  // a first batch, or one that was held up, tells little
  const PageCount tried = ledger_.totals().promotions.tried + ledger_.totals().demotions.tried;
  if (tried == page_moves_known_) return;
  const auto pages = static_cast<std::int64_t>((tried - page_moves_known_).get());
  page_moves_ += (pages * 1024 - page_moves_) / kMemory;
  page_moves_cpu_ +=
      (1024 * (counters_.moving_cpu - moving_cpu_known_) - page_moves_cpu_) / kMemory;
  page_moves_known_ = tried;
  moving_cpu_known_ = counters_.moving_cpu;
  if (tried.get() >= kEnough)
    feedback_.page_move = page_moves_cpu_ / std::max<std::int64_t>(page_moves_, 1);
}

void Engine::look_closer() {
  young_until_ = Epoch(epoch_.get() + 1 + kYoungEpochs);
  next_look_ = young_until_;
  if (unpaid_ >= kFruitless)
    next_look_ = Epoch(next_look_.get() + (kYoungEpochs << (unpaid_ - kFruitless)));
  unpaid_ = std::min(unpaid_ + 1, kFruitless + kMostDoublings);
  hope_ = kNoHope;
}

void Engine::pace() {
  Nanoseconds length = options_.epoch;
  const PageCount planned = demotions_.pages() + promotions_.pages();
  const PageCount fast =
      tiers_.empty() ? PageCount(0) : heat_.occupancy().per_tier[tiers_.front().id.get()];
  const std::uint64_t accessed = feedback_.accessed_page_windows.get();
  const std::uint64_t served = feedback_.accessed_page_windows_fast.get();
  // The hot set seems to have moved. Heat needs a second look to tell the new one from the old.
  const bool look_again = epoch_ >= std::max({next_look_, young_until_, next_again_}) &&
                          accessed_before_ * kFewAccesses > accessed &&
                          served * accessed_before_ * 4 < served_before_ * accessed * 3;
  accessed_before_ = accessed;
  served_before_ = served;
  const bool calm = planned.get() * kCalmShare <= fast.get();
  if (look_again && calm) {
    look_closer();
    next_again_ = Epoch(epoch_.get() + kLookAgainAfter);
  }
  // What looking closer has found was worth it: the next change may be believed soon.
  if (hope_ != kNoHope && served * hope_.second * 16 > hope_.first * accessed * 17) {
    unpaid_ = 0;
    next_look_ = young_until_;
    hope_ = kNoHope;
  }
  if (planned > PageCount(0) && epoch_ < young_until_ && hope_ == kNoHope)
    hope_ = {served, accessed};
  if (!calm) {
    calm_epochs_ = 0;
  } else if (epoch_ < young_until_) {
    calm_epochs_ = 0;
    length = Nanoseconds(0);
  } else {
    ++counters_.epochs_calm;
    calm_epochs_ = std::min(calm_epochs_ + 1, kMostCalm);
    const Nanoseconds rest = scaled(tracking_cpu_epoch_, kCalmBudget / options_.cpu_budget);
    length = std::max(length, std::min(options_.epoch * (1 << calm_epochs_), rest));
  }
  credit_ -= tracking_cpu_epoch_;
  charged_ = tracking_cpu_epoch_;
  const Nanoseconds owed = scaled(-credit_, 1 / options_.cpu_budget);
  if (owed > length) {
    length = owed;
    ++counters_.epochs_stretched;
  }
  next_epoch_ = epoch_start_ + length;
  lookout_.clear();
  look_due_ = epoch_start_;
  if (length > Nanoseconds(0) && !tiers_.empty() && parts_.tracker->scans_ranges())
    lookout_.choose(heat_, tier_to_watch(), window_);
}

TierId Engine::tier_to_watch() const {
  if (options_.mode == EngineMode::kManage) return tiers_.front().id;
  // Where nothing is moved, hot pages stay where they were put.
  const Occupancy occupancy = heat_.occupancy();
  return std::max_element(tiers_.begin(), tiers_.end(),
                          [&](const TierState& a, const TierState& b) {
                            return occupancy.per_tier[a.id.get()] < occupancy.per_tier[b.id.get()];
                          })
      ->id;
}

void Engine::queue_plan(Plan plan) {
  demotions_.clear();
  promotions_.clear();
  spares_.clear();
  if (options_.mode == EngineMode::kObserve || moving_stopped_) return;
  std::array<bool, kMaxTiers> has_node{};
  for (const TierState& tier : tiers_) has_node[tier.id.get()] = !tier.nodes.empty();
  // A policy may be anybody's: only pages that are where it thinks, and free to move, are moved.
  const auto admit = [&](const std::vector<Move>& moves, MoveQueue& queue, bool slower) {
    for (const Move& move : moves) {
      if (slower ? move.to <= move.from : move.to >= move.from) continue;
      if (move.to.get() >= kMaxTiers || !has_node[move.to.get()]) continue;
      const auto page = heat_.look_up(move.asid, move.vpn);
      if (page && page->second.movable() && page->second.tier() == move.from) queue.push(move);
    }
  };
  admit(plan.demotions, demotions_, true);
  admit(plan.promotions, promotions_, false);
  admit(plan.spares, spares_, true);
}

void Engine::drop_plan() {
  ledger_.abandon(demotions_.pages() + promotions_.pages());
  demotions_.clear();
  promotions_.clear();
  spares_.clear();
}

bool Engine::move_batch(Nanoseconds now) {
  refresh_tiers();
  const bool can_make_room = !demotions_.empty() || !spares_.empty();
  if (!promotions_.empty()) {
    const NodeRoom where = roomiest_node(promotions_.front().to);
    const PageCount first = promotions_.front().order.pages();
    const PageCount wanted = std::max(std::min(options_.batch, promotions_.pages()), first);
    if (where.pages >= wanted || (!can_make_room && where.pages >= first)) {
      run_moves(promotions_, where, Direction::kPromotion, now);
      return true;
    }
    if (!can_make_room) {
      drop_plan();
      return false;
    }
  }
  MoveQueue& queue = demotions_.empty() ? spares_ : demotions_;
  NodeRoom where = roomiest_node(queue.front().to);
  const auto fits = [&] { return where.pages >= queue.front().order.pages(); };
  // What leaves the slower tier for a still slower one makes room there.
  for (std::size_t t = 1; t < tiers_.size() && !fits(); ++t) {
    if (!queue.bring_forward(queue.front().to)) break;
    where = roomiest_node(queue.front().to);
  }
  // A tier between two others may be full of pages of which some are about to leave for the faster
  // one: a batch passes them through its headroom.
  if (!fits() && !promotions_.empty() && promotions_.front().from == queue.front().to &&
      queue.front().to != tiers_.back().id)
    where =
        roomiest_node(queue.front().to,
                      std::min(options_.batch,
                               std::max(PageCount(options_.headroom.get() / 2),
                                        std::min(queue.front().order.pages(), options_.headroom))));
  if (!fits()) {
    // No room on the slower tier either. Promotions and moves between others may still find some.
    const TierId full = queue.front().to;
    ledger_.abandon(demotions_.drop(full));
    spares_.drop(full);
    return !promotions_.empty() || !demotions_.empty();
  }
  run_moves(queue, where, Direction::kDemotion, now);
  return true;
}

void Engine::run_moves(MoveQueue& queue, const NodeRoom& where, Direction direction,
                       Nanoseconds now) {
  batch_.clear();
  batch_moves_.clear();
  queue.take(std::min(where.pages, options_.batch), batch_moves_);
  for (const Move& move : batch_moves_)
    batch_.push_back(
        {move.asid, move.vpn, move.order, where.node, shared_.owners(move.asid, move.vpn)});
  // The kernel's cost of a batch is lower when neighbours come together.
  std::sort(batch_.begin(), batch_.end(),
            [](const PageMove& a, const PageMove& b) { return a.vpn < b.vpn; });
  std::sort(batch_moves_.begin(), batch_moves_.end(),
            [](const Move& a, const Move& b) { return a.vpn < b.vpn; });
  outcomes_.assign(batch_.size(), MoveOutcome::kRefused);

  const Nanoseconds begun = parts_.system.now();
  parts_.mover->execute(batch_, outcomes_);
  counters_.longest_batch = std::max(counters_.longest_batch, parts_.system.now() - begun);

  PageCount tried;
  for (std::size_t i = 0; i < batch_moves_.size(); ++i) {
    const Move& move = batch_moves_[i];
    ledger_.record(move, direction, epoch_, outcomes_[i]);
    tried += move.order.pages();
    switch (outcomes_[i]) {
      case MoveOutcome::kMoved:
        heat_.moved(move.asid, move.vpn, move.to, direction == Direction::kPromotion,
                    options_.cooldown);
        if (!resting_.empty()) resting_.erase({move.asid, move.vpn});
        break;
      case MoveOutcome::kDenied:
      case MoveOutcome::kBusy:
        rest(move, outcomes_[i] == MoveOutcome::kBusy);
        break;
      case MoveOutcome::kRefused:
        heat_.mark_stuck(move.asid, move.vpn);
        break;
      case MoveOutcome::kGone:
        // Some process may have it all the same; whichever that is, it was not found now.
        if (batch_[i].owners == Owners::kAll) rest(move, false);
        break;  // of others the next scan shows what is there
      case MoveOutcome::kNoMemory:
        break;  // the policy may ask again
    }
  }
  // A move that fails costs the kernel nearly as much as one that doesn't.
  tokens_ -= static_cast<double>(bytes_of(tried).get());
  tokens_at_ = std::max(tokens_at_, now);
}

void Engine::rest(const Move& move, bool busy) {
  const std::pair<Asid, Vpn> page{move.asid, move.vpn};
  heat_.rest(move.asid, move.vpn, 3);
  auto it = resting_.find(page);
  if (it == resting_.end()) {
    if (resting_.size() >= kMostResting) return;
    it = resting_.emplace(page, Resting{}).first;
  }
  it->second.epochs =
      it->second.epochs == 0 ? kFirstRest : std::min(it->second.epochs * 2, kLongestRest);
  it->second.until = Epoch(epoch_.get() + it->second.epochs);
  it->second.busy = busy ? it->second.busy + 1 : 0;
  it->second.order = move.order;
}

bool Engine::is_pinned(const Resting& resting) {
  return resting.busy >= kPinnedAfter;
}

void Engine::allow_for_pinned(std::vector<TierView>& views) {
  std::map<Asid, PageCount> pinned;
  for (const auto& [page, resting] : resting_) {
    if (!is_pinned(resting)) continue;
    pinned[page.first] += resting.order.pages();
    const auto known = heat_.look_up(page.first, page.second);
    if (!known || known->first >= threshold_.heat) continue;
    for (TierView& view : views) {
      if (view.id != known->second.tier()) continue;
      view.used = view.used.minus_floor(resting.order.pages());
      view.capacity = view.capacity.minus_floor(resting.order.pages());
    }
  }
  for (const auto& [asid, pages] : pinned) {
    Target* target = find(asid);
    if (target == nullptr || std::exchange(target->told_pinned, true)) continue;
    log(
        fmt::format("{} pages of process {} ({}) can't be moved, however often it is tried: a "
                    "device, io_uring or "
                    "RDMA holds them; they stay where they are and are tried less and less",
                    pages.get(), target->process.pid.get(), target->process.command));
  }
}

void Engine::follow_hand_over(Asid from, Vpn first, PageCount count, Asid to, Vpn to_first) {
  const auto begin = resting_.lower_bound({from, first});
  const auto end = resting_.lower_bound({from, first + count});
  std::vector<std::pair<std::pair<Asid, Vpn>, Resting>> moved;
  for (auto it = begin; it != end; ++it)
    moved.push_back({{to, to_first + (it->first.second - first)}, it->second});
  resting_.erase(begin, end);
  resting_.insert(moved.begin(), moved.end());
}

void Engine::keep_resting() {
  for (auto it = resting_.begin(); it != resting_.end();) {
    const auto& [page, resting] = *it;
    if (resting.until >= epoch_) {
      heat_.rest(page.first, page.second, 2);  // ageing takes one off
    } else if (epoch_.get() - resting.until.get() > kLongestRest) {
      it = resting_.erase(it);  // gone, or nobody wants it moved
      continue;
    }
    ++it;
  }
}

void Engine::end_epoch(Nanoseconds now) {
  const LedgerTotals& totals = ledger_.totals();
  last_epoch_duration_ = now - epoch_start_;
  feedback_.promoted = totals.promotions.applied - epoch_base_ledger_.promotions.applied;
  feedback_.demoted = totals.demotions.applied - epoch_base_ledger_.demotions.applied;
  feedback_.failed = failures(totals.promotions) + failures(totals.demotions) -
                     failures(epoch_base_ledger_.promotions) -
                     failures(epoch_base_ledger_.demotions);
  feedback_.regretted = totals.regretted - epoch_base_ledger_.regretted;
  if (!parts_.hooks.on_epoch) return;
  EpochReport report;
  report.epoch = epoch_;
  report.time = epoch_start_;
  report.duration = last_epoch_duration_;
  report.window = feedback_.window;
  report.threshold = threshold_;
  report.promoted = feedback_.promoted;
  report.demoted = feedback_.demoted;
  report.failed = feedback_.failed;
  report.accessed_page_windows =
      counters_.accessed_page_windows - epoch_base_.accessed_page_windows;
  report.accessed_page_windows_fast =
      counters_.accessed_page_windows_fast - epoch_base_.accessed_page_windows_fast;
  report.present_page_windows = counters_.present_page_windows - epoch_base_.present_page_windows;
  parts_.hooks.on_epoch(report);
}

void Engine::stop_moving() {
  moving_stopped_ = true;
  if (phase_ != Phase::kMove) return;
  drop_plan();
}

void Engine::set_options(const EngineOptions& options) {
  next_options_ = options;
  if (options.mode == EngineMode::kObserve && phase_ == Phase::kMove) drop_plan();
}

Pid Engine::pid_of(Asid asid) const {
  for (const auto& [pid, target] : targets_)
    if (target.attached && target.process.asid == asid)
      return parts_.system.pidfd_exited(target.pidfd.get()) ? Pid(0) : pid;
  return Pid(0);
}

std::vector<TargetStatus> Engine::targets() const {
  std::map<Asid, PageCount> pinned;
  for (const auto& [page, resting] : resting_)
    if (is_pinned(resting)) pinned[page.first] += resting.order.pages();
  std::vector<TargetStatus> result;
  for (const auto& [pid, target] : targets_) {
    if (!target.attached) continue;
    const Asid asid = target.process.asid;
    result.push_back({target.process, heat_.occupancy(asid), shared_.shared_pages(asid),
                      pinned[asid], std::max<std::size_t>(target.sections.size(), 1),
                      target.unseen});
  }
  return result;
}

}  // namespace thermocline

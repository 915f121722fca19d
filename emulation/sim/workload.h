// SPDX-License-Identifier: Apache-2.0
// What a modelled program accesses: for each phase of its life a class for every page, the share of
// all accesses that a page of each class gets, and sweeps that go through pages in order. The
// generators are listed in workload_kinds(). Analytic: nothing here draws single accesses.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "emulation/sim/touches.h"

namespace thermocline::sim {

/// Numbers by name, as they are set on the command line.
using Settings = std::map<std::string, double>;

/// A part of the program that reads pages in their order, over and over.
struct Sweep {
  std::uint64_t first = 0, count = 0;  ///< pages
  double weight = 0;                   ///< share of all accesses
  double lines = 64;                   ///< accesses to a page in passing
};

struct Phase {
  std::vector<std::uint8_t> classes;     ///< of each page
  std::array<double, kClasses> share{};  ///< of all accesses, that one page of a class gets
  std::vector<Sweep> sweeps;
};

/// A process of the workload and its pages, a range of them.
struct Tenant {
  std::uint64_t first = 0, pages = 0;
};

struct Workload {
  std::string kind;
  std::uint64_t pages = 0;
  std::vector<Tenant> tenants;  ///< at least one; together all pages, in order
  /// Seconds of the first phase and of each later one; 0: it goes on for ever.
  double first_phase_s = 0, later_phase_s = 0;
  /// What the phase of a number is, from 0. Of all pages and sweeps the shares add up to 1. Pure.
  std::function<void(std::uint64_t number, Phase& phase)> fill;

  /// When a phase begins, in seconds; infinity for one that never does.
  [[nodiscard]] double phase_start(std::uint64_t number) const;
};

struct WorkloadKey {
  std::string_view name, meaning;
  double usual, least, most;
  double draw_low, draw_high;  ///< where a random draw takes it from, evenly by its logarithm
  bool whole = false;
};

struct WorkloadKind {
  std::string_view name, summary;
  std::vector<WorkloadKey> keys;
  std::function<Workload(const Settings& settings, std::uint64_t pages, std::uint64_t seed)> make;
};

[[nodiscard]] const std::vector<WorkloadKind>& workload_kinds();
/// kUsage for an unknown name, with the nearest.
[[nodiscard]] Result<const WorkloadKind*> find_workload(std::string_view name);
/// "zipf:exponent=0.9,grain=8": the kind, and every one of its keys with what is set or usual.
struct WorkloadChoice {
  const WorkloadKind* kind = nullptr;
  Settings settings;
};
[[nodiscard]] Result<WorkloadChoice> parse_workload(std::string_view text);
/// Sets one key; kUsage when the kind lacks it (with the nearest) or the value is out of bounds.
[[nodiscard]] Status set_workload_key(WorkloadChoice& choice, std::string_view key, double value);
/// A number of at least `least` and at most `most`, `whole` if so; kUsage, naming `key`, otherwise.
[[nodiscard]] Result<double> parse_setting(std::string_view key, std::string_view text,
                                           double least, double most, bool whole);
[[nodiscard]] std::string to_text(const WorkloadChoice& choice);

/// A small program has at least so many pages: one block of the heat map for each tier of a pair.
inline constexpr std::uint64_t kFewestPages = 1024;
inline constexpr std::uint64_t kMostPages = std::uint64_t{1} << 30;

/// `pages` of at least kFewestPages.
[[nodiscard]] Workload make_workload(const WorkloadChoice& choice, std::uint64_t pages,
                                     std::uint64_t seed);

}  // namespace thermocline::sim

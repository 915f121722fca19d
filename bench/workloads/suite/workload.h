// SPDX-License-Identifier: Apache-2.0
// What a workload of the suite is, and the list of all of them. A workload owns its structures and
// knows how to check them; time, threads, phases and reports are the runner's (runner.h).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "bench/workloads/suite/memory.h"

namespace thermocline::workloads {

/// A number that --set may change.
struct Setting {
  std::string key;
  double value;  ///< *Default*
  double min;
  double max;
  std::string about;
};

/// What one instance of a workload is made from.
struct Instance {
  Memory& memory;
  Bytes footprint;
  std::uint64_t seed;
  std::map<std::string, double> settings;  ///< every one of the workload's, checked
  /// Of a workload with a program of its own: the file to run, empty: from PATH.
  std::string program = {};
  bool huge_pages = false;

  [[nodiscard]] double operator[](const std::string& key) const { return settings.at(key); }
};

/// A process whose memory a workload is about.
struct TieredProcess {
  std::string name;
  Pid pid;
  Bytes resident;
};

/// One instance, used by one thread at a time. Everything it does follows from the Instance and
/// from the calls of run(), so the same operations give the same checksum on every machine.
class Workload {
 public:
  virtual ~Workload() = default;
  /// Names of its phases, in order; at least one.
  [[nodiscard]] virtual std::vector<std::string> phases() const { return {"steady"}; }
  /// Writes the starting content. Called once, when all memory has been touched.
  virtual void fill() = 0;
  /// The next `count` operations, in the manner of that phase.
  virtual void run(unsigned phase, std::uint64_t count) = 0;
  /// Why it can't go on, such as the end of its program; fill() and run() then do nothing.
  [[nodiscard]] virtual Status state() const { return {}; }
  /// The process that holds its memory, as soon as it is filled; nullopt: this one.
  [[nodiscard]] virtual std::optional<TieredProcess> process() const { return std::nullopt; }
  /// Of what the operations have read and written so far.
  [[nodiscard]] virtual std::uint64_t checksum() const = 0;
  /// Fails (kFailure) unless the memory holds what `operations` operations leave there. Called
  /// once, as the last; may finish what the last operation left half done.
  [[nodiscard]] virtual Status verify(std::uint64_t operations) = 0;
};

struct WorkloadSpec {
  std::string name;
  std::string about;      ///< one line; says what an operation is
  std::string source;     ///< paper, specification or program that it follows
  unsigned sample_every;  ///< the latency of one operation of so many is taken; a power of two
  std::vector<Setting> settings;
  /// Takes its structures from `memory`, in sum within 5 % of the footprint; writes nothing yet.
  std::function<Result<std::unique_ptr<Workload>>(const Instance&)> make;
  /// Unmodified program that it drives; empty: it is all in this process.
  std::string program = {};
};

/// Least footprint of an instance.
inline constexpr Bytes kLeastFootprint{std::uint64_t{8} << 20};

/// All of them, in the order of `workload list`.
[[nodiscard]] const std::vector<WorkloadSpec>& all_workloads();
/// kUsage, with the nearest name, when there is none of that name.
[[nodiscard]] Result<const WorkloadSpec*> find_workload(const std::string& name);

}  // namespace thermocline::workloads

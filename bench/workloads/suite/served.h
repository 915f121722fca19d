// SPDX-License-Identifier: Apache-2.0
// Workloads whose memory is that of an unmodified program: records in a store that is reached
// through a channel. Here: how many records make the footprint, which one is asked for, and what
// the right answer is. How a store is spoken to is its own (key_value.cc, sqlite.cc).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "bench/workloads/suite/server.h"
#include "bench/workloads/suite/workload.h"
#include "bench/workloads/zipf.h"

namespace thermocline::workloads {

struct Request {
  enum class Kind { kRead, kReadByIndex, kWrite };
  Kind kind;
  std::uint32_t record;   ///< its number, from 0
  std::uint32_t version;  ///< that a read must find, or that a write leaves
};

/// What became of the requests.
struct Findings {
  std::uint64_t sum = 0;    ///< of contents read and written
  std::uint64_t wrong = 0;  ///< answers
  std::string first_wrong;  ///< says what and of which record

  void add_wrong(const std::string& what) {
    if (wrong++ == 0) first_wrong = what;
  }
};

class Store {
 public:
  virtual ~Store() = default;
  [[nodiscard]] virtual Server& server() = 0;
  /// Adds the records from `first` to before `end`, in version 0.
  [[nodiscard]] virtual Status load(std::uint32_t first, std::uint32_t end) = 0;
  /// Makes all requests and judges every answer. Fails when there are no more answers to be had; a
  /// wrong answer is a finding.
  [[nodiscard]] virtual Status exchange(std::span<const Request> requests, Findings& findings) = 0;
  /// Looks whether it holds just these records: of record i, version versions[i].
  [[nodiscard]] virtual Status audit(std::span<const std::uint32_t> versions,
                                     Findings& findings) = 0;
};

/// What a store's program takes, as measured with the version of Debian 12. Another version may
/// take more or less: see Served::fill().
struct StoreSize {
  Bytes base;        ///< without records
  Bytes per_record;  ///< everything that grows with them
  Bytes granule{0};  ///< by which the program's memory grows
};

class Served final : public Workload {
 public:
  /// `instance` has the settings theta, set_share and perhaps pipeline and index_share.
  [[nodiscard]] static Result<std::unique_ptr<Workload>> make(const Instance& instance,
                                                              std::unique_ptr<Store> store,
                                                              const StoreSize& size);

  /// Loads in four parts and looks at the program's memory after each. The number of records
  /// follows from `size` alone, so that it is the same in each run, unless that would miss the
  /// footprint by more than 3 %: then from what was seen.
  void fill() override;
  void run(unsigned phase, std::uint64_t count) override;
  [[nodiscard]] Status state() const override { return state_; }
  [[nodiscard]] std::optional<TieredProcess> process() const override { return process_; }
  [[nodiscard]] std::uint64_t checksum() const override;
  [[nodiscard]] Status verify(std::uint64_t operations) override;

 private:
  Served(const Instance& instance, std::unique_ptr<Store> store, const StoreSize& size);
  Status load();
  Request choose();

  std::unique_ptr<Store> store_;
  StoreSize size_;
  Bytes footprint_;
  std::uint64_t seed_;
  double theta_, set_share_, index_share_;
  std::uint64_t pipeline_;
  Random random_;
  std::optional<Zipf> zipf_;             ///< when loaded
  std::vector<std::uint32_t> versions_;  ///< of every record
  std::vector<Request> batch_;
  Findings findings_;
  Status state_;
  std::optional<TieredProcess> process_;
};

}  // namespace thermocline::workloads

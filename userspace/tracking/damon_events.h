// SPDX-License-Identifier: Apache-2.0
// What DAMON tells at the end of each aggregation: the tracepoint damon:damon_aggregated, once for
// each region, read from a ring that perf_event_open(2) maps. The kernel writes both; nothing in
// them is believed before it was looked at.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace thermocline {

/// One region of one aggregation. Pages [first, end).
struct DamonRegion {
  std::uint64_t target = 0;   ///< index among the targets of the context
  std::uint32_t regions = 0;  ///< how many regions this target has in this aggregation
  Vpn first, end;
  std::uint32_t accesses = 0;      ///< samples, of all in the aggregation, that found an access
  std::uint32_t aggregations = 0;  ///< for how many more before it that was about the same
};

/// Where the fields of an event lie, by the "format" file of its tracepoint in tracefs.
class DamonEventFormat {
 public:
  /// kCorrupt when a field is missing, of another size, or beyond 4 KiB.
  [[nodiscard]] static Result<DamonEventFormat> parse(std::string_view text);
  /// nullopt when the bytes are too few, or tell an empty region or one beyond 57 bits of
  /// addresses.
  [[nodiscard]] std::optional<DamonRegion> region(std::span<const std::byte> raw) const;

 private:
  struct Field {
    std::size_t offset = 0, size = 0;
  };
  static constexpr std::size_t kFields = 6;
  [[nodiscard]] std::uint64_t value(std::span<const std::byte> raw, std::size_t field) const;
  Field fields_[kFields];
  std::size_t bytes_ = 0;  ///< that an event has at least
};

/// Samples of the ring of a System::open_tracepoint() descriptor.
class PerfRing {
 public:
  using OnSample = std::function<void(Nanoseconds time, std::span<const std::byte> raw)>;

  /// `mapping`: one page and a power of two of more; stays longer than the ring. kCorrupt
  /// otherwise.
  [[nodiscard]] static Result<PerfRing> open(std::span<std::byte> mapping);
  /// Takes out what is there, in its order; true when samples were lost before, among or after
  /// them.
  [[nodiscard]] bool drain(const OnSample& on_sample);

 private:
  explicit PerfRing(std::span<std::byte> mapping) : mapping_(mapping) {}
  std::span<std::byte> mapping_;
  std::uint64_t taken_ = 0;
  std::vector<std::byte> copy_;
};

}  // namespace thermocline

// SPDX-License-Identifier: Apache-2.0
// The loops over heat and state bytes, in three forms: scalar (the reference), AVX2 and
// AVX-512BW. Which one runs is chosen by what the processor has; tests hold the vector forms
// against the scalar one. Called by heat_map.cc only; nothing here knows an address space.
//
// Planes are whole blocks of kBlockEntries bytes; bit i of word w of a bitmap is entry 64 * w + i.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "heat/block_bits.h"

namespace thermocline {

inline constexpr std::size_t kThresholds = 8;
using Thresholds = std::array<std::uint8_t, kThresholds>;
using ThresholdCounts = std::array<std::uint64_t, kThresholds>;

struct HeatKernels {
  std::string_view name;
  /// Age `blocks` blocks (scale.h; dither is 0..15), write each block's new maximum to `max`, and
  /// add to counts[i] the entries whose aged heat is >= thresholds[i]. Thresholds are 1..255.
  void (*age_and_count)(std::uint8_t* heat, std::size_t blocks, unsigned dither, std::uint8_t* max,
                        const Thresholds& thresholds, ThresholdCounts& counts);
  /// As above without ageing.
  void (*count)(const std::uint8_t* heat, std::size_t blocks, const Thresholds& thresholds,
                ThresholdCounts& counts);
  /// Add `increment` to the entries of one block whose bit is set, saturating at 255.
  void (*add)(std::uint8_t* heat, const BlockBits& bits, std::uint8_t increment);
  /// Bits that are set.
  unsigned (*population)(const BlockBits& bits);
  /// Bits of the entries of one block with (state & mask) == value and low <= heat <= high.
  BlockBits (*match)(const std::uint8_t* heat, const std::uint8_t* state, std::uint8_t mask,
                     std::uint8_t value, std::uint8_t low, std::uint8_t high);
};

/// The forms that this processor can run, slowest first; the first is the scalar one.
[[nodiscard]] std::span<const HeatKernels> supported_heat_kernels();
[[nodiscard]] inline const HeatKernels& best_heat_kernels() {
  return supported_heat_kernels().back();
}

}  // namespace thermocline

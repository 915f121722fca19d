// SPDX-License-Identifier: Apache-2.0
// What was published about real memory: what modelled and emulated figures are shown beside.
// Constants only.
#pragma once

#include <array>

namespace thermocline::timing {

/// Idle latency of a load, from a CPU's miss to its data.
struct PublishedLatency {
  const char* what;
  double low_ns, high_ns;
  const char* source;
};
inline constexpr std::array<PublishedLatency, 5> kPublishedLatencies = {{
    {"local DDR", 75, 110, "MEMTIS; HMAT of current servers"},
    {"remote socket", 130, 190, "AutoTiering, Pond, SoarAlto"},
    {"CXL, ASIC", 170, 300, "OCP demo of CacheLib on CXL; arXiv 2405.14209"},
    {"CXL, direct to switched", 140, 410, "Melody, ASPLOS 2025 (4 devices)"},
    {"CXL, FPGA", 200, 400, "M5: 2 to 3 times DDR; Demystifying CXL Memory, MICRO 2023"},
}};

/// A range that figures of real CXL devices lie in.
struct Published {
  double low, high;
  const char* source;
};
inline constexpr Published kCxlLatencyNs = {140, 410, "Melody, ASPLOS 2025: four devices"};
/// Idle latency over that of local DRAM on the same machine.
inline constexpr Published kCxlLatencyRatio = {
    1.8, 5, "Pond's nearer emulation point; three cards in arXiv 2405.14209"};
/// Bandwidth that saturates the device, 10^9 bytes per second.
inline constexpr Published kCxlGbPerS = {
    17.8, 64, "reads of a PCIe 5 x8 device (OCP demo of CacheLib); the link of an x16 one"};

/// Latency of a chase at half of the device's bandwidth over the idle one: random reads on a card
/// with an ASIC, 309 over 244 ns.
inline constexpr Published kCxlHalfLoadRatio = {
    1.27, 1.27, "EuroSys 2024, ASIC-Based CXL Memory (github.com/bytedance/eurosys24-artifacts)"};

}  // namespace thermocline::timing

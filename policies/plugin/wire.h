// SPDX-License-Identifier: Apache-2.0
// What goes between Thermocline and the process that a policy plug-in runs in: frames over a
// socket, each a header and a payload. Both ends are of one build, so numbers and the structs of
// policy_abi.h go as they are in memory.
//
//   plug-in's process          Thermocline
//   kHello or kRefused    ───►
//                         ◄─── kCreate
//   kReady or kRefused    ───►
//                         ◄─── kView      once an epoch
//   kPlan or kRefused     ───►
//
// Whoever reads takes the other for hostile: the decoders accept a payload as a whole or refuse it
// (kCorrupt, with what is wrong with it) and never read past its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "policies/plugin/policy_abi.h"
#include "policies/policy.h"

namespace thermocline::plugin {

enum class FrameType : std::uint32_t {
  kHello = 1,
  kRefused,
  kCreate,
  kReady,
  kView,
  kPlan,
};

struct FrameHeader {
  static constexpr std::uint32_t kMagic = 0x4c504354;  // "TCPL"
  std::uint32_t magic = kMagic;
  FrameType type{};
  std::uint64_t length = 0;  ///< bytes of payload
};

/// Pages in one list of a view, at most: 1 GiB, so that a page of that size is in it.
inline constexpr PageCount kMostListed{1u << 18};
/// Payloads of Thermocline's: the lists of seven tiers.
inline constexpr std::uint64_t kMostView = std::uint64_t{128} << 20;
/// What a plug-in tells about itself, and why it refuses.
inline constexpr std::uint64_t kMostText = 64u << 10;

/// kCorrupt for another magic, a type that isn't there or more than `most` bytes.
[[nodiscard]] Status check_header(const FrameHeader& header, std::uint64_t most);

/// What a plug-in tells about itself.
struct Hello {
  std::uint32_t needs = 0;
  std::string name, summary, source;
  std::vector<std::string> rules;
  std::vector<PolicyOptionHelp> options;
};
[[nodiscard]] std::vector<std::byte> encode(const Hello& hello);
/// Texts come out printable, within the bounds of policy_abi.h.
[[nodiscard]] Result<Hello> decode_hello(std::span<const std::byte> bytes);

struct Create {
  std::uint64_t seed = 0;
  std::vector<std::string> values;  ///< of the options, in their order
};
[[nodiscard]] std::vector<std::byte> encode(const Create& create);
[[nodiscard]] Result<Create> decode_create(std::span<const std::byte> bytes);

/// Why something is refused: printable, at most as long as a text of the interface.
[[nodiscard]] std::vector<std::byte> encode_text(const std::string& text);
[[nodiscard]] std::string decode_text(std::span<const std::byte> bytes);

/// A view as a plug-in is shown it. Owns what `view` points to, so it can't be copied.
struct ShownView {
  thermocline_view view{};
  std::vector<thermocline_tier> tiers;
  std::vector<thermocline_page> pages;  ///< by id

  ShownView() = default;
  ShownView(ShownView&&) = default;
  ShownView& operator=(ShownView&&) = default;
};
/// What policy_abi.h promises, of `view`.
[[nodiscard]] ShownView show(const View& view);
[[nodiscard]] std::vector<std::byte> encode(const ShownView& shown);
[[nodiscard]] Result<ShownView> decode_view(std::span<const std::byte> bytes);

struct PlanReply {
  std::uint64_t window_eighths = 0;
  std::vector<thermocline_move> moves;
};
[[nodiscard]] std::vector<std::byte> encode(const PlanReply& reply);
/// At most `most_moves` of them; what they name is checked by to_plan().
[[nodiscard]] Result<PlanReply> decode_plan(std::span<const std::byte> bytes,
                                            std::size_t most_moves);

/// The plan that a plug-in wants, checked against what it was shown: kCorrupt, with the first move
/// that breaks a rule of thermocline_plan. What tiers have no room for is left out, from the end.
/// `rules`: how many the plug-in has.
[[nodiscard]] Result<Plan> to_plan(const View& view, const ShownView& shown, const PlanReply& reply,
                                   std::size_t rules);

}  // namespace thermocline::plugin

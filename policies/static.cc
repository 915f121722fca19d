// SPDX-License-Identifier: Apache-2.0
// Policy `static`: never moves a page. The baseline of every comparison: first touch decides where
// a page lives, as on an untiered kernel, at the cost of tracking.
#include "policies/builtin.h"
#include "policies/options.h"

namespace thermocline {

namespace {

struct StaticOptions {};

class StaticPolicy final : public Policy {
 public:
  StaticPolicy(const StaticOptions&, std::uint64_t) {}
  [[nodiscard]] std::string_view name() const override { return "static"; }
  [[nodiscard]] std::span<const std::string_view> rules() const override { return {}; }
  [[nodiscard]] Plan decide(const View&) override { return {}; }
};

std::vector<NumberOption> known(StaticOptions&) {
  return {};
}

}  // namespace

PolicyFactory static_policy() {
  return policy_with_options<StaticPolicy>(
      {"static", "never moves a page: first touch decides", "baseline"}, known);
}

}  // namespace thermocline

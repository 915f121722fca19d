// SPDX-License-Identifier: Apache-2.0
// Policy `static`: never moves a page. The baseline of every comparison: first touch decides where
// a page lives, as on an untiered kernel, at the cost of tracking.
#include "policies/builtin.h"

namespace thermocline {

namespace {

class StaticPolicy final : public Policy {
 public:
  [[nodiscard]] std::string_view name() const override { return "static"; }
  [[nodiscard]] std::span<const std::string_view> rules() const override { return {}; }
  [[nodiscard]] Plan decide(const View&) override { return {}; }
};

}  // namespace

PolicyFactory static_policy() {
  PolicyFactory factory;
  factory.name = "static";
  factory.summary = "never moves a page: first touch decides";
  factory.source = "baseline";
  factory.make = [](std::span<const PolicyOption> options,
                    std::uint64_t) -> Result<std::unique_ptr<Policy>> {
    if (!options.empty())
      return fail(ErrorKind::kUsage, "policy static has no option \"{}\"; it has none",
                  options.front().key);
    return std::make_unique<StaticPolicy>();
  };
  return factory;
}

}  // namespace thermocline

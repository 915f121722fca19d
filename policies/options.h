// SPDX-License-Identifier: Apache-2.0
// Options of the built-in policies: whole numbers, each with a range, checked and told of in one
// place.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "policies/policy.h"

namespace thermocline {

/// One option of a policy and where its value goes. `*value` is the default until it is read.
struct NumberOption {
  std::string key, meaning;
  unsigned* value;
  unsigned low, high;
};

/// kUsage, naming the policy, the option and what it may be, for an unknown key or a value that is
/// no number from low to high.
[[nodiscard]] Status read_options(const std::string& policy, std::span<const PolicyOption> options,
                                  std::span<const NumberOption> known);

/// What people are told of options that hold their defaults.
[[nodiscard]] std::vector<PolicyOptionHelp> help_of(std::span<const NumberOption> options);

/// What a policy is called and does, and where it comes from.
struct PolicyTexts {
  std::string name, summary, source;
};

/// Factory of a policy that is made from `Options`; `known` tells which options these are.
template <class Made, class Options>
[[nodiscard]] PolicyFactory policy_with_options(
    const PolicyTexts& texts, std::vector<NumberOption> (*known)(Options& options)) {
  Options defaults;
  PolicyFactory factory;
  factory.name = texts.name;
  factory.summary = texts.summary;
  factory.source = texts.source;
  factory.option_help = help_of(known(defaults));
  factory.make = [name = texts.name, known](std::span<const PolicyOption> given,
                                            std::uint64_t seed) -> Result<std::unique_ptr<Policy>> {
    Options options;
    TC_TRY(read_options(name, given, known(options)));
    return std::make_unique<Made>(options, seed);
  };
  return factory;
}

}  // namespace thermocline

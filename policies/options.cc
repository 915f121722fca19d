// SPDX-License-Identifier: Apache-2.0
#include "policies/options.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/text.h"

namespace thermocline {

Status read_options(const std::string& policy, std::span<const PolicyOption> options,
                    std::span<const NumberOption> known) {
  for (const PolicyOption& option : options) {
    const auto found = std::find_if(known.begin(), known.end(),
                                    [&](const NumberOption& k) { return k.key == option.key; });
    if (found == known.end()) {
      std::vector<std::string> keys;
      for (const NumberOption& k : known) keys.push_back(k.key);
      return fail(ErrorKind::kUsage, "policy {} has no option \"{}\"; it has {}", policy,
                  option.key, keys.empty() ? "none" : fmt::format("{}", fmt::join(keys, " and ")));
    }
    const Result<std::uint64_t> value = parse_u64(option.value);
    if (!value || *value < found->low || *value > found->high)
      return fail(ErrorKind::kUsage,
                  "option {} of policy {} is \"{}\"; give a number from {} to {}", option.key,
                  policy, option.value, found->low, found->high);
    *found->value = static_cast<unsigned>(*value);
  }
  return {};
}

std::vector<PolicyOptionHelp> help_of(std::span<const NumberOption> options) {
  std::vector<PolicyOptionHelp> help;
  for (const NumberOption& option : options)
    help.push_back({option.key, option.meaning, fmt::format("{}", *option.value)});
  return help;
}

}  // namespace thermocline

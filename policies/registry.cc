// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>

#include "base/text.h"
#include "policies/builtin.h"
#include "policies/policy.h"

namespace thermocline {

Status decided_itself(const Policy& policy) {
  const auto health = policy.plugin_health();
  if (!health || health->failures == 0) return {};
  return fail(ErrorKind::kFailure, "{}", health->last_failure);
}

void PolicyRegistry::add(PolicyFactory factory) {
  for (const PolicyFactory& known : factories_) {
    if (known.name != factory.name) continue;
    std::fprintf(stderr, "two policies are called %s\n", factory.name.c_str());
    std::abort();
  }
  factories_.push_back(std::move(factory));
}

Result<std::unique_ptr<Policy>> PolicyRegistry::make(const std::string& name,
                                                     std::span<const PolicyOption> options,
                                                     std::uint64_t seed) const {
  std::vector<std::string> names;
  for (const PolicyFactory& factory : factories_) {
    if (factory.name == name) return factory.make(options, seed);
    names.push_back(factory.name);
  }
  const std::string near = nearest_word(name, names);
  return fail(ErrorKind::kUsage, "there is no policy called \"{}\"; {} {}", name,
              near.empty() ? "the policies are" : "did you mean",
              near.empty() ? fmt::format("{}", fmt::join(names, ", ")) : near + "?");
}

void register_builtin_policies(PolicyRegistry& registry) {
  registry.add(auto_policy());
  registry.add(heat_policy());
  registry.add(age_policy());
  registry.add(tpp_policy());
  registry.add(hemem_policy());
  registry.add(hybrid_policy());
  registry.add(latency_policy());
  registry.add(exchange_policy());
  registry.add(interleave_policy());
  registry.add(static_policy());
}

}  // namespace thermocline

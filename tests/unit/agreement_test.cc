// SPDX-License-Identifier: Apache-2.0
#include "cli/agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace thermocline::cli {
namespace {

/// Throughputs of seeds 1, 2, ...
PolicyRuns runs(std::vector<double> throughputs, double hits = 0.5) {
  PolicyRuns made;
  for (std::size_t i = 0; i < throughputs.size(); ++i) made[i + 1] = {throughputs[i], hits};
  return made;
}

TEST(Agreement, TauCountsPairsThatTheLabTellsApart) {
  Problem p{"w", "1:4", "", {}, {}};
  p.lab = {{"a", runs({0.9})}, {"b", runs({0.8})}, {"c", runs({0.7})}, {"d", runs({0.6})}};
  p.sim = {{"a", runs({0.9})}, {"b", runs({0.8})}, {"c", runs({0.7})}, {"d", runs({0.6})}};
  EXPECT_DOUBLE_EQ(agreement_of(p).tau, 1);
  // One pair of six the other way round.
  p.sim["c"] = runs({0.5});
  Agreement a = agreement_of(p);
  EXPECT_EQ(a.pairs, 6u);
  EXPECT_EQ(a.other_order, 1u);
  EXPECT_DOUBLE_EQ(a.tau, 4.0 / 6);
  // All of them.
  p.sim = {{"a", runs({0.1})}, {"b", runs({0.2})}, {"c", runs({0.3})}, {"d", runs({0.4})}};
  EXPECT_DOUBLE_EQ(agreement_of(p).tau, -1);
  // A simulator that can't tell two apart has no order of them.
  p.sim = {{"a", runs({0.9})}, {"b", runs({0.9})}, {"c", runs({0.7})}, {"d", runs({0.6})}};
  a = agreement_of(p);
  EXPECT_EQ(a.same_order, 5u);
  EXPECT_DOUBLE_EQ(a.tau, 5.0 / 6);
  EXPECT_THAT(a.policies.front().policy, "a");
}

TEST(Agreement, WhatTheLabDoesNotTellApartIsTied) {
  Problem p{"w", "1:4", "", {}, {}};
  p.lab = {{"a", runs({0.90})}, {"b", runs({0.895})}, {"c", runs({0.5})}};
  p.sim = {{"a", runs({0.80})}, {"b", runs({0.9})}, {"c", runs({0.5})}};
  Agreement a = agreement_of(p);
  EXPECT_EQ(a.tied, 1u);
  EXPECT_EQ(a.pairs, 2u);
  EXPECT_DOUBLE_EQ(a.tau, 1);
  // Five percent apart on average, but now the one is faster and now the other.
  p.lab["b"] = runs({0.80, 0.95, 0.80});
  p.lab["a"] = runs({0.90, 0.90, 0.90});
  p.lab["c"] = runs({0.5, 0.5, 0.5});
  a = agreement_of(p);
  EXPECT_EQ(a.tied, 1u);
  // Always by as much, whatever the seed does to both.
  p.lab["a"] = runs({0.90, 0.70, 0.80});
  p.lab["b"] = runs({0.855, 0.665, 0.76});
  a = agreement_of(p);
  EXPECT_EQ(a.tied, 0u);
  EXPECT_EQ(a.other_order, 1u);
}

TEST(Agreement, HitRatiosAreHeldAgainstEachOther) {
  Problem p{"w", "1:4", "s", {}, {}};
  p.lab = {{"a", runs({0.9, 0.9}, 0.8)}, {"b", runs({0.8, 0.8}, 0.7)}, {"lab only", runs({1})}};
  p.sim = {{"a", runs({0.9}, 0.83)}, {"b", runs({0.8}, 0.64)}, {"sim only", runs({1})}};
  const Agreement a = agreement_of(p);
  EXPECT_EQ(a.policies.size(), 2u);
  EXPECT_NEAR(a.largest_hit_difference, 0.06, 1e-9);
  EXPECT_THAT(agreement_text({a}), testing::HasSubstr("-6.0"));
  EXPECT_THAT(agreement_markdown({a}, "the command"), testing::HasSubstr("| b |"));
  EXPECT_EQ(agreement_json({a})[0]["policies"].size(), 2u);
  EXPECT_EQ(agreement_of({"w", "1:4", "", {}, {}}).pairs, 0u);
}

}  // namespace
}  // namespace thermocline::cli

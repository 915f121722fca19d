// SPDX-License-Identifier: Apache-2.0
#include "topology/latency_probe.h"

#include <gtest/gtest.h>

#include "tree_system.h"

namespace thermocline {
namespace {

TEST(LatencyProbe, MeasuresANodeThatThisProcessMayUse) {
  const auto system = make_real_system();
  auto probe = LatencyProbe::open(NodeId(0));
  if (!probe) GTEST_SKIP() << probe.error().message;
  EXPECT_TRUE(probe->in_place());
  // One that was held up must not be told, and which one that is, two don't tell.
  for (int i = 0; i < 2; ++i) EXPECT_EQ(probe->measure(*system).count(), 0);
  for (int i = 0; i < 20; ++i) EXPECT_GT(probe->measure(*system).count(), 0);
}

/// Time that passes by as much with each look at it.
class HeldUp final : public TreeSystem {
 public:
  Nanoseconds now() const override { return std::exchange(next_, next_ + step); }
  Nanoseconds step{std::chrono::microseconds(32)};

 private:
  mutable Nanoseconds next_{};
};

TEST(LatencyProbe, OneMeasurementThatIsHeldUpIsNotTold) {
  auto probe = LatencyProbe::open(NodeId(0));
  if (!probe) GTEST_SKIP() << probe.error().message;
  HeldUp system;
  for (int i = 0; i < 5; ++i) (void)probe->measure(system);
  const Nanoseconds usual = probe->measure(system);
  EXPECT_EQ(usual, Nanoseconds(1000));
  system.step *= 10;
  for (int i = 0; i < 2; ++i) EXPECT_EQ(probe->measure(system), usual);
  // It lasts: that is the load.
  EXPECT_EQ(probe->measure(system), 10 * usual);
}

TEST(LatencyProbe, ANodeThatIsNotThereIsRefused) {
  for (const int node : {-1, 1023, 5000}) {
    const auto probe = LatencyProbe::open(NodeId(node));
    ASSERT_FALSE(probe) << node;
    EXPECT_EQ(probe.error().kind, ErrorKind::kUnsupported);
    EXPECT_NE(probe.error().message.find(std::to_string(node)), std::string::npos);
  }
}

}  // namespace
}  // namespace thermocline

// SPDX-License-Identifier: Apache-2.0
#include "topology/latency_probe.h"

#include <gtest/gtest.h>

namespace thermocline {
namespace {

TEST(LatencyProbe, MeasuresANodeThatThisProcessMayUse) {
  const auto system = make_real_system();
  auto probe = LatencyProbe::open(NodeId(0));
  if (!probe) GTEST_SKIP() << probe.error().message;
  EXPECT_GT(probe->measure(*system).count(), 0);
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

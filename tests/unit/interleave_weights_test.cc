// SPDX-License-Identifier: Apache-2.0
#include "control/interleave_weights.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace thermocline {
namespace {

namespace fs = std::filesystem;

/// A /sys in a folder, with weights of two nodes.
class InterleaveWeightsTest : public testing::Test {
 protected:
  InterleaveWeightsTest() {
    fs::create_directories(folder_);
    put("node0", "1");
    put("node1", "1");
    put("auto", "1");
  }
  ~InterleaveWeightsTest() override { fs::remove_all(root_); }
  void put(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text << "\n";
  }
  [[nodiscard]] std::string get(const std::string& name) const {
    std::string text;
    std::ifstream(folder_ / name) >> text;
    return text;
  }

  fs::path root_ = fs::path(testing::TempDir()) / ("weights" + std::to_string(::getpid()));
  fs::path folder_ = root_ / "sys/kernel/mm/mempolicy/weighted_interleave";
  std::unique_ptr<System> system_ = make_real_system(root_);
};

TEST_F(InterleaveWeightsTest, AreSetAndPutBack) {
  {
    InterleaveWeights weights(*system_);
    const NodeWeight wanted[] = {{NodeId(0), 3}, {NodeId(1), 2}};
    EXPECT_TRUE(*weights.set(wanted));
    EXPECT_EQ(get("node0") + get("node1"), "32");
    const NodeWeight others[] = {{NodeId(0), 5}, {NodeId(1), 4}};
    EXPECT_TRUE(*weights.set(others));
    EXPECT_EQ(get("node0"), "5");
    EXPECT_TRUE(*weights.set({}));
    EXPECT_EQ(get("node0") + get("node1") + get("auto"), "111");
    EXPECT_TRUE(*weights.set(wanted));
    put("auto", "0");  // as the kernel does
  }
  EXPECT_EQ(get("node0") + get("node1") + get("auto"), "111");
}

TEST_F(InterleaveWeightsTest, ARefusalPutsBackWhatWasSet) {
  InterleaveWeights weights(*system_);
  const NodeWeight wanted[] = {{NodeId(0), 3}, {NodeId(7), 2}};
  EXPECT_FALSE(weights.set(wanted));
  EXPECT_EQ(get("node0"), "1");
}

TEST_F(InterleaveWeightsTest, AKernelWithoutThemIsLeftAlone) {
  fs::remove_all(folder_);
  InterleaveWeights weights(*system_);
  const NodeWeight wanted[] = {{NodeId(0), 3}};
  EXPECT_FALSE(*weights.set(wanted));
}

}  // namespace
}  // namespace thermocline

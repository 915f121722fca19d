// SPDX-License-Identifier: Apache-2.0
#include "control/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace thermocline {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::StartsWith;

std::string error_of(const std::string& text) {
  const auto config = parse_config(text, "f.toml");
  if (config) return "accepted";
  EXPECT_EQ(config.error().kind, ErrorKind::kUsage);
  return config.error().message;
}

TEST(Config, EmptyIsAllDefaults) {
  const auto config = parse_config("", "f.toml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->policy, "auto");
  EXPECT_TRUE(config->engine.window_auto);
  EXPECT_EQ(config->engine.epoch, 2s);
}

TEST(Config, ReadsEveryKey) {
  const auto config = parse_config(R"(
[engine]
mode = "observe"
epoch = "500ms"
window = "5ms"
windows_per_epoch = 4
cpu_budget = 0.1
cooldown_epochs = 1
headroom = "4M"
[policy]
name = "static"
seed = 7
[tracker]
name = "kmod"
flush = true
[mover]
rate_limit = "64M"
batch_pages = 128
[control]
socket = "/tmp/x.sock"
[history]
file = "/tmp/h"
[record]
file = "/tmp/r"
[[target]]
pid = 12
[[target]]
command = "redis-server"
cgroup = "/a"
[[tier]]
name = "near"
nodes = [0]
[[tier]]
nodes = [1, 2]
)",
                                   "f.toml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->engine.mode, EngineMode::kObserve);
  EXPECT_EQ(config->engine.window, 5ms);
  EXPECT_FALSE(config->engine.window_auto);
  EXPECT_EQ(config->engine.headroom, PageCount(1024));
  EXPECT_EQ(config->engine.rate_limit, 64_MiB);
  EXPECT_EQ(config->policy, "static");
  EXPECT_EQ(config->tracker_options.flush, TrackerOptions::Flush::kOn);
  ASSERT_EQ(config->targets.size(), 2u);
  EXPECT_EQ(config->targets[0].pid, Pid(12));
  EXPECT_EQ(config->targets[1].command, "redis-server");
  ASSERT_EQ(config->tiers.size(), 2u);
  EXPECT_EQ(config->tiers[1].nodes.size(), 2u);
}

TEST(Config, WhatIsWrittenReadsBackTheSame) {
  const auto config = parse_config(
      "[engine]\nepoch=\"750ms\"\n[policy]\nname=\"static\"\n[[target]]\ncommand=\"a\\\"b\"\n"
      "[[tier]]\nname=\"x\"\nnodes=[3]\n",
      "f.toml");
  ASSERT_TRUE(config) << config.error().message;
  const std::string written = config_to_toml(*config);
  const auto again = parse_config(written, "again.toml");
  ASSERT_TRUE(again) << again.error().message << "\n" << written;
  EXPECT_EQ(config_to_toml(*again), written);
}

TEST(Config, MistakesAreNamedWithTheirPlaceAndTheNearestWord) {
  EXPECT_EQ(error_of("[engine]\nepohc = \"1s\"\n"),
            "f.toml:2:1: unknown key \"epohc\" in [engine]; did you mean \"epoch\"?");
  EXPECT_THAT(error_of("[egnine]\nepoch = \"1s\"\n"),
              HasSubstr("unknown table \"egnine\"; did you mean \"engine\"?"));
  EXPECT_THAT(error_of("[engine]\n  epoch = 5\n"), StartsWith("f.toml:2:3: engine.epoch needs"));
  EXPECT_THAT(error_of("[engine]\nepoch = \"1 parsec\"\n"), HasSubstr("engine.epoch needs a time"));
  EXPECT_THAT(error_of("[engine\n"), StartsWith("f.toml:1:"));
  EXPECT_THAT(error_of("[[target]]\nproc = 1\n"), HasSubstr("valid here: pid, command, cgroup"));
  EXPECT_THAT(error_of("[[target]]\n"), HasSubstr("at least one of"));
  EXPECT_THAT(error_of("[[target]]\npid = -4\n"), HasSubstr("target.pid needs"));
  EXPECT_THAT(error_of("[target]\npid = 4\n"), HasSubstr("write [[target]]"));
  EXPECT_THAT(error_of("[[tier]]\nnodes = []\n"), HasSubstr("tier.nodes needs a list"));
  EXPECT_THAT(error_of("[[tier]]\nnodes=[0]\n[[tier]]\nnodes=[0]\n"),
              StartsWith("f.toml:4:8: node 0 stands in the [[tier]]s twice"));
  EXPECT_THAT(error_of("[[tier]]\nnodes=[0, 0]\n"), StartsWith("f.toml:2:11: node 0"));
  EXPECT_THAT(error_of("[policy]\nname = \"heta\"\n"),
              testing::AllOf(StartsWith("f.toml:2:1: "), HasSubstr("heat")));
  EXPECT_THAT(error_of("[policy.heat]\nmin_heat = 4\nwarm = 3\n"), StartsWith("f.toml:3:1: "));
  EXPECT_THAT(error_of("[policy.heat]\nmin_heat = \"lots\"\n"), StartsWith("f.toml:2:1: "));
  EXPECT_THAT(error_of("\n[policy.heta]\n"), StartsWith("f.toml:2:9: ")) << "even an empty one";
  EXPECT_THAT(error_of("[engine]\nepoch=\"100ms\"\nwindow=\"90ms\"\n"),
              StartsWith("f.toml:3:1: 8 windows of 90 ms do not fit"));
  EXPECT_THAT(error_of("[engine]\ncpu_budget = 3\n"), HasSubstr("engine.cpu_budget needs"));
  EXPECT_THAT(error_of("engine = 4\n"), HasSubstr("write [engine]"));
}

TEST(Config, FlushIsAutoTrueOrFalse) {
  using Flush = TrackerOptions::Flush;
  const auto flush_of = [](const std::string& value) {
    const auto config = parse_config("[tracker]\nflush = " + value + "\n", "f.toml");
    return config ? config->tracker_options.flush : Flush::kAuto;
  };
  EXPECT_EQ(flush_of("true"), Flush::kOn);
  EXPECT_EQ(flush_of("false"), Flush::kOff);
  EXPECT_TRUE(parse_config("[tracker]\nflush = \"auto\"\n", "f.toml"));
  EXPECT_EQ(parse_config("", "f.toml")->tracker_options.flush, Flush::kAuto);
  EXPECT_THAT(error_of("[tracker]\nflush = \"on\"\n"), HasSubstr("needs \"auto\", true or false"));
}

TEST(Config, TargetsMayHaveSharesAndRanges) {
  const char* text = R"(
[engine]
oom_headroom = "64M"
[[target]]
cgroup = "/db"
name = "the database"
weight = 300
floor = "1024M"
ceiling = "4096M"
per_process = true
never_move = ["0x1000-0x3000", "0x7f0000000000-0x7f0040000000"]
keep_fast = ["0x5000-0x6000"]
[[target]]
command = "x"
)";
  const auto config = parse_config(text, "f.toml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->engine.oom_headroom, PageCount(16384));
  ASSERT_EQ(config->shares.size(), 2u);
  const TargetShare& share = config->shares[0];
  EXPECT_TRUE(share.set);
  EXPECT_TRUE(share.per_process);
  EXPECT_EQ(share.limits.name, "the database");
  EXPECT_EQ(share.limits.weight, 300u);
  EXPECT_EQ(share.limits.floor, PageCount(1u << 18));
  EXPECT_EQ(share.limits.ceiling, PageCount(1u << 20));
  ASSERT_EQ(share.never_move.size(), 2u);
  EXPECT_EQ(share.never_move[0], (PageRange{Vpn(1), Vpn(3)}));
  EXPECT_EQ(share.keep_fast, (std::vector<PageRange>{{Vpn(5), Vpn(6)}}));
  EXPECT_FALSE(config->shares[1].set);
  EXPECT_EQ(config->shares[1].limits.name, "command \"x\"");
  const std::string written = config_to_toml(*config);
  const auto again = parse_config(written, "again.toml");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(config_to_toml(*again), written);
  EXPECT_EQ(again->shares[0].never_move, share.never_move);
}

TEST(Config, SharesThatCantBeAreRefused) {
  const auto with = [](const std::string& line) {
    return error_of("[[target]]\npid = 1\n" + line + "\n");
  };
  EXPECT_EQ(with("weight = 0"), "f.toml:3:1: target.weight needs a whole number from 1 to 10000");
  EXPECT_THAT(with("floor = 5"), HasSubstr("target.floor needs a size"));
  EXPECT_THAT(with("floor = \"2M\"\nceiling = \"1M\""), HasSubstr("more than target.ceiling"));
  for (const char* range :
       {"1", "\"0x1000\"", "\"0x1000-0x1000\"", "\"0x1000-0x2001\"", "\"-0x2000\"", "\"0x1000-\"",
        "\"0x1000-0xffffffffffff0000\"", "\"0x1000-0x2000-0x3000\""})
    EXPECT_THAT(with(std::string("never_move = [") + range + "]"),
                HasSubstr("target.never_move needs"))
        << range;
  EXPECT_THAT(with("keep_fast = \"0x1000-0x2000\""), HasSubstr("needs a list"));
  EXPECT_THAT(with("weightt = 3"), HasSubstr("did you mean \"weight\"?"));
}

TEST(Config, SizesThatNoMachineHasAreRefused) {
  EXPECT_THAT(error_of("[engine]\nepoch=\"3600s\"\n[mover]\nrate_limit=\"8388607T\"\n"),
              StartsWith("f.toml:4:1: mover.rate_limit needs a size from 4.0 KiB to 16 TiB"));
  EXPECT_THAT(error_of("[engine]\nheadroom=\"8388607T\"\n"), HasSubstr("engine.headroom needs"));
  EXPECT_THAT(error_of("[history]\nmax_size=\"1\"\n"), HasSubstr("history.max_size needs"));
  EXPECT_TRUE(parse_config("[mover]\nrate_limit=\"16T\"\n", "f"));
}

TEST(Config, HistoryAndRecordsCantGoToOneFile) {
  EXPECT_EQ(error_of("[history]\nfile=\"/x/a\"\n[record]\nfile=\"/x/b/../a\"\n"),
            "f.toml:4:1: record.file and history.file name the same file");
  EXPECT_TRUE(parse_config("[history]\nfile=\"/x/a\"\n[record]\nfile=\"/x/b\"\n", "f"));
}

TEST(Config, PolicyPluginsAreLookedForAndNotRun) {
  const std::filesystem::path dir = std::filesystem::path(testing::TempDir()) / "config-plugins";
  std::filesystem::create_directories(dir);
  std::filesystem::permissions(dir, std::filesystem::perms(0755));
  std::ofstream(dir / "mine.so") << "no plug-in, which nobody finds out before it is run";
  const std::string base =
      "[policy]\nplugin_timeout = \"50ms\"\nplugin_dir = \"" + dir.string() + "\"\n";
  const std::string text = base + "name = \"mine\"\n[policy.mine]\nanything = 3\n";
  const auto config = parse_config(text, "f.toml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->plugin_timeout, 50ms);
  EXPECT_FALSE(is_builtin_policy("mine"));
  EXPECT_TRUE(is_builtin_policy("heat"));
  const auto again = parse_config(config_to_toml(*config), "again");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(config_to_toml(*again), config_to_toml(*config));
  EXPECT_EQ(again->plugin_dir, dir.string());
  EXPECT_THAT(error_of(base + "name = \"mime\"\n"),
              testing::AllOf(StartsWith("f.toml:4:1: "), HasSubstr("did you mean mine?")));
  EXPECT_THAT(error_of(base + "[policy.yours]\n"), StartsWith("f.toml:4:9: "));
  EXPECT_THAT(error_of("[policy]\nplugin_timeout = \"0ms\"\n"), StartsWith("f.toml:2:1: "));
  EXPECT_THAT(error_of("[policy]\n\nplugin_dir = \"/nowhere\"\n"),
              testing::AllOf(StartsWith("f.toml:3:1: "), HasSubstr("/nowhere")));
  std::filesystem::permissions(dir, std::filesystem::perms(0777));
  EXPECT_THAT(error_of(text), HasSubstr("can be written by others"));
  std::filesystem::permissions(dir, std::filesystem::perms(0755));
  std::ofstream(dir / "tpp.so") << "";
  EXPECT_THAT(error_of(text), HasSubstr("is called like a policy that is built in"));
  std::filesystem::remove_all(dir);
}

TEST(Config, APolicyStaysTheSameWhenOnlyOtherKeysChange) {
  const auto same = [](const std::string& a, const std::string& b) {
    return same_policy(*parse_config(a, "a"), *parse_config(b, "b"));
  };
  const std::string base =
      "[policy]\nname = \"heat\"\n[policy.heat]\nmin_heat = 4\nwarm_band = 8\n";
  EXPECT_TRUE(same(base, base + "[mover]\nrate_limit = \"1M\"\n[[target]]\npid = 1\n"));
  EXPECT_TRUE(
      same(base, "[policy]\nname = \"heat\"\n[policy.heat]\nwarm_band = \"8\"\nmin_heat = 4\n"));
  EXPECT_FALSE(
      same(base, "[policy]\nname = \"heat\"\n[policy.heat]\nmin_heat = 5\nwarm_band = 8\n"));
  EXPECT_FALSE(same("", "[policy]\nseed = 2\n"));
  EXPECT_FALSE(same("", "[policy]\nname = \"static\"\n"));
}

TEST(Config, LettersBeyondAsciiAreForCommentLines) {
  EXPECT_THAT(error_of("# f\xc3\xbcr\n[engine]\n\xcf\xa2G = 1\n"),
              StartsWith("f.toml:3:1: letters"));
  EXPECT_THAT(error_of("[[target]]\ncommand = \"\xc3\xbc\"\n"), StartsWith("f.toml:2:12: letters"));
  const auto config = parse_config("[[target]]\n # \xc3\xbc\ncommand = \"\\u00fc\"\n", "f.toml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->targets.front().command, "\xc3\xbc");
  EXPECT_TRUE(parse_config(config_to_toml(*config), "again"));
}

TEST(Config, DropInsWinAndAddTargets) {
  const auto dir = std::filesystem::path(testing::TempDir()) / "tc_config_test";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir / "main.toml.d");
  std::ofstream(dir / "main.toml") << "[engine]\nepoch=\"1s\"\n[[target]]\npid=1\n";
  std::ofstream(dir / "main.toml.d" / "20-b.toml") << "[engine]\nepoch=\"3s\"\n[[target]]\npid=2\n";
  std::ofstream(dir / "main.toml.d" / "10-a.toml") << "[engine]\nepoch=\"2s\"\n";
  std::ofstream(dir / "main.toml.d" / "ignored.txt") << "nonsense";
  auto config = load_config((dir / "main.toml").string());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->engine.epoch, 3s);
  EXPECT_EQ(config->targets.size(), 2u);

  std::ofstream(dir / "main.toml.d" / "30-c.toml") << "\n\n[engine]\nmoed = \"observe\"\n";
  config = load_config((dir / "main.toml").string());
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().message, HasSubstr("30-c.toml:4:1: unknown key \"moed\""));
  std::filesystem::remove_all(dir);
}

TEST(Config, DropInsThatCantBeReadAreNotMissedInSilence) {
  const auto dir = std::filesystem::path(testing::TempDir()) / "tc_config_drop_in_test";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  const std::string path = dir / "main.toml";
  const auto complaint = [&] {
    const auto config = load_config(path);
    return config ? "accepted" : config.error().message;
  };
  std::ofstream(path) << "[engine]\nepoch=\"1s\"\n";
  EXPECT_EQ(complaint(), "accepted");
  std::filesystem::create_symlink("main.toml.d", path + ".d");  // leads to itself
  EXPECT_EQ(complaint(), "can't list " + path + ".d: Too many levels of symbolic links");
  std::filesystem::remove(path + ".d");
  std::ofstream(path + ".d") << "a file";
  EXPECT_EQ(complaint(), "can't list " + path + ".d: Not a directory");
  std::filesystem::remove(path + ".d");
  std::filesystem::create_directories(path + ".d/10.toml");
  EXPECT_THAT(complaint(), HasSubstr("10.toml is a directory"));
  std::filesystem::remove(path + ".d/10.toml");
  std::filesystem::create_symlink("nowhere", path + ".d/10.toml");
  EXPECT_THAT(complaint(), HasSubstr("there is no configuration file " + path + ".d/10.toml"));
  std::filesystem::remove_all(dir);
}

TEST(Config, AMissingFileSaysWhatToDo) {
  const auto config = load_config("/nonexistent/x.toml");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().kind, ErrorKind::kNotFound);
  EXPECT_THAT(config.error().message,
              HasSubstr("no configuration file /nonexistent/x.toml: write it"));
}

}  // namespace
}  // namespace thermocline

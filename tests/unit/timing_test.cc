// SPDX-License-Identifier: Apache-2.0
// The timing model's host side: files, presets, the plan for a guest, and what calibrate says. Its
// wrong inputs are in tests/golden/timing_mistakes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text.h"
#include "cli/calibrate.h"
#include "emulation/lab/machine.h"
#include "emulation/timing/model.h"
#include "emulation/timing/profile.h"

namespace thermocline::timing {
namespace {

using testing::HasSubstr;
using testing::Not;

GuestMemory two_nodes() {
  GuestMemory memory;
  memory.ranges = {{NodeId(0), 0, Bytes(1u << 30)}, {NodeId(1), 1u << 30, Bytes(1u << 30)}};
  memory.cpu_node = {NodeId(0)};
  return memory;
}

TEST(TimingModel, TimesHaveAUnit) {
  EXPECT_EQ(parse_time("250ns")->get(), 250'000u);
  EXPECT_EQ(parse_time("0.4ns")->get(), 400u);
  EXPECT_EQ(parse_time("1.5us")->get(), 1'500'000u);
  EXPECT_EQ(parse_time("400 ps")->get(), 400u);
  for (const char* wrong : {"250", "ns", "-1ns", "1.ns", ".5ns", "1e3ns", "1 2ns", "1.2.3ns", "",
                            "99999999999999999ns", "5GB/s"})
    EXPECT_FALSE(parse_time(wrong)) << wrong;
  EXPECT_EQ(parse_bandwidth("25GB/s")->get(), 25'000u);
  EXPECT_EQ(parse_bandwidth("0.5GB/s")->get(), 500u);
  for (const char* wrong : {"25", "25G", "25Gb/s", "GB/s", "25ns"})
    EXPECT_FALSE(parse_bandwidth(wrong)) << wrong;
}

TEST(TimingModel, WhatIsNoModelFileIsNamed) {
  const std::string preset(preset_text("cxl-asic"));
  EXPECT_TRUE(parse_model("\xef\xbb\xbf" + preset, "m.toml"));
  const auto binary = parse_model(std::string("\x7f"
                                              "ELF\0\xff",
                                              6),
                                  "m.toml");
  ASSERT_FALSE(binary);
  EXPECT_EQ(binary.error().message, "m.toml:1: this is not a text file");
  const auto folder = load_model("/tmp");
  ASSERT_FALSE(folder);
  EXPECT_EQ(folder.error().kind, ErrorKind::kUsage);
  EXPECT_THAT(folder.error().message, HasSubstr("/tmp is a directory"));
  const auto table =
      parse_model("[node]\nnode = 0\nlatency = \"1ns\"\nbandwidth = \"1GB/s\"\n", "m.toml");
  ASSERT_FALSE(table);
  EXPECT_EQ(table.error().message, "m.toml:1: node is a list: write [[node]]");
}

TEST(TimingModel, PresetsFitEveryProfile) {
  ASSERT_EQ(preset_names().size(), 5u);
  for (const std::string& name : preset_names()) {
    const auto model = load_model(name);
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_EQ(model->name, name);
    EXPECT_FALSE(model->source.empty()) << name << " says where its figures come from";
    for (const lab::Profile profile :
         {lab::Profile::kHmat, lab::Profile::kNvdimm, lab::Profile::kCxl}) {
      lab::MachineSpec spec;
      spec.profile = profile;
      const auto machine = lab::build_machine(spec);
      ASSERT_TRUE(machine);
      EXPECT_TRUE(make_plan(*model, machine->memory, Mode::kParallel, {}))
          << name << " " << lab::profile_name(profile);
    }
    for (const lab::NodeLayout& layout : lab::layouts()) {
      lab::MachineSpec spec;
      spec.layout = layout;
      const auto machine = lab::build_machine(spec);
      ASSERT_TRUE(machine);
      EXPECT_TRUE(make_plan(*model, machine->memory, Mode::kParallel, {})) << layout.name;
    }
  }
}

TEST(TimingModel, PlanHasWhatTheFileSays) {
  const auto model = parse_model(
      "name = \"m\"\n[core]\ninstruction = \"0.3ns\"\nwindow = 100\nin_flight = 4\n"
      "[l2]\nsize = \"1M\"\nways = 16\nlatency = \"5ns\"\n"
      "[tlb]\nentries = 64\nways = 4\nwalk = \"30ns\"\n"
      "[[node]]\nnode = 0\nlatency = \"90ns\"\nfrom = { 1 = \"140ns\" }\nbandwidth = \"100GB/s\"\n"
      "background = \"2.5GB/s\"\nshare = 0.25\nqueue = \"10ns\"\n"
      "[[node]]\nnode = \"rest\"\nlatency = \"250ns\"\nbandwidth = \"25GB/s\"\n",
      "m.toml");
  ASSERT_TRUE(model) << model.error().message;
  GuestMemory memory = two_nodes();
  memory.cpu_node = {NodeId(0), NodeId(1)};
  const auto plan = make_plan(*model, memory, Mode::kParallel,
                              {"/tmp/a b", std::chrono::milliseconds(100), "virtual"});
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(*plan,
            "thermocline-plan 1\nmode parallel\ncore 300 100 4 40000 8000 16\n"
            "l2 1048576 16 5000\nllc 2097152 16 15000\ntlb 64 4 30000\n"
            "tier 0 100000 2500 250000 10000 90000 140000\n"
            "tier 1 25000 0 1000000 0 250000 250000\n"
            "range 0 1073741824 0\nrange 1073741824 1073741824 1\ncpus 0 1\n"
            "truth 100000000 virtual /tmp/a b\n");
}

TEST(TimingModel, PresetsAreLocalToCpusOfANodeThatHasSome) {
  lab::MachineSpec spec;
  spec.layout = *lab::find_layout("two-socket");
  spec.cpus = 4;
  const auto machine = lab::build_machine(spec);
  ASSERT_TRUE(machine);
  const auto plan = make_plan(*load_model("remote-numa"), machine->memory, Mode::kParallel, {});
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_THAT(*plan, HasSubstr("tier 0 200000 0 250000 10000 100000 140000\n"));
  EXPECT_THAT(*plan, HasSubstr("tier 1 60000 0 250000 12000 140000 100000\n"));
  EXPECT_THAT(*plan, HasSubstr("cpus 0 0 1 1\n"));
}

TEST(TimingModel, FromNamesNodesTheOwnOneAndTheRest) {
  const auto model = parse_model(
      "[[node]]\nnode = \"rest\"\nlatency = \"200ns\"\nbandwidth = \"100GB/s\"\n"
      "from = { 2 = \"300ns\", own = \"100ns\" }\n",
      "m.toml");
  ASSERT_TRUE(model) << model.error().message;
  const NodeModel& entry = model->nodes[0];
  EXPECT_EQ(latency_between(entry, NodeId(1), NodeId(1)).get(), 100'000u);
  EXPECT_EQ(latency_between(entry, NodeId(1), NodeId(2)).get(), 300'000u);
  EXPECT_EQ(latency_between(entry, NodeId(1), NodeId(0)).get(), 200'000u);
}

TEST(TimingModel, RangesOfTheFileReplaceTheMachines) {
  const auto model = parse_model(
      "[[node]]\nnode = 0\nlatency = \"90ns\"\nbandwidth = \"100GB/s\"\n"
      "[[node]]\nnode = 1\nlatency = \"250ns\"\nbandwidth = \"25GB/s\"\n"
      "range = \"0x40000000-0x4fffffff\"\n"
      "[[node]]\nnode = 1\nlatency = \"350ns\"\nbandwidth = \"25GB/s\"\n"
      "range = \"0x50000000-0x7fffffff\"\n",
      "m.toml");
  ASSERT_TRUE(model);
  const auto plan = make_plan(*model, two_nodes(), Mode::kReport, {});
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_THAT(*plan, HasSubstr(fmt::format("range {} {} 0\n", 1u << 30, 1u << 28)));
  EXPECT_THAT(*plan, Not(HasSubstr("truth")));
}

TEST(TimingModel, RangesAreAllOfTheirNodesMemoryAndNoMore) {
  const auto refusal = [](const std::string& range) {
    const auto model = parse_model(
        "[[node]]\nnode = 0\nlatency = \"90ns\"\nbandwidth = \"100GB/s\"\n"
        "[[node]]\nnode = 1\nlatency = \"250ns\"\nbandwidth = \"25GB/s\"\nrange = \"" +
            range + "\"\n",
        "m.toml");
    EXPECT_TRUE(model);
    const auto plan = make_plan(*model, two_nodes(), Mode::kReport, {});
    return plan ? std::string() : plan.error().message;
  };
  EXPECT_EQ(refusal("0x40000000-0x7fffffff"), "");
  EXPECT_THAT(refusal("0x40000000-0x8fffffff"),
              HasSubstr("m.toml:5: this [[node]]'s range is not within the guest's memory of node "
                        "1: 0x40000000-0x7fffffff"));
  EXPECT_THAT(refusal("0x100000000-0x13fffffff"), HasSubstr("not within"));
  EXPECT_THAT(refusal("0x40000000-0x6fffffff"),
              HasSubstr("m.toml:5: the ranges of node 1 leave out 0x70000000-0x7fffffff"));
  EXPECT_THAT(refusal("0x50000000-0x7fffffff"), HasSubstr("leave out 0x40000000-0x4fffffff"));
}

TEST(TimingModel, MachineSaysWhereMemoryIs) {
  // 6 GiB: q35 puts 2 GiB below the hole and the rest above 4 GiB.
  lab::MachineSpec spec;
  spec.fast = 3_GiB;
  spec.slow = 3_GiB;
  const auto machine = lab::build_machine(spec);
  ASSERT_TRUE(machine);
  const auto& ranges = machine->memory.ranges;
  ASSERT_EQ(ranges.size(), 3u);
  EXPECT_EQ(ranges[0].start, 0u);
  EXPECT_EQ(ranges[0].size, 2_GiB);
  EXPECT_EQ(ranges[1].start, (4_GiB).get());
  EXPECT_EQ(ranges[1].size, 1_GiB);
  EXPECT_EQ(ranges[1].node, NodeId(0));
  EXPECT_EQ(ranges[2].start, (5_GiB).get());
  EXPECT_EQ(ranges[2].node, NodeId(1));
  EXPECT_EQ(machine->memory.cpu_node.size(), 2u);
}

constexpr const char* kProbe =
    R"({"nodes": [{"node": 0, "chase_ns": 101, "update_ns": 8, "read_gb_per_s": 4,
        "triad_gb_per_s": 6, "sweep": [{"load_percent": 0, "chase_ns": 101},
        {"load_percent": 90, "chase_ns": 160}]}], "kernel": {"system_call_ns": 100}})";

TEST(Calibrate, ComparesWithTheModel) {
  const auto model = load_model("cxl-asic");
  ASSERT_TRUE(model);
  const auto c = cli::read_calibration(kProbe, *model, Mode::kReference, "6.12");
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_NEAR(c->nodes[0].error(), 0.01, 1e-9);
  EXPECT_TRUE(c->nodes[0].rises());
  EXPECT_EQ(c->nodes[0].knee_percent(), 90u);
  const std::string text = cli::calibration_text(*c, *model);
  EXPECT_THAT(text, HasSubstr("+1.0 %"));
  EXPECT_THAT(text, HasSubstr("local DDR 75 to 110 ns"));
  EXPECT_EQ(cli::calibration_json(*c, *model)["nodes"][0]["model_ns"], 100.0);
  const auto json = cli::calibration_json(*c, *model);
  EXPECT_EQ(json["source"], model->source);
  EXPECT_EQ(json["published"]["idle_latency"][0]["low_ns"], 75.0);
  EXPECT_THAT(cli::calibration_svg(*c), HasSubstr("polyline"));
}

TEST(Calibrate, LoadOfOthersIsInTheModelsLatency) {
  const auto model = parse_model(
      "[[node]]\nnode = 0\nlatency = \"100ns\"\nbandwidth = \"200GB/s\"\n"
      "background = \"100GB/s\"\nqueue = \"10ns\"\n",
      "m.toml");
  ASSERT_TRUE(model);
  const auto c = cli::read_calibration(kProbe, *model, Mode::kReference, "6.12");
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_NEAR(c->nodes[0].model_ns(), 110, 1e-9);
  EXPECT_THAT(cli::calibration_text(*c, *model), HasSubstr("50 % taken by others"));
}

TEST(Calibrate, AFlatCurveDoesNotRise) {
  std::string probe = kProbe;
  probe.replace(probe.find("160"), 3, "101");
  const auto model = load_model("cxl-asic");
  const auto c = cli::read_calibration(probe, *model, Mode::kReference, "6.12");
  ASSERT_TRUE(c);
  EXPECT_FALSE(c->nodes[0].rises());
  EXPECT_THAT(cli::calibration_text(*c, *model), HasSubstr("flat: "));
}

TEST(Calibrate, SaysWhenLatencyFallsUnderLoad) {
  const auto model = load_model("cxl-asic");
  std::string probe = kProbe;
  probe.replace(probe.find("160"), 3, "090");
  EXPECT_FALSE(cli::read_calibration(probe, *model, Mode::kReference, "6.12"));  // not JSON
  probe.replace(probe.find("090"), 3, " 90");
  const auto c = cli::read_calibration(probe, *model, Mode::kReference, "6.12");
  ASSERT_TRUE(c);
  EXPECT_FALSE(c->nodes[0].rises());
  EXPECT_THAT(cli::calibration_text(*c, *model), HasSubstr("DOES NOT RISE"));
  for (const char* wrong :
       {"", "[]", "{}", R"({"nodes": [{}], "kernel": {}})", R"({"nodes": [], "kernel": 1})"})
    EXPECT_FALSE(cli::read_calibration(wrong, *model, Mode::kReference, "6.12")) << wrong;
}

TEST(Profile, FunctionsAreKnownByNameWhateverTheCompilerAdded) {
  for (const char* name :
       {"task_numa_work", "change_prot_numa.constprop.0", "do_huge_pmd_numa_page", "kdamond_fn",
        "damon_va_check_accesses", "task_numa_fault.cold", "damon_pa_prepare_access_checks.part.0",
        "kdamond_split_regions.isra.0"})
    EXPECT_EQ(purpose_of(name), Purpose::kTracker) << name;
  for (const char* name : {"damon_do_apply_schemes", "damon_pa_apply_scheme", "mpol_misplaced"})
    EXPECT_EQ(purpose_of(name), Purpose::kPolicy) << name;
  for (const char* name :
       {"migrate_pages", "migrate_misplaced_folio.isra.0.cold", "migrate_misplaced_page",
        "damon_pa_migrate_folio_list", "__damon_pa_migrate_folio_list", "__x64_sys_move_pages",
        "__pfx___x64_sys_move_pages", "balance_pgdat", "demote_page_list"})
    EXPECT_EQ(purpose_of(name), Purpose::kMover) << name;
  EXPECT_EQ(purpose_of("compact_zone"), Purpose::kApart);
  // 6.12's move_pages() serves userfaultfd.
  for (const char* name : {"move_pages", "migrate_folio_add", "do_numa_page2", "kdamond", "", "."})
    EXPECT_EQ(purpose_of(name), std::nullopt) << name;
}

constexpr const char* kSymbols =
    "ffffffff81123000 ffffffff81124000 task_numa_work\n"
    "ffffffff81125000 ffffffff81125010 mpol_misplaced\n"
    "ffffffff82e00000 ffffffff82e00000 __start_orc_unwind_ip\n"
    "ffffffff83000000 ffffffff83000000 __start_orc_unwind\n"
    "ffffffff83000000 ffffffff83000000 __stop_orc_unwind_ip\n"
    "ffffffff8140dcb0 ffffffff8140e7c0 migrate_pages.isra.0\n";

TEST(Profile, PlanHasPurposesAndRanges) {
  const auto plan = profile_plan(kSymbols, "6.12", std::chrono::microseconds(50));
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(*plan, fmt::format("profile 50000\ntext tracker {} 4096\ntext policy {} 16\n"
                               "text mover {} 2832\nunwind {} {} {}\n",
                               0xffffffff81123000u, 0xffffffff81125000u, 0xffffffff8140dcb0u,
                               0xffffffff82e00000u, 0xffffffff83000000u, 0xffffffff83000000u));
}

TEST(Profile, APurposeWithoutFunctionsIsAnError) {
  const auto refusal = [](const std::string& symbols) {
    const auto plan = profile_plan(symbols, "6.12", std::chrono::microseconds(50));
    return plan ? "" : plan.error().message;
  };
  const std::string all = kSymbols;
  EXPECT_THAT(refusal(all.substr(all.find('\n') + 1)), HasSubstr("no function of the tracker"));
  EXPECT_THAT(refusal(all.substr(0, all.rfind("ffffffff8140dcb0"))),
              HasSubstr("no function of the mover"));
  EXPECT_THAT(refusal(""), HasSubstr("--truth-profile"));
  std::string untold = all;
  untold.replace(untold.find("__start_orc_unwind\n"), 19, "__start_orc_unwind_ip\n");
  EXPECT_THAT(refusal(untold), HasSubstr("no unwind tables"));
  EXPECT_THAT(refusal(all + "awk: not found\n"), HasSubstr("damaged"));
  EXPECT_THAT(refusal(all + "ffffffff8140e7c0 ffffffff8140e7c0 kdamond_fn\n"),
              HasSubstr("damaged"));
  EXPECT_THAT(refusal(all + "ffffffff8140e7c0 kdamond_fn\n"), HasSubstr("damaged"));
}

}  // namespace
}  // namespace thermocline::timing

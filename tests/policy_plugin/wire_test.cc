// SPDX-License-Identifier: Apache-2.0
// What goes between Thermocline and a policy plug-in: comes out as it went in, and nothing else
// comes out. The plug-in's side of it is hostile.
#include "policies/plugin/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <set>

#include "tracking/record.h"

namespace thermocline::plugin {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

Hello hello() {
  return {THERMOCLINE_NEEDS_TOUCHES, "name", "summary", "source", {"one", "two"},
          {{"key", "meaning", "7"}}};
}

TEST(PluginWire, WhatAPluginTellsComesOutAsItWentIn) {
  const auto decoded = decode_hello(encode(hello()));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(decoded->needs, 1u);
  EXPECT_EQ(decoded->name, "name");
  EXPECT_EQ(decoded->summary, "summary");
  EXPECT_EQ(decoded->source, "source");
  EXPECT_THAT(decoded->rules, testing::ElementsAre("one", "two"));
  ASSERT_EQ(decoded->options.size(), 1u);
  EXPECT_EQ(decoded->options[0].key, "key");
  EXPECT_EQ(decoded->options[0].default_text, "7");
  const auto created = decode_create(encode(Create{5, {"a", ""}}));
  ASSERT_TRUE(created);
  EXPECT_EQ(created->seed, 5u);
  EXPECT_THAT(created->values, testing::ElementsAre("a", ""));
}

TEST(PluginWire, EveryCutAndEveryAdditionIsRefused) {
  const std::vector<std::byte> told = encode(hello());
  for (std::size_t length = 0; length < told.size(); ++length)
    EXPECT_FALSE(decode_hello(std::span(told).first(length))) << length;
  PlanReply reply;
  reply.moves.resize(3);
  const std::vector<std::byte> plan = encode(reply);
  for (std::size_t length = 0; length < plan.size(); ++length)
    EXPECT_FALSE(decode_plan(std::span(plan).first(length), 10)) << length;
  for (std::vector<std::byte> longer : {told, plan}) {
    longer.push_back(std::byte{0});
    EXPECT_FALSE(decode_hello(longer));
    EXPECT_FALSE(decode_plan(longer, 10));
  }
  EXPECT_TRUE(decode_plan(plan, 3));
  EXPECT_FALSE(decode_plan(plan, 2));
}

TEST(PluginWire, TextsAreMadePrintableAndBounded) {
  Hello odd = hello();
  odd.name = "a\x1b[31mb\n";
  const auto decoded = decode_hello(encode(odd));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->name, "a?[31mb?");
  odd.name = std::string(THERMOCLINE_MOST_TEXT, 'x');
  EXPECT_FALSE(decode_hello(encode(odd)));
  odd = hello();
  odd.rules.resize(THERMOCLINE_MOST_RULES + 1, "rule");
  EXPECT_FALSE(decode_hello(encode(odd)));
  odd = hello();
  odd.needs = 1u << 31;
  EXPECT_FALSE(decode_hello(encode(odd)));
  EXPECT_EQ(decode_text(encode_text(std::string(100000, 'y'))).size(), THERMOCLINE_MOST_TEXT);
}

TEST(PluginWire, HeadersAreChecked) {
  FrameHeader header;
  header.type = FrameType::kPlan;
  header.length = 100;
  EXPECT_TRUE(check_header(header, 100));
  EXPECT_FALSE(check_header(header, 99));
  header.type = static_cast<FrameType>(7);
  EXPECT_FALSE(check_header(header, 100));
  header.type = static_cast<FrameType>(0);
  EXPECT_FALSE(check_header(header, 100));
  header = {};
  header.magic = 0;
  header.type = FrameType::kPlan;
  EXPECT_FALSE(check_header(header, 100));
}

/// Three tiers of 8 small pages each; the tier in the middle is the one that has both lists. Page i
/// of a tier has been touched in i of 8 windows.
struct World {
  HeatMap heat;
  std::vector<TierView> tiers;

  explicit World(std::uint64_t free = 2) {
    const TierId of_node[] = {TierId(0), TierId(1), TierId(2)};
    heat.set_node_tiers(of_node);
    for (unsigned window = 0; window < 8; ++window)
      for (std::uint64_t tier = 0; tier < 3; ++tier) {
        std::vector<EntryObservation> entries;
        for (unsigned i = 0; i < 8; ++i)
          entries.push_back(
              {NodeId(static_cast<std::int32_t>(tier)), true, true, i > window, false});
        std::vector<std::byte> bytes;
        RecordHeader header;
        header.asid = Asid(1);
        RecordWriter(bytes).append(header, 0, Vpn(tier * 512), kOrder4K, entries);
        RecordReader reader(bytes);
        heat.apply(*reader.next(), true);
      }
    for (std::uint8_t t = 0; t < 3; ++t)
      tiers.push_back({TierId(t), PageCount(8 + free), PageCount(8), PageCount(free)});
  }
  [[nodiscard]] View view(std::uint64_t budget = 100) const {
    return {Epoch(1), heat, tiers, Threshold{}, Feedback{}, Budget{PageCount(budget)}};
  }
};

TEST(PluginWire, AViewHasWhatThePolicyInterfacePromises) {
  World world;
  world.tiers[1].bandwidth_mbps = 7;
  const ShownView shown = show(world.view());
  ASSERT_EQ(shown.view.tier_count, 3u);
  EXPECT_EQ(shown.view.budget, 100u);
  EXPECT_EQ(shown.tiers[1].bandwidth_mbps, 7u);
  EXPECT_EQ(shown.tiers[0].hottest.count, 0u);
  EXPECT_EQ(shown.tiers[0].coldest.count, 8u);
  EXPECT_EQ(shown.tiers[2].hottest.count, 8u);
  EXPECT_EQ(shown.tiers[2].coldest.count, 0u);
  std::set<std::uint64_t> addresses;
  for (std::size_t t = 0; t < 3; ++t) {
    const thermocline_tier& tier = shown.tiers[t];
    std::uint64_t counted = 0;
    for (const std::uint64_t pages : tier.heat) counted += pages;
    EXPECT_EQ(counted, 8u);
    for (std::uint64_t i = 0; i < tier.hottest.count; ++i) {
      const thermocline_page& page = tier.hottest.pages[i];
      EXPECT_EQ(page.tier, t);
      EXPECT_TRUE(i == 0 || page.heat <= tier.hottest.pages[i - 1].heat);
      EXPECT_EQ(&shown.pages[page.id], &page);
      EXPECT_TRUE(addresses.insert(page.address).second) << "in two lists";
    }
    for (std::uint64_t i = 0; i < tier.coldest.count; ++i) {
      const thermocline_page& page = tier.coldest.pages[i];
      EXPECT_TRUE(i == 0 || page.heat >= tier.coldest.pages[i - 1].heat);
      EXPECT_EQ(&shown.pages[page.id], &page);
      EXPECT_TRUE(addresses.insert(page.address).second) << "in two lists";
    }
  }
  EXPECT_GE(shown.tiers[1].hottest.count, 3u);
  EXPECT_GE(shown.tiers[1].coldest.count, 3u);
  // Lists end with the budget.
  const ShownView little = show(world.view(2));
  EXPECT_EQ(little.tiers[0].coldest.count, 2u);
}

TEST(PluginWire, AColdTierInTheMiddleCanStillGiveWay) {
  HeatMap heat;
  const TierId of_node[] = {TierId(0), TierId(1), TierId(2)};
  heat.set_node_tiers(of_node);
  std::vector<std::byte> bytes;
  RecordHeader header;
  header.asid = Asid(1);
  RecordWriter(bytes).append(
      header, 0, Vpn(0), kOrder4K,
      std::vector<EntryObservation>(8, {NodeId(1), true, true, false, false}));
  RecordReader reader(bytes);
  heat.apply(*reader.next(), true);
  World other;
  const ShownView shown =
      show({Epoch(1), heat, other.tiers, Threshold{}, Feedback{}, Budget{PageCount(100)}});
  EXPECT_EQ(shown.tiers[1].hottest.count, 0u);
  EXPECT_EQ(shown.tiers[1].coldest.count, 8u);
}

TEST(PluginWire, AViewComesOutAsItWentIn) {
  const World world;
  const ShownView shown = show(world.view());
  const std::vector<std::byte> bytes = encode(shown);
  const auto decoded = decode_view(bytes);
  ASSERT_TRUE(decoded) << decoded.error().message;
  ASSERT_EQ(decoded->pages.size(), shown.pages.size());
  EXPECT_EQ(std::memcmp(decoded->pages.data(), shown.pages.data(),
                        shown.pages.size() * sizeof(thermocline_page)),
            0);
  EXPECT_EQ(decoded->tiers[1].coldest.pages[0].address, shown.tiers[1].coldest.pages[0].address);
  EXPECT_EQ(encode(*decoded), bytes);
  for (std::size_t length = 0; length < bytes.size(); length += 7)
    EXPECT_FALSE(decode_view(std::span(bytes).first(length)));
}

class PlanCheck : public testing::Test {
 protected:
  Result<Plan> plan(std::vector<thermocline_move> moves, std::uint64_t budget = 100) {
    reply_.moves = std::move(moves);
    return to_plan(world_->view(budget), show(world_->view(budget)), reply_, 2);
  }
  std::string refusal(std::vector<thermocline_move> moves, std::uint64_t budget = 100) {
    const auto made = plan(std::move(moves), budget);
    return made ? "accepted" : made.error().message;
  }
  /// Id of the first page of a list.
  [[nodiscard]] std::uint32_t coldest(std::size_t tier) const {
    return show(world_->view()).tiers[tier].coldest.pages[0].id;
  }
  [[nodiscard]] std::uint32_t hottest(std::size_t tier) const {
    return show(world_->view()).tiers[tier].hottest.pages[0].id;
  }
  std::unique_ptr<World> world_ = std::make_unique<World>();
  PlanReply reply_;
};

TEST_F(PlanCheck, AGoodPlanBecomesMoves) {
  const auto made = plan({{hottest(1), 0, 1, 0}, {coldest(0), 1, 0, 0}});
  ASSERT_TRUE(made) << made.error().message;
  ASSERT_EQ(made->promotions.size(), 1u);
  ASSERT_EQ(made->demotions.size(), 1u);
  const Move& up = made->promotions[0];
  EXPECT_EQ(up.asid, Asid(1));
  EXPECT_EQ(up.vpn, Vpn(512 + 7));
  EXPECT_EQ(up.from, TierId(1));
  EXPECT_EQ(up.to, TierId(0));
  EXPECT_EQ(up.rule, 1);
  EXPECT_EQ(up.heat, world_->heat.look_up(up.asid, up.vpn)->first);
  EXPECT_EQ(made->demotions[0].vpn, Vpn(0));
}

TEST_F(PlanCheck, EveryRuleIsHeldTo) {
  const auto all = static_cast<std::uint32_t>(show(world_->view()).pages.size());
  EXPECT_THAT(refusal({{all, 0, 0, 0}}), HasSubstr("move 1 of 1 is of page"));
  EXPECT_THAT(refusal({{~0u, 0, 0, 0}}), HasSubstr("is of page 4294967295"));
  EXPECT_THAT(refusal({{hottest(1), 3, 0, 0}}), HasSubstr("goes to tier 3, where there are 3"));
  EXPECT_THAT(refusal({{hottest(1), 1, 0, 0}}), HasSubstr("on which the page lies"));
  EXPECT_THAT(refusal({{hottest(1), 0, 2, 0}}), HasSubstr("by rule 2"));
  EXPECT_THAT(refusal({{hottest(1), 0, 0, 0}, {hottest(1), 2, 0, 0}}),
              HasSubstr("move 2 of 2 is of a page that has been moved already"));
  EXPECT_THAT(refusal({{coldest(0), 1, 0, 0}, {coldest(0) + 1, 1, 0, 0}}, 1),
              HasSubstr("move 2 of 2"));
  EXPECT_EQ(refusal({{coldest(0), 1, 0, 0}, {coldest(0) + 1, 1, 0, 0}}), "accepted");
  for (const std::uint64_t eighths : {std::uint64_t{65}, ~std::uint64_t{0}}) {
    reply_.window_eighths = eighths;
    EXPECT_THAT(refusal({}), HasSubstr("eighths"));
  }
}

TEST_F(PlanCheck, ThePluginIsToldOfAChange) {
  View view = world_->view();
  EXPECT_EQ(show(view).view.changed, 0u);
  view.feedback.changed = true;
  EXPECT_EQ(decode_view(encode(show(view)))->view.changed, 1u);
}

TEST_F(PlanCheck, WindowsAreSteeredUnlessThePluginDoes) {
  View view = world_->view();
  view.feedback.present_page_windows = PageCount(1000);
  view.feedback.accessed_page_windows = PageCount(1000);
  EXPECT_EQ(to_plan(view, show(view), PlanReply{0, {}}, 1)->advice.window_eighths, 4u);
  view.feedback.accessed_page_windows = PageCount(1);
  EXPECT_EQ(to_plan(view, show(view), PlanReply{0, {}}, 1)->advice.window_eighths, 16u);
  EXPECT_EQ(to_plan(view, show(view), PlanReply{9, {}}, 1)->advice.window_eighths, 9u);
}

TEST_F(PlanCheck, WhatHasNoRoomIsLeftOutFromTheEnd) {
  // Two are free on tier 0; the third and fourth come for the two that go.
  const std::uint32_t up = hottest(2), down = coldest(0);
  const auto made = plan({{up, 0, 0, 0},
                          {up + 1, 0, 0, 0},
                          {up + 2, 0, 0, 0},
                          {down, 2, 0, 0},
                          {up + 3, 0, 0, 0},
                          {up + 4, 0, 0, 0}});
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(made->promotions.size(), 3u);
  EXPECT_EQ(made->demotions.size(), 1u);
  // A full machine can still exchange.
  world_ = std::make_unique<World>(0);
  const auto exchange = plan({{hottest(2), 0, 0, 0}, {coldest(0), 2, 0, 0}});
  ASSERT_TRUE(exchange);
  EXPECT_EQ(exchange->promotions.size() + exchange->demotions.size(), 2u);
  // One that can't go keeps its place, and who wanted it stays as well.
  const auto stuck = plan({{hottest(2), 0, 0, 0}, {coldest(0), 1, 0, 0}});
  ASSERT_TRUE(stuck);
  EXPECT_THAT(stuck->promotions, IsEmpty());
  EXPECT_THAT(stuck->demotions, IsEmpty());
}

}  // namespace
}  // namespace thermocline::plugin

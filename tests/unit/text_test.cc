// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thermocline {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ParseBytes, AcceptsBinaryUnits) {
  EXPECT_EQ(parse_bytes("512M")->get(), 512u << 20);
  EXPECT_EQ(parse_bytes("1GiB")->get(), 1u << 30);
  EXPECT_EQ(parse_bytes("4096")->get(), 4096u);
  EXPECT_EQ(parse_bytes(" 64 K ")->get(), 65536u);
}

TEST(ParseBytes, RefusesNonsenseWithAnExample) {
  for (const char* text : {"", "M", "1X", "-1", "1.5G", "99999999999G"}) {
    const auto result = parse_bytes(text);
    ASSERT_FALSE(result) << text;
    EXPECT_EQ(result.error().kind, ErrorKind::kUsage);
    EXPECT_THAT(result.error().message, HasSubstr(text));
  }
}

TEST(ParseDuration, NeedsAUnit) {
  EXPECT_EQ(parse_duration("250ms")->count(), 250'000'000);
  EXPECT_EQ(parse_duration("5min")->count(), 300'000'000'000);
  EXPECT_FALSE(parse_duration("250"));
}

TEST(ParseList, ReadsTheKernelsFormat) {
  EXPECT_THAT(*parse_list("0-2,8\n"), ElementsAre(0u, 1u, 2u, 8u));
  EXPECT_THAT(*parse_list(""), ElementsAre());
  EXPECT_FALSE(parse_list("3-1"));
  EXPECT_FALSE(parse_list("0-99999999999"));
}

TEST(FormatList, IsTheInverse) {
  const std::vector<std::uint32_t> numbers{0, 1, 2, 8};
  EXPECT_EQ(format_list(numbers), "0-2,8");
}

TEST(NearestWord, FindsATypo) {
  const std::vector<std::string> keys{"epoch", "window", "rate_limit"};
  EXPECT_EQ(nearest_word("epoc", keys), "epoch");
  EXPECT_EQ(nearest_word("rate_limits", keys), "rate_limit");
  EXPECT_EQ(nearest_word("zzzzzz", keys), "");
}

TEST(Text, PrintableKeepsLettersAndNothingElse) {
  EXPECT_EQ(printable("redis-server"), "redis-server");
  EXPECT_EQ(printable("\xc3\xbc \xe2\x82\xac \xf0\x9f\x98\x80"),
            "\xc3\xbc \xe2\x82\xac \xf0\x9f\x98\x80");
  EXPECT_EQ(printable("a\nb\x7f\x1b"), "a?b??");
  EXPECT_EQ(printable("\xff\xc0\x80"), "???");       // never valid; longer than needed
  EXPECT_EQ(printable("\xed\xa0\x80"), "???");       // a surrogate
  EXPECT_EQ(printable("\xf4\x90\x80\x80"), "????");  // beyond the last letter
  EXPECT_EQ(printable("\xe2\x82"), "??");            // cut
  EXPECT_EQ(printable("\xc2\x9b"), "?");             // a control character of two bytes
}

TEST(Text, UsageSentence) {
  EXPECT_EQ(usage_sentence("A subcommand is\nrequired\n", "tool"),
            "a subcommand is required; see tool --help");
  EXPECT_EQ(usage_sentence("Could not convert: --smp = x", "tool"),
            "--smp wants a number in range, not 'x'; see tool --help");
  EXPECT_EQ(usage_sentence("--node: wants a node's number, not 'x'", "tool"),
            "--node wants a node's number, not 'x'; see tool --help");
  EXPECT_EQ(usage_sentence("FILE is required", "tool x"), "FILE is required; see tool x --help");
  EXPECT_EQ(usage_sentence("--n: bad", "tool"), "--n: bad; see tool --help");
}

TEST(Text, AsciiTomlKeepsOddLettersFromTheParser) {
  EXPECT_EQ(ascii_toml("a = 1\n# caf\xc3\xa9\nb = 2"), "a = 1\n# caf??\nb = 2");
  EXPECT_EQ(ascii_toml(""), "");
  EXPECT_EQ(ascii_toml("\n\n"), "\n\n");
  const auto value = ascii_toml("a = 1\nb = \"\xc3\xa9\"");
  ASSERT_FALSE(value);
  EXPECT_EQ(value.error().line, 2u);
  EXPECT_EQ(value.error().column, 6u);
  EXPECT_FALSE(ascii_toml("a = 1 # \xc3\xa9")) << "not a comment line";
  EXPECT_FALSE(ascii_toml("a = \"\"\"\n# \xc3\xa9\n\"\"\"")) << "part of a value";
  EXPECT_FALSE(ascii_toml("[\"\"\"\"x\n# \xef\xbb\xbf"));
}

}  // namespace
}  // namespace thermocline

// SPDX-License-Identifier: Apache-2.0
#include "base/output.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/system.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;

class WriteWhole : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "tc_output_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
  }
  void TearDown() override { fs::remove_all(dir_); }
  static std::string read(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  std::size_t entries() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(dir_), fs::directory_iterator()));
  }
  fs::path dir_;
};

TEST_F(WriteWhole, MakesAndReplacesAFileAndKeepsItsPermissions) {
  const fs::path file = dir_ / "f";
  ASSERT_TRUE(write_whole(file, "one"));
  EXPECT_EQ(read(file), "one");
  ASSERT_EQ(::chmod(file.c_str(), 0600), 0);
  ASSERT_TRUE(write_whole(file, "two"));
  EXPECT_EQ(read(file), "two");
  struct stat info {};
  ASSERT_EQ(::stat(file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  EXPECT_EQ(entries(), 1u) << "nothing is left beside it";
}

TEST_F(WriteWhole, APipeStaysAPipe) {
  const fs::path pipe = dir_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const UniqueFd reader(::open(pipe.c_str(), O_RDONLY | O_NONBLOCK));
  ASSERT_TRUE(write_whole(pipe, "through"));
  char text[16] = {};
  EXPECT_EQ(::read(reader.get(), text, sizeof text), 7);
  EXPECT_STREQ(text, "through");
  EXPECT_TRUE(fs::is_fifo(pipe)) << "what the path named was destroyed";
  EXPECT_EQ(entries(), 1u);
}

TEST_F(WriteWhole, GoesThroughSymbolicLinks) {
  fs::create_directory(dir_ / "far");
  std::ofstream(dir_ / "far" / "f") << "old";
  fs::create_symlink("far/f", dir_ / "link");
  ASSERT_TRUE(write_whole(dir_ / "link", "new"));
  EXPECT_TRUE(fs::is_symlink(dir_ / "link"));
  EXPECT_EQ(read(dir_ / "far" / "f"), "new");

  fs::create_symlink("far/later", dir_ / "to-nothing");
  ASSERT_TRUE(write_whole(dir_ / "to-nothing", "made"));
  EXPECT_TRUE(fs::is_symlink(dir_ / "to-nothing"));
  EXPECT_EQ(read(dir_ / "far" / "later"), "made");
}

TEST_F(WriteWhole, SaysWhatItCantWrite) {
  EXPECT_THAT(write_whole(dir_, "x").error().message, testing::HasSubstr("Is a directory"));
  EXPECT_FALSE(write_whole(dir_ / "none" / "f", "x"));
  fs::create_symlink("loop", dir_ / "loop");
  EXPECT_FALSE(write_whole(dir_ / "loop", "x"));
}

TEST(FinishStdout, SaysWhenTheDiskIsFull) {
  // In a child: its standard output is the device that is always full.
  EXPECT_EXIT(
      {
        const int full = ::open("/dev/full", O_WRONLY);
        ::dup2(full, STDOUT_FILENO);
        std::fputs("lost", stdout);
        const Status first = finish_stdout();
        const Status second = finish_stdout();
        std::_Exit(!first && !second ? 7 : 0);
      },
      testing::ExitedWithCode(7), "");
  EXPECT_TRUE(finish_stdout());
}

}  // namespace
}  // namespace thermocline

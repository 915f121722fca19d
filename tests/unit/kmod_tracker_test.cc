// SPDX-License-Identifier: Apache-2.0
// The tracker of thermocline.ko against a scripted module: what it asks for, and what it makes of
// each answer.
#include "tracking/kmod_tracker.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <deque>

#include "tracking/record.h"
#include "uapi/thermocline.h"

namespace thermocline {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// What the module answers to one SCAN.
struct Answer {
  int rc = 0;
  std::uint64_t bytes = 0, resume_page = 0;
};

class ScriptedModule : public System {
 public:
  Result<std::string> read_file(const std::string& p) const override { return none(p); }
  Result<std::vector<std::string>> list_dir(const std::string& p) const override { return none(p); }
  bool exists(const std::string&) const override { return false; }
  Result<std::string> read_link_name(const std::string& p) const override { return none(p); }
  Nanoseconds now() const override { return {}; }
  Nanoseconds process_cpu_time() const override { return {}; }
  long move_pages(Pid, std::span<void* const>, std::span<const int>, std::span<int>, int) override {
    return -ENOSYS;
  }
  Result<UniqueFd> pidfd_open(Pid) override { return none("pidfd"); }
  bool pidfd_exited(int) const override { return false; }

  Result<UniqueFd> open_device(const std::string& path, int) override {
    if (open_error != 0) return fail_errno(open_error, path);
    return UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
  }
  int ioctl(int, unsigned long request, void* argument) override {
    if (request == THERMOCLINE_IOC_INFO) {
      *static_cast<thermocline_info*>(argument) = info;
      return 0;
    }
    if (request == THERMOCLINE_IOC_ATTACH) {
      attached = *static_cast<thermocline_attach*>(argument);
      return attach_rc;
    }
    auto& scan = *static_cast<thermocline_scan*>(argument);
    scans.push_back(scan);
    if (answers.empty()) return -EIO;
    const Answer answer = answers.front();
    answers.pop_front();
    if (answer.rc != 0) return answer.rc;  // as the module: nothing is written back
    std::memset(reinterpret_cast<void*>(scan.buffer), 'a' + static_cast<int>(scans.size()),
                answer.bytes);
    scan.bytes = answer.bytes;
    scan.records = 1;
    scan.entries = 512;
    scan.accessed = 7;
    scan.skipped_pages = 3;
    scan.elapsed_ns = 1000;
    scan.max_lock_ns = 100 * scans.size();
    scan.resume_page = answer.resume_page;
    return 0;
  }

  int open_error = 0, attach_rc = 0;
  thermocline_info info = [] {
    thermocline_info i{};
    i.abi_version = THERMOCLINE_ABI_VERSION;
    i.record_version = THERMOCLINE_RECORD_VERSION;
    i.features = THERMOCLINE_FEATURE_SCAN;
    return i;
  }();
  thermocline_attach attached{};
  std::deque<Answer> answers;
  std::vector<thermocline_scan> scans;

 private:
  static tl::unexpected<Error> none(const std::string& what) {
    return fail(ErrorKind::kNotFound, "no {}", what);
  }
};

class KmodTrackerTest : public testing::Test {
 protected:
  std::unique_ptr<Tracker> make(const TrackerOptions& options = {}) {
    auto tracker = kmod_tracker_factory().make(module_, options);
    EXPECT_TRUE(tracker->get()->attach(process_));
    return std::move(*tracker);
  }
  Result<ScanStats> scan(Tracker& tracker, const ScanRequest& request) {
    return tracker.scan(request, [this](std::span<const std::byte> bytes) {
      received_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    });
  }
  ScanRequest whole() const {
    ScanRequest request;
    request.asid = process_.asid;
    return request;
  }
  ScriptedModule module_;
  ProcessIdentity process_{Pid(42), 4711, Asid(9), "redis-server"};
  std::string received_;
};

TEST_F(KmodTrackerTest, AttachesToTheProcessAndItsStartTime) {
  (void)make();
  EXPECT_EQ(module_.attached.pid, 42);
  EXPECT_EQ(module_.attached.start_ticks, 4711u);
  EXPECT_EQ(module_.attached.asid, 9u);
}

TEST_F(KmodTrackerTest, AsksAgainUntilThePassIsComplete) {
  const auto tracker = make();
  module_.answers = {{0, 3, 1000}, {0, 0, 2000}, {0, 2, 0}};
  const auto stats = scan(*tracker, whole());
  ASSERT_TRUE(stats) << stats.error().message;
  ASSERT_EQ(module_.scans.size(), 3u);
  EXPECT_EQ(module_.scans[0].resume_page, 0u);
  EXPECT_EQ(module_.scans[1].resume_page, 1000u);
  EXPECT_EQ(module_.scans[2].resume_page, 2000u);
  EXPECT_EQ(received_, "bbbdd") << "each buffer once, in order, nothing of the empty one";
  EXPECT_EQ(stats->records, 3u);
  EXPECT_EQ(stats->entries, 3 * 512u);
  EXPECT_EQ(stats->accessed, 21u);
  EXPECT_EQ(stats->bytes, 5u);
  EXPECT_EQ(stats->skipped, PageCount(9));
  EXPECT_EQ(stats->elapsed, Nanoseconds(3000));
  EXPECT_EQ(stats->longest_lock, Nanoseconds(300));
}

/// The module writes nothing back with an error: what is in the request then is the call before.
TEST_F(KmodTrackerTest, AnInterruptedScanIsAnErrorNotAnEmptyPass) {
  const auto tracker = make();
  module_.answers = {{-EINTR, 0, 0}};
  EXPECT_FALSE(scan(*tracker, whole()));
  EXPECT_EQ(received_, "");

  module_.answers = {{0, 3, 1000}, {-EINTR, 0, 0}};
  EXPECT_FALSE(scan(*tracker, whole()));
  EXPECT_EQ(received_.size(), 3u) << "what was whole before is handed on, once";
  EXPECT_EQ(module_.scans.size(), 3u) << "nobody asks again";
}

TEST_F(KmodTrackerTest, AnAddressSpaceThatIsGoneIsNotFound) {
  const auto tracker = make();
  module_.answers = {{0, 3, 1000}, {-ESRCH, 0, 0}};
  const auto stats = scan(*tracker, whole());
  ASSERT_FALSE(stats);
  EXPECT_EQ(stats.error().kind, ErrorKind::kNotFound);
  tracker->detach(process_.asid);
  const auto detached = scan(*tracker, whole());
  ASSERT_FALSE(detached);
  EXPECT_EQ(detached.error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(module_.scans.size(), 2u);
}

TEST_F(KmodTrackerTest, PassesOnRangesFlagsAndWindow) {
  TrackerOptions options;
  options.flush = true;
  const auto tracker = make(options);
  const std::vector<ScanRange> ranges{{Vpn(10), PageCount(5)}, {Vpn(100), PageCount(1)}};
  ScanRequest request = whole();
  request.ranges = ranges;
  request.epoch = Epoch(12);
  request.window = Nanoseconds(34);
  module_.answers = {{0, 0, 0}, {0, 0, 0}};
  ASSERT_TRUE(scan(*tracker, request));
  const thermocline_scan& asked = module_.scans.front();
  EXPECT_EQ(asked.flags, THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH);
  EXPECT_EQ(asked.range_count, 2u);
  EXPECT_EQ(asked.epoch, 12u);
  EXPECT_EQ(asked.window_ns, 34u);
  EXPECT_GE(asked.buffer_size, THERMOCLINE_SCAN_MIN_BUFFER);
  request.clear = false;
  ASSERT_TRUE(scan(*tracker, request));
  EXPECT_EQ(module_.scans.back().flags, 0u) << "a flush without clearing is refused";
}

TEST_F(KmodTrackerTest, AModuleThatCannotBeUsedIsSaidToBe) {
  const TrackerFactory factory = kmod_tracker_factory();
  EXPECT_TRUE(factory.probe(module_));
  const auto refusal = [&] {
    const Status status = factory.probe(module_);
    return status ? std::string("it works") : status.error().message;
  };
  module_.info.abi_version = THERMOCLINE_ABI_VERSION + 1;
  EXPECT_THAT(refusal(), HasSubstr("interface"));
  module_.info.abi_version = THERMOCLINE_ABI_VERSION;
  module_.info.features = 0;
  EXPECT_THAT(refusal(), HasSubstr("can't scan"));
  module_.open_error = ENOENT;
  EXPECT_THAT(refusal(), HasSubstr("insmod"));
  module_.open_error = EACCES;
  EXPECT_THAT(refusal(), HasSubstr("root"));
}

}  // namespace
}  // namespace thermocline

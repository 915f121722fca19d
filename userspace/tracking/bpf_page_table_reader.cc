// SPDX-License-Identifier: Apache-2.0
// Loads bpf/page_tables.bpf.c and runs it. libbpf makes the bpf(2) calls by itself, so this is not
// behind System; what the programs answer is checked here, and the tests of the tracker bring their
// own tables.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstring>

#include "base/text.h"
#include "tracking/bpf/page_tables.h"
#include "tracking/page_table_reader.h"

// The compiled programs; THERMOCLINE_BPF_OBJECT is set by the build.
__asm__(
    ".pushsection .rodata\n"
    ".balign 8\n"
    "thermocline_bpf_begin: .incbin \"" THERMOCLINE_BPF_OBJECT
    "\"\n"
    "thermocline_bpf_end:\n"
    ".popsection\n");
extern "C" const char thermocline_bpf_begin[], thermocline_bpf_end[];

namespace thermocline {

namespace {

constexpr std::uint64_t kGib = std::uint64_t{1} << 30;

/// include/linux/mm.h, the same in all kernels that we know.
constexpr std::uint64_t kPfnMap = 0x400, kLocked = 0x2000, kIo = 0x4000, kHugeTlb = 0x400000,
                        kMixedMap = 0x10000000;

/// What libbpf last complained about; it tells more than errno.
std::string complaint;

int keep_complaint(libbpf_print_level level, const char* format, va_list arguments) {
  if (level != LIBBPF_WARN || !complaint.empty()) return 0;
  std::array<char, 256> text;
  const int n = std::vsnprintf(text.data(), text.size(), format, arguments);
  complaint = printable(trim(std::string_view(text.data(), n < 0 ? 0 : std::strlen(text.data()))));
  return n;
}

tl::unexpected<Error> refused(const std::string& what) {
  const int error = errno;
  const std::string more = complaint.empty() ? "" : fmt::format(" ({})", complaint);
  if (error == EPERM || error == EACCES)
    return fail(
        ErrorKind::kPermission,
        "{}: not allowed{}: run as root, or with CAP_BPF and CAP_PERFMON, on a kernel that is "
        "not locked down",
        what, more);
  return fail(ErrorKind::kUnsupported, "{}: {}{}", what, errno_text(error), more);
}

template <class T, void (*destroy)(T*)>
struct Destroy {
  void operator()(T* p) const { destroy(p); }
};
void destroy_link(bpf_link* link) {
  bpf_link__destroy(link);
}
using Object = std::unique_ptr<bpf_object, Destroy<bpf_object, bpf_object__close>>;
using Link = std::unique_ptr<bpf_link, Destroy<bpf_link, destroy_link>>;

/// A map's memory.
class Mapping {
 public:
  Mapping() = default;
  Mapping(int fd, std::size_t bytes, int protection)
      : bytes_((bytes + kPageSize - 1) / kPageSize * kPageSize),
        data_(::mmap(nullptr, bytes_, protection, MAP_SHARED, fd, 0)) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (data_ != MAP_FAILED) ::munmap(data_, bytes_);
  }
  [[nodiscard]] void* data() const { return data_ == MAP_FAILED ? nullptr : data_; }

 private:
  std::size_t bytes_ = 0;
  void* data_ = MAP_FAILED;
};

class Reader;

class BpfPageTables final : public PageTables {
 public:
  BpfPageTables(Reader& reader, Pid pid, Link walk, Link list)
      : reader_(reader), pid_(pid), walk_(std::move(walk)), list_(std::move(list)) {}
  Result<std::vector<MemoryArea>> areas() override;
  Result<TableRun> read(Vpn from, Vpn to) override;
  [[nodiscard]] Status learn_address_space();

 private:
  [[nodiscard]] tl::unexpected<Error> gone() const {
    return fail(ErrorKind::kNotFound, "process {} has exited or runs another program", pid_.get());
  }
  Reader& reader_;
  Pid pid_;
  Link walk_, list_;
  std::uint64_t mm_ = 0;
};

class Reader final : public PageTableReader {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Reader>> make(Bytes physical_end) {
    libbpf_set_print(keep_complaint);
    complaint.clear();
    auto reader = std::make_unique<Reader>();
    bpf_object_open_opts options{};
    options.sz = sizeof options;
    options.object_name = "thermocline";
    reader->object_.reset(bpf_object__open_mem(
        thermocline_bpf_begin,
        static_cast<std::size_t>(thermocline_bpf_end - thermocline_bpf_begin), &options));
    if (!reader->object_) return refused("the BPF programs can't be opened");
    if (bpf_object__load(reader->object_.get()) != 0)
      return refused("the kernel takes no BPF programs from this user");
    const bpf_object* object = reader->object_.get();
    reader->control_ = std::make_unique<Mapping>(bpf_object__find_map_fd_by_name(object, "control"),
                                                 sizeof(tc_bpf_control), PROT_READ | PROT_WRITE);
    reader->tables_ = std::make_unique<Mapping>(bpf_object__find_map_fd_by_name(object, "tables"),
                                                std::size_t{TC_BPF_SLOTS} * kPageSize, PROT_READ);
    if (reader->control_->data() == nullptr || reader->tables_->data() == nullptr)
      return refused("the maps of the BPF programs can't be mapped");
    TC_TRY(reader->find_direct_map(physical_end));
    return reader;
  }

  Result<std::unique_ptr<PageTables>> open(Pid pid) override {
    TC_ASSIGN(Link walk, attach("walk_task", pid));
    TC_ASSIGN(Link list, attach("list_areas", pid));
    auto tables = std::make_unique<BpfPageTables>(*this, pid, std::move(walk), std::move(list));
    TC_TRY(tables->learn_address_space());
    return tables;
  }

  [[nodiscard]] tc_bpf_control& control() const {
    return *static_cast<tc_bpf_control*>(control_->data());
  }
  [[nodiscard]] std::span<const std::uint64_t, kTableEntries> table(std::size_t slot) const {
    return std::span<const std::uint64_t, kTableEntries>(
        static_cast<const std::uint64_t*>(tables_->data()) + slot * kTableEntries, kTableEntries);
  }
  [[nodiscard]] std::uint64_t direct_map() const { return direct_map_; }

  /// Runs an iterator to its end; what it writes goes to `output`.
  [[nodiscard]] static Status run(const bpf_link* link, std::vector<std::byte>* output) {
    const UniqueFd fd(bpf_iter_create(bpf_link__fd(link)));
    if (!fd) return refused("a BPF program can't be run");
    std::array<std::byte, 32768> buffer;
    for (;;) {
      const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == ESRCH) return {};  // no such task: nothing to tell
      if (n < 0) return fail_errno(errno, "a BPF program failed");
      if (n == 0) return {};
      if (output != nullptr) output->insert(output->end(), buffer.begin(), buffer.begin() + n);
    }
  }

 private:
  [[nodiscard]] Result<Link> attach(const char* program, Pid pid) const {
    complaint.clear();
    bpf_iter_link_info info{};
    info.task.tid = static_cast<std::uint32_t>(pid.get());
    bpf_iter_attach_opts options{};
    options.sz = sizeof options;
    options.link_info = &info;
    options.link_info_len = sizeof(info);
    Link link(bpf_program__attach_iter(bpf_object__find_program_by_name(object_.get(), program),
                                       &options));
    if (!link && errno == ESRCH)
      return fail(ErrorKind::kNotFound, "there is no process {}", pid.get());
    if (!link)
      return refused(fmt::format("can't look at the page tables of process {}", pid.get()));
    return link;
  }

  [[nodiscard]] Status find_direct_map(Bytes physical_end) {
    TC_ASSIGN(const Link self, attach("walk_task", Pid(::getpid())));
    tc_bpf_control& c = control();
    c = {};
    c.what = TC_BPF_FIND;
    c.gibs = (physical_end.get() + kGib - 1) / kGib;
    TC_TRY(run(self.get(), nullptr));
    if (c.found_base == 0)
      return fail(ErrorKind::kUnsupported,
                  "the kernel's direct map was not found: is its memory encrypted, or does the "
                  "kernel not lie in it?");
    direct_map_ = c.found_base;
    return {};
  }

  Object object_;
  std::unique_ptr<Mapping> control_, tables_;
  std::uint64_t direct_map_ = 0;
};

Status BpfPageTables::learn_address_space() {
  tc_bpf_control& c = reader_.control();
  c = {};
  c.direct_map = reader_.direct_map();
  TC_TRY(reader_.run(walk_.get(), nullptr));
  if (c.ran == 0 || c.found_mm == 0) return gone();
  mm_ = c.found_mm;
  return {};
}

Result<std::vector<MemoryArea>> BpfPageTables::areas() {
  std::vector<std::byte> bytes;
  TC_TRY(reader_.run(list_.get(), &bytes));
  std::vector<MemoryArea> areas;
  Vpn last(0);
  for (std::size_t at = 0; at + sizeof(tc_bpf_area) <= bytes.size(); at += sizeof(tc_bpf_area)) {
    tc_bpf_area raw;
    std::memcpy(&raw, bytes.data() + at, sizeof(raw));
    MemoryArea area;
    area.first = Vpn::of_address(raw.start);
    area.end = Vpn::of_address(raw.end);
    if (area.first < last || area.end <= area.first) continue;  // it changed while it was listed
    last = area.end;
    area.unscannable = (raw.flags & (kPfnMap | kIo | kHugeTlb | kMixedMap)) != 0;
    area.file = raw.file != 0;
    area.placed = raw.placed != 0;
    area.locked = (raw.flags & kLocked) != 0;
    areas.push_back(area);
  }
  if (areas.empty()) return gone();
  return areas;
}

Result<TableRun> BpfPageTables::read(Vpn from, Vpn to) {
  tc_bpf_control& c = reader_.control();
  c.what = TC_BPF_WALK;
  c.mm = mm_;
  c.direct_map = reader_.direct_map();
  c.from = from.address();
  c.to = to.address();
  c.ran = c.found_mm = c.slots = c.next = 0;
  TC_TRY(reader_.run(walk_.get(), nullptr));
  if (c.ran == 0 || c.found_mm != mm_) return gone();
  if (c.next <= c.from || c.slots > TC_BPF_SLOTS)
    return fail(ErrorKind::kFailure, "the BPF program that reads page tables got nowhere");
  TableRun run;
  run.next = Vpn::of_address(c.next);
  run.second_mmu = c.second_mmu != 0;
  for (std::size_t slot = 0; slot < c.slots; ++slot)
    run.pages.push_back({Vpn::of_address(c.base[slot] & ~std::uint64_t{1}), (c.base[slot] & 1) != 0,
                         reader_.table(slot)});
  return run;
}

}  // namespace

Result<std::unique_ptr<PageTableReader>> make_bpf_page_table_reader(System& system,
                                                                    Bytes physical_end) {
  if (!system.exists("/sys/kernel/btf/vmlinux"))
    return fail(ErrorKind::kUnsupported,
                "this kernel has no BTF (/sys/kernel/btf/vmlinux): it needs CONFIG_DEBUG_INFO_BTF, "
                "as Debian's kernels have");
  TC_ASSIGN(auto reader, Reader::make(physical_end));
  return reader;
}

}  // namespace thermocline

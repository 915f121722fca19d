// SPDX-License-Identifier: Apache-2.0
#include "target.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <stdexcept>

namespace thermocline::labtest {

namespace {

constexpr std::size_t kBytes = Target::kPages * kPageSize;
/// Between two regions, so that the kernel doesn't make one mapping of them.
constexpr std::size_t kGap = 512 * kPageSize;

/// The kernel collects new pages, 15 on each CPU (31 since 6.13), before it puts them on an LRU
/// list, and pages on none can't be marked as idle. Others push out those of this CPU.
void put_new_pages_on_lists() {
  constexpr std::size_t kMore = 64;
  void* const more = ::mmap(nullptr, kMore * kPageSize, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (more != MAP_FAILED) ::munmap(more, kMore * kPageSize);
}

}  // namespace

Target::Target() {
  void* all = ::mmap(nullptr, kRegions * (kBytes + kGap), PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) throw std::runtime_error("mmap");
  for (std::size_t i = 0; i < kRegions; ++i) {
    regions_[i] = static_cast<char*>(all) + i * (kBytes + kGap);
    if (::mmap(regions_[i], kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
               -1, 0) != regions_[i] ||
        ::madvise(regions_[i], kBytes, MADV_NOHUGEPAGE) != 0)
      throw std::runtime_error("mmap");
  }
  int orders[2], answers[2];
  if (::pipe2(orders, O_CLOEXEC) != 0 || ::pipe2(answers, O_CLOEXEC) != 0)
    throw std::runtime_error("pipe");
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("fork");
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(static_cast<std::size_t>(::sched_getcpu()), &here);
    ::sched_setaffinity(0, sizeof(here), &here);
    ::close(orders[1]);
    ::close(answers[0]);
    obey(orders[0], answers[1]);
  }
  ::close(orders[0]);
  ::close(answers[1]);
  orders_ = orders[1];
  answers_ = answers[0];
}

Target::~Target() {
  kill();
  ::close(orders_);
  ::close(answers_);
  ::munmap(regions_[0], kRegions * (kBytes + kGap));
}

Vpn Target::first(std::size_t region) const {
  return Vpn::of_address(reinterpret_cast<std::uintptr_t>(regions_[region]));
}

void Target::write_to(char* region, std::uint64_t step) const {
  // Twice another protection: the bits in the page tables stay, cached translations do not.
  ::mprotect(region, kBytes, PROT_READ);
  ::mprotect(region, kBytes, PROT_READ | PROT_WRITE);
  for (std::uint64_t p = 0; p < kPages; p += step)
    *static_cast<volatile char*>(region + p * kPageSize) = 1;
  put_new_pages_on_lists();
}

void Target::obey(int orders, int answers) const {
  Order order;
  while (::read(orders, &order, sizeof(order)) == sizeof(order)) {
    char* const region = regions_[order.region];
    if (order.what == 't' || order.what == 'b') {
      write_to(region, order.step);
    } else if (order.what == 'u') {
      ::munmap(region, kBytes);
    } else {
      // A closed pipe is the answer: both are close-on-exec.
      ::execlp("sleep", "sleep", "1000", nullptr);
      ::_exit(1);
    }
    if (::write(answers, "k", 1) != 1) break;
    pollfd next{orders, POLLIN, 0};
    while (order.what == 'b' && ::poll(&next, 1, 0) == 0) write_to(region, 1);
  }
  ::_exit(0);
}

void Target::tell(Order order) {
  char answer = 0;
  if (::write(orders_, &order, sizeof(order)) != sizeof(order))
    throw std::runtime_error("the target is gone");
  const ssize_t n = ::read(answers_, &answer, 1);
  if (order.what == 'x' ? n != 0 : n != 1) throw std::runtime_error("the target does not answer");
}

void Target::touch(std::size_t region, std::uint64_t step) {
  tell({'t', region, step});
}

void Target::keep_touching(std::size_t region) {
  tell({'b', region, 1});
}

void Target::unmap(std::size_t region) {
  tell({'u', region, 0});
}

void Target::exec() {
  tell({'x', 0, 0});
}

void Target::kill() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

}  // namespace thermocline::labtest

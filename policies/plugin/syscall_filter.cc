// SPDX-License-Identifier: Apache-2.0
#include "policies/plugin/syscall_filter.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <vector>

namespace thermocline::plugin {

#if defined(__x86_64__)

namespace {

constexpr unsigned kX32 = 0x40000000;  // calls of the x32 ABI, from there on

/// Memory, time, the process itself, and what is open.
constexpr unsigned kAlways[] = {SYS_read,
                                SYS_write,
                                SYS_readv,
                                SYS_writev,
                                SYS_pread64,
                                SYS_recvfrom,
                                SYS_sendto,
                                SYS_close,
                                SYS_fstat,
                                SYS_lseek,
                                SYS_poll,
                                SYS_ppoll,
                                SYS_brk,
                                SYS_mmap,
                                SYS_munmap,
                                SYS_mremap,
                                SYS_mprotect,
                                SYS_madvise,
                                SYS_futex,
                                SYS_set_robust_list,
                                SYS_rseq,
                                SYS_rt_sigaction,
                                SYS_rt_sigprocmask,
                                SYS_rt_sigreturn,
                                SYS_sigaltstack,
                                SYS_pause,
                                SYS_restart_syscall,
                                SYS_nanosleep,
                                SYS_clock_nanosleep,
                                SYS_clock_gettime,
                                SYS_clock_getres,
                                SYS_gettimeofday,
                                SYS_time,
                                SYS_getrusage,
                                SYS_sched_yield,
                                SYS_sched_getaffinity,
                                SYS_getpid,
                                SYS_gettid,
                                SYS_getuid,
                                SYS_geteuid,
                                SYS_getgid,
                                SYS_getegid,
                                SYS_uname,
                                SYS_sysinfo,  // qsort() asks how much memory there is
                                SYS_getrandom,
                                SYS_exit,
                                SYS_exit_group};
/// Refused, but no reason to end it: the C library asks the terminal, time zones and limits by
/// these without anybody's meaning harm, and goes on without an answer.
constexpr unsigned kRefused[] = {SYS_open,  SYS_openat,    SYS_ioctl,
                                 SYS_fcntl, SYS_prlimit64, SYS_getrlimit};
/// What goes before opening a file to read it.
constexpr unsigned kLooking[] = {SYS_stat,      SYS_lstat,      SYS_statx,    SYS_access,
                                 SYS_faccessat, SYS_faccessat2, SYS_readlink, SYS_readlinkat,
                                 SYS_getcwd,    SYS_getdents64, SYS_fadvise64};

class Program {
 public:
  Program() {
    load(offsetof(seccomp_data, arch));
    unless(BPF_JEQ, AUDIT_ARCH_X86_64, 1);
    end(SECCOMP_RET_KILL_PROCESS);
    load(offsetof(seccomp_data, nr));
    unless(BPF_JGE, kX32, 0);
    end(SECCOMP_RET_KILL_PROCESS);
  }
  void allow(unsigned call) {
    unless(BPF_JEQ, call, 0);
    end(SECCOMP_RET_ALLOW);
  }
  void refuse(unsigned call) {
    unless(BPF_JEQ, call, 0);
    end(SECCOMP_RET_ERRNO | EPERM);
  }
  /// When the argument at `index` has this value; or with BPF_JSET, when it has none of these bits.
  void allow_if(unsigned call, unsigned index, unsigned short test, unsigned value) {
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 4));
    load(static_cast<unsigned>(offsetof(seccomp_data, args) + 8 * index));
    unless(test, value, test == BPF_JSET ? 1 : 0);
    end(SECCOMP_RET_ALLOW);
    load(offsetof(seccomp_data, nr));
  }
  [[nodiscard]] std::span<sock_filter> finish() {
    end(SECCOMP_RET_KILL_PROCESS);
    return code_;
  }

 private:
  void load(unsigned at) { code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)); }
  void end(unsigned action) { code_.push_back(BPF_STMT(BPF_RET | BPF_K, action)); }
  /// Passes over the next instruction unless the test holds; `negate` = 1: when it does.
  void unless(unsigned short test, unsigned value, unsigned char negate) {
    code_.push_back(BPF_JUMP(static_cast<unsigned short>(BPF_JMP | test | BPF_K), value, negate,
                             static_cast<unsigned char>(1 - negate)));
  }
  std::vector<sock_filter> code_;
};

}  // namespace

Status limit_system_calls(MayOpen open) {
  Program program;
  for (const unsigned call : kAlways) program.allow(call);
  // abort() and the like: a signal to itself.
  program.allow_if(SYS_tgkill, 0, BPF_JEQ, static_cast<unsigned>(::getpid()));
  program.allow_if(SYS_fcntl, 1, BPF_JEQ, F_GETFD);
  program.allow_if(SYS_fcntl, 1, BPF_JEQ, F_GETFL);
  program.allow_if(SYS_ioctl, 1, BPF_JEQ, TCGETS);  // the C library, of what it prints to
  // fstat() of the C library.
  program.allow(SYS_newfstatat);
  if (open == MayOpen::kToRead) {
    constexpr unsigned kWriting = O_ACCMODE | O_CREAT | O_TRUNC;
    program.allow_if(SYS_open, 1, BPF_JSET, kWriting);
    program.allow_if(SYS_openat, 2, BPF_JSET, kWriting);
    for (const unsigned call : kLooking) program.allow(call);
    program.allow(SYS_seccomp);  // to give up more
  } else {
    for (const unsigned call : kLooking) program.refuse(call);
  }
  for (const unsigned call : kRefused) program.refuse(call);
  const std::span<sock_filter> code = program.finish();
  const sock_fprog filter{static_cast<unsigned short>(code.size()), code.data()};
  const long thread =
      ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
  if (thread > 0)
    return fail(ErrorKind::kFailure, "can't limit the system calls of its thread {}", thread);
  if (thread != 0) return fail_errno(errno, "can't limit the system calls");
  return {};
}

#else

Status limit_system_calls(MayOpen) {
  return fail(ErrorKind::kUnsupported, "there is no list of system calls for this processor");
}

#endif

}  // namespace thermocline::plugin

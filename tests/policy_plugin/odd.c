/* SPDX-License-Identifier: Apache-2.0
 * A policy plug-in that does one thing wrong, from the decision `after` on; until then it moves the
 * hottest page of tier 1 up while there is room. `mode` says what. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "policies/plugin/policy_abi.h"

#ifndef ODD_NAME
#define ODD_NAME "odd"
#endif
#ifndef ODD_ABI
#define ODD_ABI THERMOCLINE_POLICY_ABI
#endif

static char mode[32];
static unsigned long after;
static volatile unsigned long decisions;
static int* volatile nowhere = NULL;

#ifdef ODD_UNRESOLVED
void nobody_has_this(void);
#endif

__attribute__((constructor)) static void construct(void) {
#ifdef ODD_CRASH_LOAD
  raise(SIGSEGV);
#endif
#ifdef ODD_SLOW_LOAD
  usleep(700000);
#endif
#ifdef ODD_UNRESOLVED
  nobody_has_this();
#endif
}

static int is(const char* which) {
  return strcmp(mode, which) == 0;
}

static void* create(const char* const* values, uint64_t seed, char* error, size_t size) {
  (void)seed;
  snprintf(mode, sizeof(mode), "%s", values[0]);
  after = strtoul(values[1], NULL, 10);
  if (is("refuse")) {
    snprintf(error, size, "the mode is refuse");
    return NULL;
  }
  if (is("refuse_silently")) return NULL;
  if (is("slow_create")) usleep(300000);
  if (is("crash_create")) abort();
  if (is("socket_create")) socket(AF_UNIX, SOCK_STREAM, 0);
  if (is("write_create") && (open("/tmp/thermocline-odd", O_WRONLY | O_CREAT, 0600) != -1 || errno != EPERM)) abort();
  if (is("read_create")) {
    const int fd = open("/proc/self/maps", O_RDONLY);
    char c;
    if (fd < 0 || read(fd, &c, 1) != 1) abort();
    close(fd);
  }
  return mode;
}

static void* nothing(void* p) {
  return p;
}

/* 0, or which right is left that shouldn't be. */
static int rights(void) {
  int fd;
  if (getuid() == 0 || geteuid() == 0) return 10;
  /* Standard streams and the socket, nothing that was its owner's. */
  for (fd = 4; fd < 1024; ++fd)
    if (fcntl(fd, F_GETFD) != -1) return 16;
  if (getenv("PATH") != NULL) return 17;
  return 0;
}

/* 0, or which call was not refused, or not as it should be. None of them is the end of it. */
static int refused(void) {
  struct rlimit limit;
  int waiting;
  if (open("/dev/null", O_RDONLY) != -1 || errno != EPERM) return 20;
  if (open("/tmp/thermocline-odd", O_WRONLY | O_CREAT, 0600) != -1 || errno != EPERM) return 21;
  if (ioctl(0, FIONREAD, &waiting) != -1 || errno != EPERM) return 22;
  if (getrlimit(RLIMIT_STACK, &limit) != -1 || errno != EPERM) return 23;
  if (access("/etc/localtime", R_OK) != -1 || errno != EPERM) return 24;
  if (localtime(&(time_t){0}) == NULL) return 25;
  return 0;
}

/* What the kernel ends it for. */
static void forbidden(void) {
  static char c;
  pthread_t thread;
  if (is("socket")) socket(AF_INET, SOCK_STREAM, 0);
  if (is("fork")) fork();
  if (is("thread")) pthread_create(&thread, NULL, nothing, &c);
  if (is("setuid")) setuid(0);
  if (is("exec")) execl("/bin/true", "true", (char*)NULL);
  if (is("signal")) kill(getppid(), 0);
  if (is("prctl")) prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static void nonsense(const struct thermocline_view* view, struct thermocline_plan* plan) {
  const struct thermocline_pages hot = view->tiers[1].hottest;
  uint64_t i;
  if (is("page")) {
    thermocline_plan_move(plan, &hot.pages[0], 0, 0);
    plan->moves[0].page = 1000000;
  }
  if (is("tier")) thermocline_plan_move(plan, &hot.pages[0], 2, 0);
  if (is("stay")) {
    thermocline_plan_move(plan, &hot.pages[0], 0, 0);
    plan->moves[0].to = 1;
  }
  if (is("rule")) thermocline_plan_move(plan, &hot.pages[0], 0, 7);
  if (is("twice"))
    for (i = 0; i < 2; ++i) thermocline_plan_move(plan, &hot.pages[0], 0, 0);
  if (is("budget"))
    for (i = 0; i < hot.count; ++i) {
      plan->pages_left = 1000000;
      thermocline_plan_move(plan, &hot.pages[i], 0, 0);
      if (i + 1 < view->tiers[0].coldest.count)
        thermocline_plan_move(plan, &view->tiers[0].coldest.pages[i], 1, 0);
    }
  if (is("count")) plan->count = UINT64_MAX;
  if (is("window")) plan->window_eighths = 65;
  /* What no honest library sends: its own bytes on the socket of the host. */
  if (is("noise")) (void)!write(3, "this is no message at all", 24);
  if (is("long")) {
    const uint32_t frame[4] = {0x4c504354, 6, 0xffffffff, 0x7fffffff};
    (void)!write(3, frame, sizeof(frame));
  }
  if (is("lie")) { /* a plan of a million moves that aren't there */
    const uint32_t frame[8] = {0x4c504354, 6, 16, 0, 8, 0, 1000000, 0};
    (void)!write(3, frame, sizeof(frame));
  }
  if (is("torn")) { /* half a message, then silence */
    const uint32_t frame[6] = {0x4c504354, 6, 4096, 0, 8, 0};
    (void)!write(3, frame, sizeof(frame));
    for (;;) pause();
  }
  if (is("turn")) { /* the greeting again */
    const uint32_t frame[4] = {0x4c504354, 1, 0, 0};
    (void)!write(3, frame, sizeof(frame));
  }
}

__attribute__((unused)) static int decide(void* self, const struct thermocline_view* view, struct thermocline_plan* plan) {
  (void)self;
  if (decisions++ >= after) {
    if (is("abort")) abort();
    if (is("segv")) *(volatile int*)nowhere = 1;
    if (is("exit")) exit(3);
    if (is("hang"))
      for (;;) pause();
    if (is("spin"))
      for (;;) (void)decisions;
    if (is("close")) {
      close(3);
      for (;;) pause();
    }
    if (is("return")) return 42;
    if (is("rights")) return rights();
    if (is("refused")) return refused();
    forbidden();
    if (is("memory")) {
      char* const much = malloc((size_t)2 << 30);
      return much == NULL ? 0 : 18;
    }
    nonsense(view, plan);
  } else if (view->tier_count > 1 && view->tiers[1].hottest.count > 0) {
    thermocline_plan_move(plan, &view->tiers[1].hottest.pages[0], 0, 0);
  }
  return 0;
}

static const char* const rules[] = {"the hottest", NULL};
static const struct thermocline_option options[] = {
    {"mode", "what it does wrong", "nothing"},
    {"after", "decisions that are right", "0"},
    {NULL, NULL, NULL},
};

#ifdef ODD_SYMBOL
#define thermocline_policy ODD_SYMBOL
extern const struct thermocline_policy_ops thermocline_policy;
#endif
const struct thermocline_policy_ops thermocline_policy = {
    .abi = ODD_ABI,
    .name = ODD_NAME,
    .summary = "does something wrong",
    .source = "a test",
    .rules = rules,
    .options = options,
    .create = create,
#ifndef ODD_NO_DECIDE
    .decide = decide,
#endif
};

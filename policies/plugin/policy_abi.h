/* SPDX-License-Identifier: Apache-2.0
 *
 * The C interface of policies that live outside of Thermocline's tree. A plug-in is a shared object
 * NAME.so that exports one symbol,
 *
 *   const struct thermocline_policy_ops thermocline_policy = {
 *       .abi = THERMOCLINE_POLICY_ABI, .name = "NAME", .summary = "what it does", ...};
 *
 * Once an epoch decide() is shown the machine as it is (thermocline_view) and says which pages
 * should go where (thermocline_plan). docs/writing-a-policy.md goes through one step by step.
 *
 * Units. Sizes are counts of 4 KiB pages, whatever the size of the page that is meant: a page of
 * 2 MiB counts 512. Heat is 0 (untouched for long) to 255; 127 = touched in every window of late.
 * Tiers are numbered from 0, the fastest.
 *
 * Where it runs. In a process of its own with few rights: 1 GiB of memory, no threads or processes
 * beside it, no sockets, and when the daemon is root it is nobody. Files it may read, if everybody
 * may, until create() returns; then none. What else the C library asks on its own, of terminals,
 * time zones and limits, is refused (EPERM); for any other system call than those for memory, time
 * and what it has open, the kernel ends it. That is for x86-64; elsewhere there are no plug-ins
 * yet. What it prints on standard error goes where the daemon's log goes. Calls come one at a
 * time, from one thread.
 *
 * What it must keep to. decide() answers within the time that the host gives it (200 ms unless
 * policy.plugin_timeout says otherwise), and its plan holds to the rules told at thermocline_plan.
 * Who doesn't, crashes, or returns anything but 0 is ended and started anew after a while, with
 * nothing of what it knew; a built-in policy decides meanwhile. So the same views and the same seed
 * should give the same plans: read no clock, keep everything behind `self`.
 *
 * What it need not do. Rates, cooldown, headroom, shares of targets and watermarks are the
 * engine's. A plan may ask for more than will be done; what comes first in it is done first.
 *
 * Versions. Any change of this file that a compiled plug-in would notice raises
 * THERMOCLINE_POLICY_ABI, and a host takes plug-ins of its own number only.
 */
#ifndef THERMOCLINE_POLICY_ABI_H
#define THERMOCLINE_POLICY_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define THERMOCLINE_POLICY_ABI 1u

/* Bounds of what a plug-in tells about itself: bytes of a text (with its end), and how many. */
#define THERMOCLINE_MOST_TEXT 256u
#define THERMOCLINE_MOST_RULES 32u
#define THERMOCLINE_MOST_OPTIONS 32u

/* A page that may be moved now: present, observable, not at rest after a move. */
struct thermocline_page {
  uint64_t space;   /* address space it belongs to; the same number for all its life */
  uint64_t address; /* virtual, of its first byte */
  uint32_t id;      /* of the host: don't change it */
  uint8_t tier;     /* on which it lies */
  uint8_t order;    /* log2 of its 4 KiB pages: 0 = 4 KiB, 9 = 2 MiB, 18 = 1 GiB */
  uint8_t heat;
  /* Bits 0-6: windows of this epoch in which it was touched; bit 7: it was in the epoch before.
   * 0 unless the policy asked for it, THERMOCLINE_NEEDS_TOUCHES. */
  uint8_t touches;
};

struct thermocline_pages {
  const struct thermocline_page* pages;
  uint64_t count;
};

struct thermocline_tier {
  uint64_t capacity; /* pages of the targets that fit: used + free; less than used = overfull */
  uint64_t used;     /* held by the targets now */
  uint64_t free;
  uint64_t latency_ns;     /* idle read latency, nominal; 0 = not known */
  uint64_t bandwidth_mbps; /* read bandwidth, MB/s; 0 = not known */
  uint64_t
      loaded_latency_ns; /* under the load of now; 0 = not measured, see NEEDS_LOADED_LATENCY */
  /* Pages that may be moved, up to view->budget pages a list and at most 262144; equals in order
   * of address. The fastest tier has no list `hottest`, the slowest one no list `coldest`. No page
   * is in two lists: where they would meet, both end. */
  struct thermocline_pages hottest; /* hottest first */
  struct thermocline_pages coldest; /* coldest first */
  uint64_t heat[256];               /* pages by heat: all that lie here, movable or not */
};

struct thermocline_view {
  uint64_t epoch; /* counts up; not always by one */
  const struct thermocline_tier* tiers;
  uint64_t tier_count; /* 1 to 7 */
  uint64_t budget;     /* pages that may be moved in this epoch, both directions together */
  /* Edge of the hot set: the smallest heat such that the pages at or above it fit tier 0. */
  uint64_t threshold_heat;
  uint64_t at_or_above; /* pages with that heat and more */
  uint64_t below_edge;  /* pages with threshold_heat - 1 and more: these don't fit any more */
  /* How the epoch before went, and what became of its plan. */
  uint64_t promoted, demoted, failed;
  uint64_t regretted; /* demoted lately and hot again, or the other way round */
  uint64_t windows;   /* that were watched */
  uint64_t window_ns; /* their length */
  /* Sums over the windows: pages that were touched, of these on tier 0, and all that were seen. */
  uint64_t accessed_page_windows, accessed_page_windows_fast, present_page_windows;
  uint64_t changed; /* 1: what was hot in a space isn't any more: its heat was quartered */
};

struct thermocline_move {
  uint32_t page; /* thermocline_page.id */
  uint8_t to;    /* tier, not the one on which the page lies */
  uint8_t rule;  /* index into thermocline_policy_ops.rules: why */
  uint16_t unused;
};

/* The answer, empty when decide() gets it. Rules, each of which the host checks: ids of this view,
 * tiers and rules that there are, no page twice, pages_left never below 0.
 * thermocline_plan_move() keeps all but "twice". Demotions are carried out before promotions. What
 * a tier has no room for, after what leaves it, the host leaves out. */
struct thermocline_plan {
  struct thermocline_move* moves; /* of the host */
  uint64_t count;
  uint64_t capacity;   /* no more moves than that */
  uint64_t pages_left; /* of the budget */
  /* Next window length: 8 = keep, 4 = halve, 16 = double; 1 to 64. 0, as decide() gets it: the host
   * sees to it that the pages at the edge of the hot set are touched in about half of the windows.
   */
  uint64_t window_eighths;
};

/* Plans that `page` goes to tier `to`. False, and nothing is planned, when the plan is full, the
 * budget doesn't reach, or the page lies there already. */
static inline bool thermocline_plan_move(struct thermocline_plan* plan,
                                         const struct thermocline_page* page, unsigned to,
                                         unsigned rule) {
  const uint64_t size = UINT64_C(1) << page->order;
  struct thermocline_move* move;
  if (plan->count >= plan->capacity || size > plan->pages_left || page->tier == to) return false;
  move = &plan->moves[plan->count++];
  move->page = page->id;
  move->to = (uint8_t)to;
  move->rule = (uint8_t)rule;
  move->unused = 0;
  plan->pages_left -= size;
  return true;
}

/* An option that people may set, in [policy.NAME] or with --set. */
struct thermocline_option {
  const char* key;
  const char* meaning;
  const char* default_text;
};

/* thermocline_policy_ops.needs, or-ed. Each costs the host something, so ask for what is used. */
enum {
  THERMOCLINE_NEEDS_TOUCHES = 1,        /* thermocline_page.touches: a byte a page */
  THERMOCLINE_NEEDS_LOADED_LATENCY = 2, /* thermocline_tier.loaded_latency_ns */
};

struct thermocline_policy_ops {
  uint32_t abi;   /* THERMOCLINE_POLICY_ABI */
  uint32_t needs; /* THERMOCLINE_NEEDS_..., or 0 */
  const char* name;
  const char* summary;                      /* one line, for `thermocline policies` */
  const char* source;                       /* paper or origin */
  const char* const* rules;                 /* why a page is moved, in words; ends with NULL */
  const struct thermocline_option* options; /* ends with a key of NULL; NULL: none */

  /* Makes a policy. `values`: one text an option, in the order of `options`, what was set or the
   * default. NULL: refused, and why as a sentence in `error` (size bytes, with its end). */
  void* (*create)(const char* const* values, uint64_t seed, char* error, size_t size);
  /* Returns 0, or any other number: it can't, which counts as a failure. What `view` and `plan`
   * point to is gone when it returns. */
  int (*decide)(void* self, const struct thermocline_view* view, struct thermocline_plan* plan);
  void (*destroy)(void* self); /* may be NULL */
};

/* What the plug-in defines; a const object of C++ needs the `extern "C"` that stands here. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
extern const struct thermocline_policy_ops thermocline_policy;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* THERMOCLINE_POLICY_ABI_H */

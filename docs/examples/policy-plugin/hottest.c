/* SPDX-License-Identifier: Apache-2.0
 * Policy `hottest`: a page goes up when it is hotter, by a margin, than the pages that must go down
 * for it; what is free on the faster tier is used first. docs/writing-a-policy.md explains it. */
#include <stdio.h>
#include <stdlib.h>

#include "policy_abi.h"

struct hottest {
  unsigned margin;
};

enum { HOTTER, COLDER };
static const char* const rules[] = {
    "hotter than the pages that made room for it",
    "colder than the page that it made room for",
    NULL,
};

static const struct thermocline_option options[] = {
    {"margin", "heat by which a page must be hotter than one that goes down for it, 1 to 255", "8"},
    {NULL, NULL, NULL},
};

static void* create(const char* const* values, uint64_t seed, char* error, size_t size) {
  char* end;
  const unsigned long margin = strtoul(values[0], &end, 10);
  struct hottest* self = malloc(sizeof(*self));
  (void)seed;
  if (*end != 0 || margin < 1 || margin > 255) {
    snprintf(error, size, "margin is \"%s\"; give a number from 1 to 255", values[0]);
    free(self);
    return NULL;
  }
  if (self != NULL) self->margin = (unsigned)margin;
  return self;
}

/* Between a tier and the next slower one. */
static void swap(const struct hottest* self, const struct thermocline_tier* tiers, unsigned fast,
                 struct thermocline_plan* plan) {
  const struct thermocline_pages hot = tiers[fast + 1].hottest, cold = tiers[fast].coldest;
  uint64_t room = tiers[fast].free, next = 0;
  for (uint64_t i = 0; i < hot.count && hot.pages[i].heat > 0; ++i) {
    const uint64_t size = UINT64_C(1) << hot.pages[i].order;
    while (room < size && next < cold.count &&
           cold.pages[next].heat + self->margin <= hot.pages[i].heat) {
      if (!thermocline_plan_move(plan, &cold.pages[next], fast + 1, COLDER)) return;
      room += UINT64_C(1) << cold.pages[next++].order;
    }
    if (room < size || !thermocline_plan_move(plan, &hot.pages[i], fast, HOTTER)) return;
    room -= size;
  }
}

static int decide(void* self, const struct thermocline_view* view, struct thermocline_plan* plan) {
  for (unsigned fast = 0; fast + 1 < view->tier_count; ++fast) swap(self, view->tiers, fast, plan);
  return 0;
}

const struct thermocline_policy_ops thermocline_policy = {
    .abi = THERMOCLINE_POLICY_ABI,
    .name = "hottest",
    .summary = "the hottest pages take the place of colder ones, by a margin",
    .source = "the example of docs/writing-a-policy.md",
    .rules = rules,
    .options = options,
    .create = create,
    .decide = decide,
    .destroy = free,
};

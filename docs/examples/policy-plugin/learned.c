/* SPDX-License-Identifier: Apache-2.0
 * Policy `learned`: as `hottest`, but pages are ranked by a score that was learned, the log-odds of
 * being touched in a window of the next epoch: weights of four features, from a file that train.py wrote.
 *
 * With sample=N it prints what it sees of one page in N, for train.py:
 *   page EPOCH SPACE ADDRESS HEAT WINDOWS OF_WINDOWS BEFORE */
#include <stdio.h>
#include <stdlib.h>

#include "policy_abi.h"

enum { BIAS, HEAT, TOUCHED, BEFORE, FEATURES };
struct learned {
  double weights[FEATURES];
  double margin;
  unsigned long sample;
};
struct scored {
  const struct thermocline_page* page;
  double score;
};

enum { LIKELIER, UNLIKELIER };
static const char* const rules[] = {
    "likelier to be touched than the pages that made room for it",
    "less likely to be touched than the page that it made room for",
    NULL,
};
enum { WEIGHTS, MARGIN, SAMPLE };
static const struct thermocline_option options[] = {
    {"weights", "file of train.py, readable for everybody; none: heat alone", "none"},
    {"margin", "difference of log-odds that is worth an exchange", "0.5"},
    {"sample", "print one page in so many, for train.py; 0: none", "0"},
    {NULL, NULL, NULL},
};

static void* create(const char* const* values, uint64_t seed, char* error, size_t size) {
  static const struct learned heat_alone = {.weights = {[HEAT] = 8}};
  struct learned* self = malloc(sizeof(*self));
  FILE* file;
  int read = 0;
  (void)seed;
  if (self == NULL) return NULL;
  *self = heat_alone;
  self->margin = strtod(values[MARGIN], NULL);
  self->sample = strtoul(values[SAMPLE], NULL, 10);
  if (values[WEIGHTS][0] != '/') return self;
  file = fopen(values[WEIGHTS], "r");
  if (file != NULL) {
    while (read < FEATURES && fscanf(file, "%lf", &self->weights[read]) == 1) ++read;
    fclose(file);
  }
  if (read == FEATURES) return self;
  snprintf(error, size, "can't read %d weights from %s", FEATURES, values[WEIGHTS]);
  free(self);
  return NULL;
}

static double score(const struct learned* self, const struct thermocline_page* page,
                    uint64_t windows) {
  return self->weights[BIAS] + self->weights[HEAT] * page->heat / 127.0 +
         self->weights[TOUCHED] * (page->touches & 127) / (windows > 0 ? (double)windows : 1.0) +
         self->weights[BEFORE] * (page->touches >> 7);
}

static int by_score(const void* a, const void* b) {
  const struct scored *x = a, *y = b;
  if (x->score != y->score) return x->score < y->score ? -1 : 1;
  return x->page->id < y->page->id ? -1 : x->page->id > y->page->id;
}

/* Lowest score first. */
static struct scored* rank(const struct learned* self, const struct thermocline_view* view,
                           struct thermocline_pages list) {
  struct scored* ranked = malloc((list.count + 1) * sizeof(*ranked));
  if (ranked == NULL) abort(); /* and be started again */
  for (uint64_t i = 0; i < list.count; ++i) {
    const struct thermocline_page* page = &list.pages[i];
    ranked[i] = (struct scored){page, score(self, page, view->windows)};
    if (self->sample > 0 &&
        (page->address >> 12) * 0x9e3779b97f4a7c15u >> 32 < (1ull << 32) / self->sample)
      fprintf(stderr, "page %llu %llu %llu %u %u %llu %u\n", (unsigned long long)view->epoch,
              (unsigned long long)page->space, (unsigned long long)page->address, page->heat,
              page->touches & 127u, (unsigned long long)view->windows, page->touches >> 7);
  }
  qsort(ranked, list.count, sizeof(*ranked), by_score);
  return ranked;
}

static int decide(void* p, const struct thermocline_view* view, struct thermocline_plan* plan) {
  const struct learned* self = p;
  for (unsigned fast = 0; fast + 1 < view->tier_count; ++fast) {
    const struct thermocline_pages hot = view->tiers[fast + 1].hottest;
    const struct thermocline_pages cold = view->tiers[fast].coldest;
    struct scored *up = rank(self, view, hot), *down = rank(self, view, cold);
    uint64_t room = view->tiers[fast].free, next = 0;
    for (uint64_t i = hot.count; i-- > 0 && up[i].page->heat > 0;) {
      const uint64_t size = UINT64_C(1) << up[i].page->order;
      while (room < size && next < cold.count && down[next].score + self->margin < up[i].score) {
        if (!thermocline_plan_move(plan, down[next].page, fast + 1, UNLIKELIER)) break;
        room += UINT64_C(1) << down[next++].page->order;
      }
      if (room < size || !thermocline_plan_move(plan, up[i].page, fast, LIKELIER)) break;
      room -= size;
    }
    free(up);
    free(down);
  }
  return 0;
}

const struct thermocline_policy_ops thermocline_policy = {
    .abi = THERMOCLINE_POLICY_ABI,
    .needs = THERMOCLINE_NEEDS_TOUCHES,
    .name = "learned",
    .summary = "pages that are likeliest to be touched next, by weights learned from a run",
    .source = "the second example of docs/writing-a-policy.md",
    .rules = rules,
    .options = options,
    .create = create,
    .decide = decide,
    .destroy = free,
};

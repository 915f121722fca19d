/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What page_tables.bpf.c and the program that loads it share: plain layouts, no code.
 */
#ifndef THERMOCLINE_BPF_PAGE_TABLES_H
#define THERMOCLINE_BPF_PAGE_TABLES_H

#include <linux/types.h>

/* Table pages that one run copies at most: 256 MiB of 4 KiB pages and an upper table. A run keeps
 * its CPU from freeing what RCU guards, so it has to be short, about 0.1 ms; and what it copied is
 * still in the cache when it is looked at. */
#define TC_BPF_SLOTS 129
/* Entries (of 2 MiB each) that one run looks at, at most. */
#define TC_BPF_STEPS 65536

/* struct tc_bpf_control.what */
#define TC_BPF_WALK 0 /* copy the tables of [from, to) */
#define TC_BPF_FIND 1 /* find the direct map: try this many GiB */

/* struct tc_bpf_control: the one element of the map "control" */
struct tc_bpf_control {
  /* in */
  __u64 what;
  __u64 mm;         /* walk only this address space; 0 = whatever the task has */
  __u64 from, to;   /* virtual addresses, 2 MiB aligned */
  __u64 direct_map; /* virtual address of physical address 0 */
  __u64 gibs;       /* TC_BPF_FIND: physical memory ends here, in GiB */
  /* out */
  __u64 ran;        /* 1: the task is there */
  __u64 found_mm;   /* its address space, 0 = none (exiting) */
  __u64 found_base; /* TC_BPF_FIND: the direct map, 0 = not found */
  __u64 second_mmu; /* not 0: somebody else may use the address space without its page tables */
  __u64 next;       /* go on from here; = to when done */
  __u64 slots;      /* of the map "tables" and of info[], filled */
  __u64 stale;      /* tables that changed each time they were read, and were left out */
  __u64 base[TC_BPF_SLOTS]; /* of each slot: first address that it maps, plus its level in bit 0:
                             * 0 = 4 KiB entries, 1 = 2 MiB entries */
};

/* What the program "list_areas" writes, one an area of the address space. */
struct tc_bpf_area {
  __u64 start, end;
  __u64 flags;  /* vm_flags */
  __u32 file;   /* 1: maps a file or shared memory */
  __u32 placed; /* 1: has a memory policy of its own */
};

#endif

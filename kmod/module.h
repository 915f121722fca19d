/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of thermocline.ko share.
 *
 * device.c owns /dev/thermocline and the attachments, walk.c reads page tables, record.c writes
 * records. Calls go in that order only, and nothing here is seen by user space (uapi/thermocline.h is).
 */
#ifndef THERMOCLINE_MODULE_H
#define THERMOCLINE_MODULE_H

#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/types.h>

#include "uapi/thermocline.h"

/** Entries of one page-table page, and so of the largest record that the module emits. */
#define THERMOCLINE_RUN_ENTRIES 512u
#define THERMOCLINE_RUN_WORDS (THERMOCLINE_RUN_ENTRIES / 64)

/** Largest record: header, four bitmaps, every entry on another node than the one before it. */
#define THERMOCLINE_RUN_MAX_BYTES                                                                  \
	(sizeof(struct thermocline_record) + 4 * THERMOCLINE_RUN_WORDS * sizeof(u64) +             \
	 THERMOCLINE_RUN_ENTRIES * sizeof(struct thermocline_node_run))

/**
 * The mmap lock is let go after MAX_HOLD_NS, or after MIN_HOLD_NS when somebody waits for it. The
 * clock is read once a table page (some microseconds of work), so a hold ends within that of the bound.
 */
#define THERMOCLINE_MAX_HOLD_NS (1000 * NSEC_PER_USEC)
#define THERMOCLINE_MIN_HOLD_NS (50 * NSEC_PER_USEC)

/** Records gathered under the mmap lock; they are copied to user space when it is let go. */
#define THERMOCLINE_BOUNCE_BYTES (64u << 10)

enum {
	THERMOCLINE_PRESENT,
	THERMOCLINE_OBSERVABLE,
	THERMOCLINE_ACCESSED,
	THERMOCLINE_DIRTY,
	THERMOCLINE_MAPS,
};

/**
 * struct thermocline_run - entries in a row, on their way to becoming a record
 * @first_page: virtual page of the first entry
 * @scan_ns: when the first entry was read
 * @count: entries so far; 0 when the run isn't open
 * @order: page order of each entry
 * @node_runs: used elements of @nodes
 * @map: the record's four bitmaps, in record order; bits past @count are 0
 * @nodes: nodes of the entries, run-length coded
 */
struct thermocline_run {
	u64 first_page;
	u64 scan_ns;
	u32 count;
	u8 order;
	u32 node_runs;
	u64 map[THERMOCLINE_MAPS][THERMOCLINE_RUN_WORDS];
	struct {
		u16 node;
		u16 count;
	} nodes[THERMOCLINE_RUN_ENTRIES];
};

/** What a record says besides its run. */
struct thermocline_stamp {
	u64 asid;
	u64 epoch;
	u64 window_ns;
	u32 flags;
};

/** thermocline_record_write() - writes @run as record @sequence to @out (RUN_MAX_BYTES long, 8-aligned); its size */
size_t thermocline_record_write(const struct thermocline_run *run,
				const struct thermocline_stamp *stamp, u64 sequence, void *out);

/**
 * struct thermocline_node_cache - which node a memory section (128 MiB) belongs to
 * @scan: number of the scan call, never 0
 * @slot: what was learned of memory section @section in call @scan; other calls' slots are empty. The
 *	aligned 1 << @order pages around it are on @node
 *
 * Spares touching the struct page of every page. Kept for one scan call, so memory that is taken
 * away and comes back on another node can't be told wrongly for longer than that.
 */
struct thermocline_node_cache {
	u8 scan;
	struct {
		u32 section;
		u16 node;
		u8 order;
		u8 scan;
	} slot[1024];
};

/**
 * struct thermocline_attachment - one open file bound to one address space
 * @lock: serialises the ioctls of the file
 * @mm: the address space; holds mm_count, not mm_users, so its memory goes when its processes go
 * @asid: identity in the records
 * @sequence: of the next record
 * @cleared_ns: begin of the last clearing pass; 0 = none
 * @window_ns: window of the clearing pass under way, for the calls that resume it
 * @run: the run being gathered
 * @nodes: see above
 * @bounce: THERMOCLINE_BOUNCE_BYTES
 */
struct thermocline_attachment {
	struct mutex lock;
	struct mm_struct *mm;
	u64 asid;
	u64 sequence;
	u64 cleared_ns;
	u64 window_ns;
	struct thermocline_run run;
	struct thermocline_node_cache nodes;
	u64 *bounce;
};

/**
 * thermocline_walk() - does what a checked SCAN asks for
 * @att: attachment, locked by the caller
 * @scan: in and out as in the uapi header
 * @ranges: scan->range_count ranges, sorted, not overlapping, below TASK_SIZE_MAX
 * @window_ns: for the records
 *
 * Takes mm_users and the mmap lock for one hold at a time. Sleeps.
 * Return: 0, -ESRCH, -EFAULT, -EINTR
 */
int thermocline_walk(struct thermocline_attachment *att, struct thermocline_scan *scan,
		     const struct thermocline_range *ranges, u64 window_ns);

#endif /* THERMOCLINE_MODULE_H */

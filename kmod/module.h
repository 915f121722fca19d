/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of thermocline.ko share.
 *
 * device.c owns /dev/thermocline and the attachments, thread.c scans by itself, walk.c reads page
 * tables, ring.c takes records to where user space maps them, record.c writes them. Calls go in that
 * order only, and nothing here is seen by user space (uapi/thermocline.h is).
 */
#ifndef THERMOCLINE_MODULE_H
#define THERMOCLINE_MODULE_H

#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>

#include <asm/cpufeature.h>

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
 * @idle: nothing was accessed, and nothing else looked at; no map and no node is used
 * @shared: others map some of the pages, too, which are told as observable
 * @node_runs: used elements of @nodes
 * @map: the record's four bitmaps, in record order; bits past @count are 0
 * @nodes: nodes of the entries, run-length coded
 */
struct thermocline_run {
	u64 first_page;
	u64 scan_ns;
	u32 count;
	u8 order;
	bool idle;
	bool shared;
	u32 node_runs;
	u64 map[THERMOCLINE_MAPS][THERMOCLINE_RUN_WORDS];
	struct {
		u16 node;
		u16 count;
	} nodes[THERMOCLINE_RUN_ENTRIES];
};

/**
 * thermocline_can_prune() - upper-level entries have accessed bits that we may change
 *
 * The page tables of a Xen PV guest are not its own to write to (the kernel's ageing has the same check).
 */
static inline bool thermocline_can_prune(void)
{
	return !cpu_feature_enabled(X86_FEATURE_XENPV);
}

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
 * struct thermocline_sink - where a walk puts its records
 * @put: takes whole records; the mmap lock isn't held. Return: 0, or -errno, which ends the walk
 * @room: bytes that it takes in this walk
 */
struct thermocline_sink {
	int (*put)(struct thermocline_sink *sink, const void *records, size_t bytes);
	u64 room;
};

/* ---------------------------------------------------------------- the ring (ring.c) ------------ */

/**
 * struct thermocline_ring - records on their way to user space; see struct thermocline_ring_header
 * @sink: what the walk is given
 * @users: the attachment, and whoever is mapping it at the moment; mappings hold its pages, not it
 * @pages: header and data, each once
 * @page_count: of @pages
 * @wait: whoever polls
 * @header: first page of the kernel's mapping; read only where user space writes
 * @data: the data, twice
 * @size: bytes of data, a power of two
 * @lock: what follows, against poll and STATS; positions only move forward
 * @produced: bytes published
 * @consumed: last good position of user space
 * @boundary: @produced at the end of the last finished round
 * @dropped_records: counters, as in struct thermocline_stats, like the following
 * @dropped_bytes: of the ring
 * @dropped_marks: of the ring
 * @overflows: of the ring
 * @bad_positions: of the ring
 * @rounds: finished with this ring
 * @overflowing: the last put found no room
 */
struct thermocline_ring {
	struct thermocline_sink sink;
	refcount_t users;
	struct page **pages;
	u32 page_count;
	wait_queue_head_t *wait;
	struct thermocline_ring_header *header;
	u8 *data;
	u64 size;
	spinlock_t lock;
	u64 produced;
	u64 consumed;
	u64 boundary;
	u64 dropped_records;
	u64 dropped_bytes;
	u64 dropped_marks;
	u64 overflows;
	u64 bad_positions;
	u64 rounds;
	bool overflowing;
};

/** thermocline_ring_create() - a ring of @size bytes, a power of two, or NULL; @wait is woken. Sleeps. */
struct thermocline_ring *thermocline_ring_create(u64 size, wait_queue_head_t *wait);
/** thermocline_ring_put() - gives back a reference. Sleeps. */
void thermocline_ring_put(struct thermocline_ring *ring);
/** thermocline_ring_map() - what mmap(2) does; needs no lock of the attachment. Return: 0, -EINVAL, -ENOMEM... */
int thermocline_ring_map(struct thermocline_ring *ring, struct vm_area_struct *vma);
/** thermocline_ring_map_bytes() - length of a mapping */
u64 thermocline_ring_map_bytes(const struct thermocline_ring *ring);
/** thermocline_ring_mark() - publishes a mark; @ends_round wakes whoever waits for the round. By the producer. */
void thermocline_ring_mark(struct thermocline_ring *ring, const struct thermocline_mark *mark,
			   bool ends_round);
/** thermocline_ring_is_ready() - there is something that poll tells of */
bool thermocline_ring_is_ready(struct thermocline_ring *ring);
/** thermocline_ring_stats() - adds the ring's counters */
void thermocline_ring_stats(struct thermocline_ring *ring, struct thermocline_stats *stats);

/* ---------------------------------------------------------------- attachments ------------------ */

struct thermocline_thread;

/**
 * struct thermocline_attachment - one open file bound to one address space
 * @lock: serialises the ioctls of the file
 * @mm: the address space; holds mm_count, not mm_users, so its memory goes when its processes go
 * @pid: the process, for the name of the thread
 * @asid: identity in the records
 * @sequence: of the next record
 * @cleared_ns: begin of the last clearing pass; 0 = none
 * @window_ns: window of the clearing pass under way, for the calls that resume it
 * @run: the run being gathered
 * @nodes: see above
 * @bounce: THERMOCLINE_BOUNCE_BYTES
 * @holds: holds of the mmap lock, as in struct thermocline_stats
 * @thread: scans by itself; NULL = none. While it is there, what stands before it, from @sequence on, is
 *	the thread's alone, and the file refuses synchronous scans
 * @ring_lock: @ring; mmap and poll can't take @lock, under which the mmap lock is taken and scans are long
 * @ring: of the last START, or NULL; holds a reference
 * @wait: whoever polls
 * @gone: the thread found the address space gone
 * @totals_lock: @totals
 * @totals: of finished passes, and of threads and rings that are no more
 */
struct thermocline_attachment {
	struct mutex lock;
	struct mm_struct *mm;
	pid_t pid;
	u64 asid;
	u64 sequence;
	u64 cleared_ns;
	u64 window_ns;
	struct thermocline_run run;
	struct thermocline_node_cache nodes;
	u64 *bounce;
	u64 holds[THERMOCLINE_STATS_HOLDS];
	struct thermocline_thread *thread;
	spinlock_t ring_lock;
	struct thermocline_ring *ring;
	wait_queue_head_t wait;
	bool gone;
	spinlock_t totals_lock;
	struct thermocline_stats totals;
};

/**
 * thermocline_walk() - does what a checked SCAN asks for
 * @att: attachment, locked by the caller, or its thread
 * @scan: in and out as in the uapi header, but @window_ns is out as well: what the records say, and
 *	@buffer and @buffer_size aren't looked at
 * @ranges: scan->range_count ranges, sorted, not overlapping, below TASK_SIZE_MAX
 * @sink: where the records go
 *
 * Takes mm_users and the mmap lock for one hold at a time. Sleeps.
 * Return: 0, -ESRCH, -EINTR, or what the sink says
 */
int thermocline_walk(struct thermocline_attachment *att, struct thermocline_scan *scan,
		     const struct thermocline_range *ranges, struct thermocline_sink *sink);

/* ---------------------------------------------------------------- the thread (thread.c) -------- */

/**
 * struct thermocline_plan - a checked schedule, and its ranges
 * @schedule: its @ranges pointer isn't used any more
 * @ranges: kvmalloc'ed, or NULL
 */
struct thermocline_plan {
	struct thermocline_schedule schedule;
	struct thermocline_range *ranges;
};

/** thermocline_plan_free() - @plan may be NULL */
void thermocline_plan_free(struct thermocline_plan *plan);

/**
 * thermocline_thread_create() - makes att->thread, which doesn't run yet; att->lock is held, there is none
 * Return: 0, and @plan is the thread's; @ring must outlive it; -ENOMEM, -EINTR
 */
int thermocline_thread_create(struct thermocline_attachment *att, struct thermocline_ring *ring,
			      struct thermocline_plan *plan);
/** thermocline_thread_run() - lets it begin */
void thermocline_thread_run(struct thermocline_thread *thread);
/** thermocline_thread_configure() - @plan, now the thread's, from the next round on; att->lock is held */
void thermocline_thread_configure(struct thermocline_thread *thread, struct thermocline_plan *plan);
/** thermocline_thread_stop() - ends att->thread and waits for it; att->lock is held, or nobody else is left */
void thermocline_thread_stop(struct thermocline_attachment *att);
/** thermocline_thread_stats() - all but the ring's counters and the holds; att->lock is held */
void thermocline_thread_stats(struct thermocline_attachment *att, struct thermocline_stats *stats);

#endif /* THERMOCLINE_MODULE_H */

/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The user-space interface of thermocline.ko: the access record and the ioctls of /dev/thermocline.
 *
 * This is the only file that kernel and user space share. The record layout is the same in three
 * places: what the module emits, what travels to an agent, and what a trace file stores.
 * Everything is little-endian. Reserved fields must be zero; the module refuses anything else.
 */
#ifndef THERMOCLINE_UAPI_H
#define THERMOCLINE_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/** THERMOCLINE_ABI_VERSION - version of this interface; a mismatch is refused by both sides */
#define THERMOCLINE_ABI_VERSION 1

#define THERMOCLINE_DEVICE "/dev/thermocline"

/* ---------------------------------------------------------------- the access record ---------- */

#define THERMOCLINE_RECORD_MAGIC 0x31524354u /* "TCR1" */
#define THERMOCLINE_RECORD_VERSION 1

/** Entries that one record may cover, at most. The module emits at most 512 (one table page). */
#define THERMOCLINE_RECORD_MAX_ENTRIES 32768u

/** Page orders that a record may carry: 4 KiB, 2 MiB and 1 GiB entries. */
#define THERMOCLINE_ORDER_4K 0
#define THERMOCLINE_ORDER_2M 9
#define THERMOCLINE_ORDER_1G 18

/** Node number of an entry that is not present, in a node run. */
#define THERMOCLINE_NODE_NONE 0xffffu

/* struct thermocline_record.flags */
/** The accessed bits that this record reports were cleared when they were read. */
#define THERMOCLINE_RECORD_CLEARED (1u << 0)
/** The source sees writes only: a page that was only read has a clear accessed bit. */
#define THERMOCLINE_RECORD_WRITES_ONLY (1u << 1)
/**
 * Nothing of these pages was accessed in the window, as an upper-level entry's accessed bit tells;
 * nothing else was looked at. Which of them are present, their nodes, dirty bits and page sizes are
 * as last told. All maps are THERMOCLINE_MAP_ZEROS and @node_runs is 0.
 */
#define THERMOCLINE_RECORD_IDLE (1u << 2)
/**
 * Some of these pages were mapped more than once, and are observable all the same, as
 * THERMOCLINE_SCAN_SHARED asked for: what is told of them is what this address space did.
 */
#define THERMOCLINE_RECORD_SHARED (1u << 3)
#define THERMOCLINE_RECORD_FLAGS_ALL                                                               \
	(THERMOCLINE_RECORD_CLEARED | THERMOCLINE_RECORD_WRITES_ONLY | THERMOCLINE_RECORD_IDLE |   \
	 THERMOCLINE_RECORD_SHARED)

/**
 * enum thermocline_map - how one of a record's four maps is stored
 * @THERMOCLINE_MAP_ZEROS: every entry's bit is 0; nothing is stored
 * @THERMOCLINE_MAP_ONES: every entry's bit is 1; nothing is stored
 * @THERMOCLINE_MAP_BITS: ceil(count / 64) little-endian 64-bit words follow; bit i of word w is
 *	entry 64 * w + i; bits past count are 0
 */
enum thermocline_map {
	THERMOCLINE_MAP_ZEROS = 0,
	THERMOCLINE_MAP_ONES = 1,
	THERMOCLINE_MAP_BITS = 2,
};

/**
 * struct thermocline_record - one run of pages of one address space, seen once
 * @magic: THERMOCLINE_RECORD_MAGIC
 * @version: THERMOCLINE_RECORD_VERSION
 * @header_size: sizeof(struct thermocline_record); a reader skips what it does not know
 * @size: bytes of the whole record, header and payload, a multiple of 8
 * @flags: THERMOCLINE_RECORD_*
 * @asid: identity of the address space, chosen by user space at attach; survives pid reuse
 * @epoch: decision period, as given by user space with the scan
 * @sequence: counts the records of an attachment from 0; a gap is loss
 * @scan_ns: CLOCK_MONOTONIC at which the entries were read, nanoseconds
 * @window_ns: time over which an accessed bit could be set, nanoseconds; 0 = not known
 * @first_page: virtual address of the first entry >> 12, aligned to @order
 * @count: entries, each 1 << @order pages of 4 KiB; 1..THERMOCLINE_RECORD_MAX_ENTRIES
 * @order: THERMOCLINE_ORDER_*
 * @present_map: enum thermocline_map: entries that map a page
 * @observable_map: entries whose accessed bit tells the truth; an unobservable page is not cold
 * @accessed_map: entries touched in the window
 * @dirty_map: entries whose dirty bit is set (never cleared by a scan)
 * @reserved: 0
 * @node_runs: number of struct thermocline_node_run at the end of the record; 0 in an idle one
 *
 * Payload: for present, observable, accessed, dirty in this order the words of each map that is
 * THERMOCLINE_MAP_BITS; then the node runs, whose counts add up to @count; then zero bytes up to a
 * multiple of 8. An entry that is not present has clear accessed, dirty and observable bits and the
 * node THERMOCLINE_NODE_NONE; one that is present may have NODE_NONE when its node isn't known.
 */
struct thermocline_record {
	__le32 magic;
	__le16 version;
	__le16 header_size;
	__le32 size;
	__le32 flags;
	__le64 asid;
	__le64 epoch;
	__le64 sequence;
	__le64 scan_ns;
	__le64 window_ns;
	__le64 first_page;
	__le32 count;
	__u8 order;
	__u8 present_map;
	__u8 observable_map;
	__u8 accessed_map;
	__u8 dirty_map;
	__u8 reserved[3];
	__le32 node_runs;
};

/**
 * struct thermocline_node_run - entries in a row on the same NUMA node
 * @node: node number, or THERMOCLINE_NODE_NONE
 * @count: entries, 1..65535
 */
struct thermocline_node_run {
	__le16 node;
	__le16 count;
};

/* ---------------------------------------------------------------- the device ------------------ */

/**
 * struct thermocline_info - what this module is
 * @abi_version: out: THERMOCLINE_ABI_VERSION of the module
 * @record_version: out: THERMOCLINE_RECORD_VERSION of the module
 * @features: out: THERMOCLINE_FEATURE_*
 * @max_lock_ns: out: bound that one hold of the target's mmap lock is kept to, nanoseconds
 * @attachments: out: open attachments, all users together
 * @reserved: out: 0
 */
struct thermocline_info {
	__u32 abi_version;
	__u32 record_version;
	__u64 features;
	__u64 max_lock_ns;
	__u32 attachments;
	__u32 reserved[5];
};

/* struct thermocline_info.features */
/** Synchronous scans that read and clear accessed bits. */
#define THERMOCLINE_FEATURE_SCAN (1ull << 0)
/** A scan can flush the TLBs of the CPUs that run the target once, when it has cleared: THERMOCLINE_SCAN_FLUSH. */
#define THERMOCLINE_FEATURE_FLUSH (1ull << 1)
/**
 * What a scan clears is handed on to the kernel's own page ageing, in the page's young flag. On a kernel
 * without that flag (no CONFIG_PAGE_IDLE_FLAG) the pages of a scanned process look unused to reclaim.
 */
#define THERMOCLINE_FEATURE_YOUNG (1ull << 2)
/** A scan can leave out what the accessed bits of upper-level entries show to be idle. */
#define THERMOCLINE_FEATURE_PRUNE (1ull << 3)
/** A thread of the module's own can scan, and publish its records in a ring: THERMOCLINE_IOC_START. */
#define THERMOCLINE_FEATURE_CONTINUOUS (1ull << 4)
/** A scan can read pages of shared areas that are mapped more than once: THERMOCLINE_SCAN_SHARED. */
#define THERMOCLINE_FEATURE_SHARED (1ull << 5)
/** A round's first pass can prune, too: THERMOCLINE_SCHEDULE_PRUNE_FIRST. Told where PRUNE is. */
#define THERMOCLINE_FEATURE_PRUNE_FIRST (1ull << 6)

/**
 * struct thermocline_attach - bind this open file to one address space
 * @pid: in: process, in the pid namespace of the caller
 * @flags: in: 0
 * @start_ticks: in: start time of the process, field 22 of /proc/PID/stat; a process with
 *	another start time is refused (-ESRCH), so a reused pid can't be attached by mistake
 * @asid: in: identity that the records will carry; not 0
 * @reserved: in: 0
 *
 * One open file has one attachment; a second attach is -EBUSY. close() detaches. The attachment
 * holds a reference that keeps the address space's identity, not its memory: a process that exits
 * or execs frees its memory at once (at the end of the running lock hold, if a scan is under way),
 * and the next scan returns -ESRCH. An address space shared by several processes (vfork, CLONE_VM)
 * lives as long as the last of them uses it.
 * Clearing through two attachments to one address space spoils the windows of both.
 * Errors: EINVAL reserved or unknown bits, asid 0, pid not positive; ESRCH no such process (the id of
 * a thread is none), a kernel thread, an exited process, or another start time; EBUSY attached
 * already; EFAULT bad pointer; ENOMEM; EINTR a fatal signal.
 */
struct thermocline_attach {
	__s32 pid;
	__u32 flags;
	__u64 start_ticks;
	__u64 asid;
	__u64 reserved[2];
};

/**
 * struct thermocline_range - pages [first_page, first_page + count), in 4 KiB pages
 */
struct thermocline_range {
	__u64 first_page;
	__u64 count;
};

/* struct thermocline_scan.flags */
/** Clear the accessed bits that are read. */
#define THERMOCLINE_SCAN_CLEAR (1u << 0)
/**
 * After clearing, flush the TLBs of the CPUs that run the target, once for the call. Only together
 * with CLEAR, and where THERMOCLINE_FEATURE_FLUSH is told. Without it, a touch through a translation that
 * a CPU still has cached goes unseen, as in the kernel's own ageing; with it, none does, at the price of
 * interrupting those CPUs and of emptying their whole TLBs, what they have of other processes included.
 * (An address space that AMD's INVLPGB has given one number on all CPUs, since Linux 6.15, may be cached
 * on any: there it is all CPUs.) CPUs that idle are left alone, and flush when they run the target again.
 */
#define THERMOCLINE_SCAN_FLUSH (1u << 1)
/**
 * Don't look into blocks of 2 MiB and of 1 GiB whose upper-level entry shows that nothing in them was
 * accessed: one THERMOCLINE_RECORD_IDLE record stands for all of them in a row. Only together with
 * CLEAR, and where THERMOCLINE_FEATURE_PRUNE is told. Worth it where cold memory lies in whole blocks.
 *
 * What is read is read as without it: only whole blocks inside one area and one range are ever left
 * out, none where pages may be unobservable, and none before a pass with PRUNE has found nothing
 * accessed in it. What can be missed is that a block that was idle is touched again: by a CPU that
 * still has the upper entry cached (unless the scan that found it idle flushed), and after the kernel's
 * own ageing took the mark away. A touch is not lost, but seen by the next pass without PRUNE. So begin
 * with a pass without it, which tells what "as last told" refers to, and do such a pass every so often:
 * every Nth pass without it bounds that delay to N windows. Pages that come, go or move in an idle
 * block by another's hand are told then, too.
 */
#define THERMOCLINE_SCAN_PRUNE (1u << 2)
/**
 * Read pages of MAP_SHARED areas that are mapped more than once like any others, instead of telling them
 * as not observable. For whoever scans all that map them, and puts together what each of them did; the
 * records in which there are such pages are THERMOCLINE_RECORD_SHARED. Only where
 * THERMOCLINE_FEATURE_SHARED is told.
 */
#define THERMOCLINE_SCAN_SHARED (1u << 3)
#define THERMOCLINE_SCAN_FLAGS_ALL                                                                 \
	(THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH | THERMOCLINE_SCAN_PRUNE |                \
	 THERMOCLINE_SCAN_SHARED)

/** Ranges that one call may name. */
#define THERMOCLINE_SCAN_MAX_RANGES 4096u
/** Bytes that @buffer must hold, at least: one record of the largest size the module emits. */
#define THERMOCLINE_SCAN_MIN_BUFFER 4096u

/**
 * struct thermocline_scan - read (and clear) accessed bits, one pass
 * @flags: in: THERMOCLINE_SCAN_*
 * @range_count: in: number of ranges; 0 = the whole address space
 * @ranges: in: pointer to struct thermocline_range[range_count], sorted, not overlapping, none
 *	empty, none beyond the largest address a program can have; not read when @range_count is 0
 * @epoch: in: copied into the records
 * @window_ns: in: copied into the records; 0 = the module fills in the time since this attachment's
 *	last clearing pass began (0 when there was none). A pass is a call with @resume_page 0 and the
 *	calls that resume it. Whoever clears different ranges at different times gives it himself.
 * @buffer: in: pointer to where the records go, 8-byte aligned
 * @buffer_size: in: bytes there, at least THERMOCLINE_SCAN_MIN_BUFFER
 * @resume_page: in/out: page to start from, 0 at first; out: where to go on when the buffer
 *	was full (call again with everything else unchanged), or 0 when the scan is complete
 * @bytes: out: bytes written to @buffer
 * @records: out: records written to @buffer
 * @entries: out: table entries looked at, present or not (4 KiB entries and 2 MiB leaves)
 * @accessed: out: entries found accessed
 * @skipped_pages: out: 4 KiB pages of address space in areas that can't be scanned: hugetlb, DAX,
 *	and PFN, IO and mixed mappings. No record covers them; they are unknown, not cold.
 * @elapsed_ns: out: time of the call
 * @max_lock_ns: out: longest single hold of the mmap lock in this call
 * @lock_drops: out: times the mmap lock was let go and taken again
 * @reserved0: in: 0
 * @idle_pages: out: 4 KiB pages of address space in THERMOCLINE_RECORD_IDLE records
 * @reserved: in: 0
 *
 * Records come by rising address. Addresses that were asked for, that are not among the skipped ones
 * and that no record covers have no page present. A huge page that a range touches only in part is
 * reported (and cleared) whole, and once. Swapped pages are not present. Pages that are being moved
 * just now, and the rest of a huge page whose first part was small pages when this pass read it, are
 * present and not observable: unknown, not cold. The shared
 * zero page is present, not observable, with no node. Once the address space has had a second MMU on
 * it (a KVM guest, a device), entries that are not accessed are not observable. An area that was
 * mapped with PROT_NONE keeps its pages and its bits.
 * An area with a memory policy of its own (mbind(2), not MPOL_DEFAULT) is the program's to place: its
 * pages are told with their node as present and not observable, and their accessed bits are neither
 * told nor cleared. The policy of a thread (set_mempolicy(2)) doesn't count, nor does one that
 * another process set on shared memory. The same holds for pages of a file mapping (shared memory
 * included) that are mapped more than once, as what others do with them is not seen here; but see
 * THERMOCLINE_SCAN_SHARED.
 * The mmap lock is let go between table pages; what is mapped or unmapped meanwhile may or may not be
 * seen, as with any list that is read while it changes.
 *
 * Errors: EINVAL bad flags, reserved bits, ranges, alignment or sizes; ENOTCONN not attached; ESRCH
 * the address space is gone (exit or exec); EBUSY the file's thread runs (THERMOCLINE_IOC_START); EFAULT
 * bad pointer; ENOMEM; EINTR a fatal signal. After an error nothing is told about the records of the
 * call: what they cleared is lost, and the sequence of the next record shows how many there were.
 */
struct thermocline_scan {
	__u32 flags;
	__u32 range_count;
	__u64 ranges;
	__u64 epoch;
	__u64 window_ns;
	__u64 buffer;
	__u64 buffer_size;
	__u64 resume_page;
	__u64 bytes;
	__u64 records;
	__u64 entries;
	__u64 accessed;
	__u64 skipped_pages;
	__u64 elapsed_ns;
	__u64 max_lock_ns;
	__u32 lock_drops;
	__u32 reserved0;
	__u64 idle_pages;
	__u64 reserved[3];
};

/* ---------------------------------------------------------------- continuous mode -------------- */

/*
 * A thread of the module scans in rounds. A round is one pass over the ranges, and then @windows more,
 * each @window_ns after the end of the one before; between rounds the thread sleeps. What it finds
 * goes to a ring that is mapped with mmap(2).
 */

/* struct thermocline_schedule.flags, besides THERMOCLINE_SCAN_* */
/** Begin a round now. */
#define THERMOCLINE_SCHEDULE_ROUND (1u << 16)
/**
 * A round's first pass prunes like its others, so memory that stays idle from round to round isn't read
 * at all. Only together with THERMOCLINE_SCAN_PRUNE, and where THERMOCLINE_FEATURE_PRUNE_FIRST is told. A
 * round without it, every so often, finds what pruned passes miss (see THERMOCLINE_SCAN_PRUNE).
 */
#define THERMOCLINE_SCHEDULE_PRUNE_FIRST (1u << 17)
#define THERMOCLINE_SCHEDULE_FLAGS_ALL                                                             \
	(THERMOCLINE_SCAN_FLAGS_ALL | THERMOCLINE_SCHEDULE_ROUND | THERMOCLINE_SCHEDULE_PRUNE_FIRST)

#define THERMOCLINE_SCHEDULE_MAX_WINDOWS 64u
#define THERMOCLINE_SCHEDULE_MIN_WINDOW_NS 100000ull /* 100 us */
#define THERMOCLINE_SCHEDULE_MIN_PERIOD_NS 1000000ull /* 1 ms */
#define THERMOCLINE_SCHEDULE_MIN_BUDGET_PPM 100u
#define THERMOCLINE_SCHEDULE_MAX_NS 3600000000000ull /* 1 h: of a window, a period, a burst */

/**
 * struct thermocline_schedule - what the thread of an attachment does
 * @flags: in: THERMOCLINE_SCAN_*, for every pass (THERMOCLINE_SCAN_PRUNE: for all but a round's first,
 *	unless THERMOCLINE_SCHEDULE_PRUNE_FIRST is there as well), and THERMOCLINE_SCHEDULE_*
 * @windows: in: passes of a round after its first, 0..THERMOCLINE_SCHEDULE_MAX_WINDOWS
 * @window_ns: in: from the end of a pass to the begin of the next one of its round;
 *	THERMOCLINE_SCHEDULE_MIN_WINDOW_NS..MAX_NS, or 0 when @windows is 0
 * @period_ns: in: from the begin of a round to the begin of the next; MIN_PERIOD_NS..MAX_NS, or
 *	0 = a round begins only when it is asked for (THERMOCLINE_SCHEDULE_ROUND). A round that takes
 *	longer than the period is followed by the next one; none is made up for.
 * @epoch: in: epoch in the records of the next round; each round after it counts one more
 * @range_count: in: as in struct thermocline_scan
 * @ranges: in: as in struct thermocline_scan; copied
 * @budget_ppm: in: CPU time that the thread may take, in millionths of one CPU, MIN_BUDGET_PPM..1000000;
 *	0 = any. Kept by beginning rounds later; a round that has begun isn't drawn out, as that would
 *	spoil its windows. The CPU time of other CPUs that THERMOCLINE_SCAN_FLUSH interrupts isn't counted.
 * @nice: in: nice value of the thread, 0..19
 * @burst_ns: in: CPU time that is saved up at most while the thread takes less than its budget, and
 *	with which it starts; 0..MAX_NS, and 0 when @budget_ppm is
 * @reserved: in: 0
 */
struct thermocline_schedule {
	__u32 flags;
	__u32 windows;
	__u64 window_ns;
	__u64 period_ns;
	__u64 epoch;
	__u64 ranges;
	__u32 range_count;
	__u32 budget_ppm;
	__u64 burst_ns;
	__s32 nice;
	__u32 reserved0;
	__u64 reserved[4];
};

/** Bytes of records that a ring holds: a power of two between these. */
#define THERMOCLINE_RING_MIN_BYTES (64u << 10)
#define THERMOCLINE_RING_MAX_BYTES (64u << 20)

/**
 * struct thermocline_start - begin to scan continuously
 * @schedule: in
 * @ring_bytes: in: THERMOCLINE_RING_MIN_BYTES..MAX_BYTES, a power of two
 * @map_bytes: out: length to give to mmap(2), with offset 0 and MAP_SHARED, on a file opened for reading and
 *	writing (on one that was opened O_RDONLY mmap(2) is EINVAL)
 * @reserved: in: 0
 *
 * Each START makes a new ring: map it after the call. The mapping of an older one stays what it was.
 * The thread goes when STOP is called, when the file is closed for good (a descriptor that was dup'ed
 * or inherited, and a mapping, keep it open), and by itself when the address space is gone.
 * Errors: EINVAL a value out of its bounds, unknown flags, reserved bits, bad ranges; ENOTCONN not
 * attached; EBUSY it runs already (STOP first, also after the address space is gone); ESRCH the address
 * space is gone; EFAULT; ENOMEM; EINTR a fatal signal.
 */
struct thermocline_start {
	struct thermocline_schedule schedule;
	__u64 ring_bytes;
	__u64 map_bytes;
	__u64 reserved[4];
};

/**
 * struct thermocline_ring_header - the first page of the mapping
 * @data_offset: bytes from the begin of the mapping to the data
 * @data_bytes: the ring's size, a power of two
 * @produced: bytes that were ever published; the kernel's position
 * @dropped_records: records that found no room
 * @dropped_bytes: their bytes
 * @overflows: times that the ring went from having room to having none
 * @rounds: rounds that were finished, each with the mark of its last pass
 * @consumed: bytes that were ever taken out; user space's position, at most @produced
 * @doorbell: unread bytes at which poll(2) wakes before the round is over; 0 or more than half of the
 *	ring = half of it
 *
 * The kernel writes what stands before @consumed and never reads it; it reads @consumed and @doorbell,
 * and trusts neither: a position that isn't between the last good one and @produced is passed over and
 * counted (@bad_positions of the STATS). Whatever user space writes to the mapping spoils its own data
 * only. @consumed and @doorbell have a cache line of their own.
 *
 * The data is mapped twice, one right behind the other: what begins at data_offset +
 * (position % data_bytes) is in one piece, wherever the ring ends, so there is no padding and no
 * record that must be put together.
 *
 * To read: load @produced with acquire; what lies between @consumed and it is whole; be done with it;
 * then store @consumed with release. Between records there are marks (struct thermocline_mark).
 * Everything in the ring begins with the magic, version, header_size and size of struct
 * thermocline_record and is 8-byte aligned.
 *
 * A record for which there is no room is dropped; older ones are never overwritten. Its sequence number
 * is used up, so the gap tells how many there were and where. Marks have room of their own, for those of
 * one round; only if that is used up, too, are marks lost.
 *
 * poll(2): EPOLLIN while records or marks of a finished round are unread, or as many bytes as
 * @doorbell says; EPOLLHUP when the address space is gone (noticed at the next pass, and between rounds
 * within a second, or ten while the budget holds them back). Nothing before the first START.
 */
struct thermocline_ring_header {
	__u64 data_offset;
	__u64 data_bytes;
	__u64 produced;
	__u64 dropped_records;
	__u64 dropped_bytes;
	__u64 overflows;
	__u64 rounds;
	__u64 reserved0[9];
	__u64 consumed;
	__u64 doorbell;
	__u64 reserved1[14];
};

#define THERMOCLINE_MARK_MAGIC 0x314d4354u /* "TCM1" */
#define THERMOCLINE_MARK_VERSION 1

/**
 * struct thermocline_mark - stands in the ring behind the records of a pass
 * @magic: THERMOCLINE_MARK_MAGIC
 * @version: THERMOCLINE_MARK_VERSION
 * @header_size: sizeof(struct thermocline_mark)
 * @size: bytes of the whole mark, a multiple of 8
 * @flags: THERMOCLINE_RECORD_CLEARED when the pass cleared
 * @asid: as in the records
 * @epoch: as in the records of the pass
 * @sequence: of the next record
 * @began_ns: CLOCK_MONOTONIC at which the pass began, nanoseconds
 * @elapsed_ns: how long it took
 * @window_ns: as in the records of the pass
 * @entries: as in struct thermocline_scan, like the following
 * @accessed: entries found accessed
 * @skipped_pages: pages of areas that can't be scanned
 * @max_lock_ns: longest single hold of the mmap lock
 * @records: records of the pass, those that were dropped included
 * @dropped_records: of these, the dropped ones
 * @bytes: of the records that were not dropped
 * @pass: 0 for the first pass of a round, whose window was the time between rounds
 * @windows: number of the round's last pass
 */
struct thermocline_mark {
	__le32 magic;
	__le16 version;
	__le16 header_size;
	__le32 size;
	__le32 flags;
	__le64 asid;
	__le64 epoch;
	__le64 sequence;
	__le64 began_ns;
	__le64 elapsed_ns;
	__le64 window_ns;
	__le64 entries;
	__le64 accessed;
	__le64 skipped_pages;
	__le64 max_lock_ns;
	__le64 records;
	__le64 dropped_records;
	__le64 bytes;
	__le32 pass;
	__le32 windows;
};

/** struct thermocline_stats.state */
#define THERMOCLINE_STATE_IDLE 0 /* no thread: never started, or stopped */
#define THERMOCLINE_STATE_RUNNING 1
#define THERMOCLINE_STATE_GONE 2 /* the address space is gone, and the thread with it */

#define THERMOCLINE_STATS_HOLDS 32u

/**
 * struct thermocline_stats - what an attachment has done, all its STARTs together
 * @state: out: THERMOCLINE_STATE_*
 * @tid: out: id of the running thread, for those who want to pin or watch it; 0 = none, or not visible
 *	in the caller's pid namespace
 * @rounds: out: finished rounds
 * @passes: out: finished passes
 * @entries: out: entries looked at, as in struct thermocline_scan
 * @accessed: out: entries found accessed
 * @records: out: records made, dropped ones included
 * @skipped_pages: out: pages of areas that can't be scanned, all passes together
 * @cpu_ns: out: CPU time of the threads
 * @walk_ns: out: time between begin and end of passes
 * @stretched_ns: out: time that rounds began late to keep the budget
 * @max_lock_ns: out: longest single hold of the mmap lock
 * @lock_drops: out: times that the lock was let go within a pass
 * @dropped_records: out: records that found no room in the ring
 * @dropped_bytes: out: their bytes
 * @dropped_marks: out: marks that found none
 * @overflows: out: times that a ring went from having room to having none
 * @bad_positions: out: times that a @consumed was passed over because it can't be
 * @holds: out: holds of the mmap lock, synchronous scans included: holds[i] lasted 2^i nanoseconds or
 *	more, and less than twice that; the last one is for everything longer
 * @reserved: out: 0
 */
struct thermocline_stats {
	__u32 state;
	__s32 tid;
	__u64 rounds;
	__u64 passes;
	__u64 entries;
	__u64 accessed;
	__u64 records;
	__u64 skipped_pages;
	__u64 cpu_ns;
	__u64 walk_ns;
	__u64 stretched_ns;
	__u64 max_lock_ns;
	__u64 lock_drops;
	__u64 dropped_records;
	__u64 dropped_bytes;
	__u64 dropped_marks;
	__u64 overflows;
	__u64 bad_positions;
	__u64 holds[THERMOCLINE_STATS_HOLDS];
	__u64 reserved[8];
};

#define THERMOCLINE_IOC_TYPE 0xb7
#define THERMOCLINE_IOC_INFO _IOR(THERMOCLINE_IOC_TYPE, 0x00, struct thermocline_info)
#define THERMOCLINE_IOC_ATTACH _IOW(THERMOCLINE_IOC_TYPE, 0x01, struct thermocline_attach)
#define THERMOCLINE_IOC_SCAN _IOWR(THERMOCLINE_IOC_TYPE, 0x02, struct thermocline_scan)
/* Errors: see struct thermocline_start. */
#define THERMOCLINE_IOC_START _IOWR(THERMOCLINE_IOC_TYPE, 0x03, struct thermocline_start)
/* Ends the thread and waits for it; what it published can still be read. ENOTCONN when there is none. */
#define THERMOCLINE_IOC_STOP _IO(THERMOCLINE_IOC_TYPE, 0x04)
/*
 * Another schedule, all of it, from the next round on: a round under way ends as it began. Errors: EINVAL
 * as for START; ENOTCONN no thread; ESRCH the address space is gone; EFAULT; ENOMEM; EINTR.
 */
#define THERMOCLINE_IOC_CONFIGURE _IOW(THERMOCLINE_IOC_TYPE, 0x05, struct thermocline_schedule)
/* Errors: EFAULT; EINTR. */
#define THERMOCLINE_IOC_STATS _IOR(THERMOCLINE_IOC_TYPE, 0x06, struct thermocline_stats)

#endif /* THERMOCLINE_UAPI_H */

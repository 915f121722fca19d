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
#define THERMOCLINE_RECORD_FLAGS_ALL (THERMOCLINE_RECORD_CLEARED | THERMOCLINE_RECORD_WRITES_ONLY)

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
 * @node_runs: number of struct thermocline_node_run at the end of the record
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
/** A scan can flush the TLBs of the CPUs that run the target once, when it has cleared. */
#define THERMOCLINE_FEATURE_FLUSH (1ull << 1)
/**
 * What a scan clears is handed on to the kernel's own page ageing, in the page's young flag. On a kernel
 * without that flag (no CONFIG_PAGE_IDLE_FLAG) the pages of a scanned process look unused to reclaim.
 */
#define THERMOCLINE_FEATURE_YOUNG (1ull << 2)

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
 * with CLEAR. Without it, a touch through a translation that a CPU still has cached goes unseen, as
 * in the kernel's own ageing; with it, none does, at the price of interrupting those CPUs.
 */
#define THERMOCLINE_SCAN_FLUSH (1u << 1)
#define THERMOCLINE_SCAN_FLAGS_ALL (THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH)

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
 *	and PFN, IO and mixed mappings; and the rest of a huge page whose first part was small pages
 *	when this pass read it. No record covers them; they are unknown, not cold.
 * @elapsed_ns: out: time of the call
 * @max_lock_ns: out: longest single hold of the mmap lock in this call
 * @lock_drops: out: times the mmap lock was let go and taken again
 * @reserved0: in: 0
 * @reserved: in: 0
 *
 * Records come by rising address. Addresses that were asked for, that are not among the skipped ones
 * and that no record covers have no page present. A huge page that a range touches only in part is
 * reported (and cleared) whole, and once. Swapped and migrating pages are not present. The shared
 * zero page is present, not observable, with no node. Once the address space has had a second MMU on
 * it (a KVM guest, a device), entries that are not accessed are not observable. An area that was
 * mapped with PROT_NONE keeps its pages and its bits.
 * An area with a memory policy of its own (mbind(2), not MPOL_DEFAULT) is the program's to place: its
 * pages are told with their node as present and not observable, and their accessed bits are neither
 * told nor cleared. The policy of a thread (set_mempolicy(2)) doesn't count, nor does one that
 * another process set on shared memory. The same holds for pages of a file mapping (shared memory
 * included) that are mapped more than once: what others do with them is not seen here.
 * The mmap lock is let go between table pages; what is mapped or unmapped meanwhile may or may not be
 * seen, as with any list that is read while it changes.
 *
 * Errors: EINVAL bad flags, reserved bits, ranges, alignment or sizes; ENOTCONN not attached; ESRCH
 * the address space is gone (exit or exec); EFAULT bad pointer; ENOMEM; EINTR a fatal signal. After an
 * error nothing is told about the records of the call: what they cleared is lost, and the sequence
 * of the next record shows how many there were.
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
	__u64 reserved[4];
};

#define THERMOCLINE_IOC_TYPE 0xb7
#define THERMOCLINE_IOC_INFO _IOR(THERMOCLINE_IOC_TYPE, 0x00, struct thermocline_info)
#define THERMOCLINE_IOC_ATTACH _IOW(THERMOCLINE_IOC_TYPE, 0x01, struct thermocline_attach)
#define THERMOCLINE_IOC_SCAN _IOWR(THERMOCLINE_IOC_TYPE, 0x02, struct thermocline_scan)

#endif /* THERMOCLINE_UAPI_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints, in /sys/kernel/tracing/events/thermocline: each pass as it begins and ends, and loss.
 * They are for people; nothing of ours reads them, and their fields may change.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM thermocline

#if !defined(THERMOCLINE_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define THERMOCLINE_TRACE_H

#include <linux/tracepoint.h>

TRACE_EVENT(scan_begin,
	TP_PROTO(u64 asid, u64 epoch, u32 flags, u64 window_ns),
	TP_ARGS(asid, epoch, flags, window_ns),
	TP_STRUCT__entry(
		__field(u64, asid)
		__field(u64, epoch)
		__field(u32, flags)
		__field(u64, window_ns)
	),
	TP_fast_assign(
		__entry->asid = asid;
		__entry->epoch = epoch;
		__entry->flags = flags;
		__entry->window_ns = window_ns;
	),
	TP_printk("asid=%llx epoch=%llu flags=%x window_ns=%llu", __entry->asid, __entry->epoch,
		  __entry->flags, __entry->window_ns)
);

TRACE_EVENT(scan_end,
	TP_PROTO(u64 asid, int error, const struct thermocline_scan *scan),
	TP_ARGS(asid, error, scan),
	TP_STRUCT__entry(
		__field(u64, asid)
		__field(int, error)
		__field(u64, entries)
		__field(u64, accessed)
		__field(u64, records)
		__field(u64, elapsed_ns)
		__field(u64, max_lock_ns)
		__field(u32, lock_drops)
	),
	TP_fast_assign(
		__entry->asid = asid;
		__entry->error = error;
		__entry->entries = scan->entries;
		__entry->accessed = scan->accessed;
		__entry->records = scan->records;
		__entry->elapsed_ns = scan->elapsed_ns;
		__entry->max_lock_ns = scan->max_lock_ns;
		__entry->lock_drops = scan->lock_drops;
	),
	TP_printk("asid=%llx error=%d entries=%llu accessed=%llu records=%llu elapsed_ns=%llu max_lock_ns=%llu lock_drops=%u",
		  __entry->asid, __entry->error, __entry->entries, __entry->accessed,
		  __entry->records, __entry->elapsed_ns, __entry->max_lock_ns, __entry->lock_drops)
);

TRACE_EVENT(ring_overflow,
	TP_PROTO(u64 records, u64 bytes, u64 ring_bytes),
	TP_ARGS(records, bytes, ring_bytes),
	TP_STRUCT__entry(
		__field(u64, records)
		__field(u64, bytes)
		__field(u64, ring_bytes)
	),
	TP_fast_assign(
		__entry->records = records;
		__entry->bytes = bytes;
		__entry->ring_bytes = ring_bytes;
	),
	TP_printk("dropped_records=%llu dropped_bytes=%llu ring_bytes=%llu", __entry->records,
		  __entry->bytes, __entry->ring_bytes)
);

#endif /* THERMOCLINE_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

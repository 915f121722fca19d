// SPDX-License-Identifier: GPL-2.0
/*
 * Writes access records: the one place in the kernel that knows their layout.
 */
#include <linux/align.h>
#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/string.h>

#include "module.h"

/* Chooses how a map is stored, and writes its words if they must be; returns the new end. */
static __le64 *write_map(const u64 *map, u32 count, __le64 *out, u8 *how)
{
	u32 words = DIV_ROUND_UP(count, 64), i;
	u64 last = count % 64 ? GENMASK_ULL(count % 64 - 1, 0) : ~0ull;
	bool zeros = true, ones = true;

	for (i = 0; i < words; i++) {
		zeros &= map[i] == 0;
		ones &= map[i] == (i + 1 < words ? ~0ull : last);
	}
	if (zeros || ones) {
		*how = zeros ? THERMOCLINE_MAP_ZEROS : THERMOCLINE_MAP_ONES;
		return out;
	}
	*how = THERMOCLINE_MAP_BITS;
	for (i = 0; i < words; i++)
		*out++ = cpu_to_le64(map[i]);
	return out;
}

size_t thermocline_record_write(const struct thermocline_run *run,
				const struct thermocline_stamp *stamp, u64 sequence, void *out)
{
	struct thermocline_record *record = out;
	struct thermocline_node_run *node;
	__le64 *words = (__le64 *)(record + 1);
	size_t size;
	u32 count, i;

	BUILD_BUG_ON(sizeof(struct thermocline_record) != 80);
	BUILD_BUG_ON(sizeof(struct thermocline_record) % sizeof(u64));
	BUILD_BUG_ON(THERMOCLINE_RUN_MAX_BYTES > THERMOCLINE_SCAN_MIN_BUFFER);

	/* Of an idle run there are more entries than bits in its maps; they are all 0. */
	count = run->idle ? 0 : run->count;
	words = write_map(run->map[THERMOCLINE_PRESENT], count, words, &record->present_map);
	words = write_map(run->map[THERMOCLINE_OBSERVABLE], count, words, &record->observable_map);
	words = write_map(run->map[THERMOCLINE_ACCESSED], count, words, &record->accessed_map);
	words = write_map(run->map[THERMOCLINE_DIRTY], count, words, &record->dirty_map);

	node = (struct thermocline_node_run *)words;
	for (i = 0; i < run->node_runs; i++, node++) {
		node->node = cpu_to_le16(run->nodes[i].node);
		node->count = cpu_to_le16(run->nodes[i].count);
	}
	size = (u8 *)node - (u8 *)out;
	memset(node, 0, ALIGN(size, 8) - size);
	size = ALIGN(size, 8);

	record->magic = cpu_to_le32(THERMOCLINE_RECORD_MAGIC);
	record->version = cpu_to_le16(THERMOCLINE_RECORD_VERSION);
	record->header_size = cpu_to_le16(sizeof(*record));
	record->size = cpu_to_le32(size);
	record->flags = cpu_to_le32(stamp->flags | (run->idle ? THERMOCLINE_RECORD_IDLE : 0) |
				    (run->shared ? THERMOCLINE_RECORD_SHARED : 0));
	record->asid = cpu_to_le64(stamp->asid);
	record->epoch = cpu_to_le64(stamp->epoch);
	record->sequence = cpu_to_le64(sequence);
	record->scan_ns = cpu_to_le64(run->scan_ns);
	record->window_ns = cpu_to_le64(stamp->window_ns);
	record->first_page = cpu_to_le64(run->first_page);
	record->count = cpu_to_le32(run->count);
	record->order = run->order;
	memset(record->reserved, 0, sizeof(record->reserved));
	record->node_runs = cpu_to_le32(run->node_runs);
	return size;
}

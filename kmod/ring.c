// SPDX-License-Identifier: GPL-2.0
/*
 * The ring between a thread and user space: pages that both have mapped, and positions in them.
 *
 * One thread produces; user space consumes. The data is mapped twice in a row, here and there, so that
 * a batch of records that runs over the end is still one copy, and a reader sees each record in one
 * piece; a ring whose records are padded at the end would cost both sides a case, and room.
 *
 * What is known is kept here and only told in the header page: whatever user space writes there, the
 * kernel goes by its own numbers. It reads two words of that page, each once: a position, which is
 * good only if it moves forward and not past what was produced, and a threshold, which may be anything.
 * A good position frees room, a bad one frees none, so a lying reader harms its own records.
 */
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "module.h"
#include "trace.h"

/* Room that records leave to the marks of one round. */
#define MARKS_BYTES ((THERMOCLINE_SCHEDULE_MAX_WINDOWS + 1) * sizeof(struct thermocline_mark))

static_assert(sizeof(struct thermocline_ring_header) == 256);
static_assert(offsetof(struct thermocline_ring_header, consumed) == 128);
static_assert(sizeof(struct thermocline_mark) == 128);
static_assert(2 * MARKS_BYTES < THERMOCLINE_RING_MIN_BYTES);
static_assert(THERMOCLINE_BOUNCE_BYTES <= THERMOCLINE_RING_MIN_BYTES);

/* ------------------------------------------------------------------ publishing ----------------- */

/* Bytes that the ring has room for, after a look at how far user space is. By the producer. */
static u64 free_bytes(struct thermocline_ring *ring)
{
	/* Pairs with the release of user space: it has read what is before this position. */
	const u64 position = smp_load_acquire(&ring->header->consumed);
	u64 room;

	spin_lock(&ring->lock);
	if (position - ring->consumed <= ring->produced - ring->consumed)
		ring->consumed = position;
	else
		ring->bad_positions++;
	room = ring->size - (ring->produced - ring->consumed);
	spin_unlock(&ring->lock);
	return room;
}

/* By the producer: nobody else moves @produced. */
static void publish(struct thermocline_ring *ring, const void *from, size_t bytes)
{
	memcpy(ring->data + (ring->produced & (ring->size - 1)), from, bytes);
	spin_lock(&ring->lock);
	ring->produced += bytes;
	spin_unlock(&ring->lock);
	/* Pairs with the acquire of user space: it sees whole records. */
	smp_store_release(&ring->header->produced, ring->produced);
}

static u32 size_of(const void *record)
{
	return le32_to_cpu(((const struct thermocline_record *)record)->size);
}

/* Counts the records that found no room. */
static void drop(struct thermocline_ring *ring, const u8 *records, size_t bytes)
{
	u64 count = 0;
	size_t at;

	for (at = 0; at < bytes; at += size_of(records + at))
		count++;
	spin_lock(&ring->lock);
	ring->overflows += !ring->overflowing;
	ring->dropped_records += count;
	ring->dropped_bytes += bytes;
	spin_unlock(&ring->lock);
	ring->overflowing = true;
	trace_ring_overflow(count, bytes, ring->size);
	WRITE_ONCE(ring->header->overflows, ring->overflows);
	WRITE_ONCE(ring->header->dropped_records, ring->dropped_records);
	WRITE_ONCE(ring->header->dropped_bytes, ring->dropped_bytes);
}

static void wake(struct thermocline_ring *ring)
{
	if (thermocline_ring_is_ready(ring))
		wake_up_interruptible_poll(ring->wait, EPOLLIN | EPOLLRDNORM);
}

/* What the walk calls. As many of the records as there is room for; the rest is dropped. */
static int ring_put(struct thermocline_sink *sink, const void *records, size_t bytes)
{
	struct thermocline_ring *ring = container_of(sink, struct thermocline_ring, sink);
	const u64 room = free_bytes(ring);
	size_t fit = bytes;

	if (unlikely(room < bytes + MARKS_BYTES)) {
		fit = 0;
		while (fit < bytes && fit + size_of(records + fit) + MARKS_BYTES <= room)
			fit += size_of(records + fit);
	}
	if (fit < bytes)
		drop(ring, records + fit, bytes - fit);
	else if (bytes)
		ring->overflowing = false;
	if (fit) {
		publish(ring, records, fit);
		wake(ring);
	}
	return 0;
}

void thermocline_ring_mark(struct thermocline_ring *ring, const struct thermocline_mark *mark,
			   bool ends_round)
{
	if (free_bytes(ring) >= sizeof(*mark)) {
		publish(ring, mark, sizeof(*mark));
	} else {
		spin_lock(&ring->lock);
		ring->dropped_marks++;
		spin_unlock(&ring->lock);
	}
	if (!ends_round)
		return;
	spin_lock(&ring->lock);
	ring->boundary = ring->produced;
	ring->rounds++;
	spin_unlock(&ring->lock);
	WRITE_ONCE(ring->header->rounds, ring->rounds);
	wake(ring);
}

/* ------------------------------------------------------------------ asking --------------------- */

bool thermocline_ring_is_ready(struct thermocline_ring *ring)
{
	const u64 position = READ_ONCE(ring->header->consumed);
	u64 doorbell = READ_ONCE(ring->header->doorbell);
	u64 consumed;
	bool ready;

	if (!doorbell || doorbell > ring->size / 2)
		doorbell = ring->size / 2;
	spin_lock(&ring->lock);
	consumed = ring->consumed;
	if (position - consumed <= ring->produced - consumed)
		consumed = position;
	ready = consumed < ring->boundary || ring->produced - consumed >= doorbell;
	spin_unlock(&ring->lock);
	return ready;
}

void thermocline_ring_stats(struct thermocline_ring *ring, struct thermocline_stats *stats)
{
	spin_lock(&ring->lock);
	stats->dropped_records += ring->dropped_records;
	stats->dropped_bytes += ring->dropped_bytes;
	stats->dropped_marks += ring->dropped_marks;
	stats->overflows += ring->overflows;
	stats->bad_positions += ring->bad_positions;
	spin_unlock(&ring->lock);
}

/* ------------------------------------------------------------------ memory --------------------- */

u64 thermocline_ring_map_bytes(const struct thermocline_ring *ring)
{
	return PAGE_SIZE + 2 * ring->size;
}

static void free_ring(struct thermocline_ring *ring)
{
	u32 i;

	if (ring->header)
		vunmap(ring->header);
	/* A page that is still mapped has a reference of the mapping's. */
	for (i = 0; i < ring->page_count; i++)
		__free_page(ring->pages[i]);
	kvfree(ring->pages);
	kfree(ring);
}

struct thermocline_ring *thermocline_ring_create(u64 size, wait_queue_head_t *wait)
{
	const u32 data_pages = size >> PAGE_SHIFT;
	struct thermocline_ring *ring = kzalloc(sizeof(*ring), GFP_KERNEL_ACCOUNT);
	u32 i;

	if (!ring)
		return NULL;
	ring->sink.put = ring_put;
	ring->sink.room = U64_MAX;
	refcount_set(&ring->users, 1);
	spin_lock_init(&ring->lock);
	ring->wait = wait;
	ring->size = size;
	ring->pages = kvmalloc_array(1 + 2 * data_pages, sizeof(*ring->pages), GFP_KERNEL_ACCOUNT);
	if (!ring->pages)
		goto fail;
	for (; ring->page_count < 1 + data_pages; ring->page_count++) {
		struct page *page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);

		if (!page)
			goto fail;
		ring->pages[ring->page_count] = page;
	}
	for (i = 0; i < data_pages; i++)
		ring->pages[1 + data_pages + i] = ring->pages[1 + i];
	/* VM_USERMAP: what remap_vmalloc_range() asks for. */
	ring->header = vmap(ring->pages, 1 + 2 * data_pages, VM_MAP | VM_USERMAP, PAGE_KERNEL);
	if (!ring->header)
		goto fail;
	ring->data = (u8 *)ring->header + PAGE_SIZE;
	ring->header->data_offset = PAGE_SIZE;
	ring->header->data_bytes = size;
	return ring;

fail:
	free_ring(ring);
	return NULL;
}

void thermocline_ring_put(struct thermocline_ring *ring)
{
	if (refcount_dec_and_test(&ring->users))
		free_ring(ring);
}

static vm_fault_t no_page(struct vm_fault *fault)
{
	return VM_FAULT_SIGBUS;
}

/* An area without operations would be taken for an anonymous one. */
static const struct vm_operations_struct ring_area = {
	.fault = no_page, /* all pages are mapped at once; one that user space threw away is gone */
};

int thermocline_ring_map(struct thermocline_ring *ring, struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_SHARED) || vma->vm_pgoff ||
	    vma->vm_end - vma->vm_start != thermocline_ring_map_bytes(ring))
		return -EINVAL;
	vma->vm_ops = &ring_area;
	return remap_vmalloc_range(vma, ring->header, 0);
}

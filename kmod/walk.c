// SPDX-License-Identifier: GPL-2.0
/*
 * Reads page tables: which pages are there, touched, written, and on which node.
 *
 * Why this is safe, level by level (kmod/README.md has the long form):
 *   address space  mm_users is held while the mmap lock is, so exit_mmap() can't run under the walk
 *   upper levels   tables under a VMA are freed under the mmap write lock only, which the read lock
 *                  keeps out; no address outside a VMA is ever looked up
 *   PMD leaf       read and cleared under the PMD lock, after a recheck
 *   PTE table      may be taken away by khugepaged without the mmap lock (file mappings, since 6.6),
 *                  but is then freed by RCU. So the PMD is read inside RCU: what it names can't be
 *                  reused before RCU is left. Then the table's lock is taken and the PMD compared,
 *                  as pte_offset_map_lock() does, which isn't exported
 *   upper entry    its accessed bit is changed under the lock of its level, while it still names the table
 *   accessed bit   cleared by one atomic instruction, as the CPU may set dirty at the same time, and
 *                  under the table's lock, as that bit means something else in a swap entry
 *
 * Nothing is ever split, faulted in, allocated or pinned here. What is written is page tables and, where
 * the kernel has it, the young flag of a page whose accessed bit was cleared.
 */
#include <linux/bitops.h>
#include <linux/dax.h>
#include <linux/hugetlb_inline.h>
#include <linux/log2.h>
#include <linux/memory_hotplug.h>
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/page_idle.h>
#include <linux/pgtable.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/smp.h>
#include <linux/timekeeping.h>

#include <asm/tlbflush.h>

#include "compat.h"
#include "module.h"
#include "trace.h"

#ifndef CONFIG_X86_64
#error "thermocline reads x86-64 page tables; there is no support for other machines yet"
#endif
static_assert(PAGE_SHIFT == 12 && PTRS_PER_PTE == THERMOCLINE_RUN_ENTRIES);

/**
 * struct walk - one scan call
 * @att: attachment, locked
 * @mm: its address space
 * @scan: the request, whose out fields are counted up
 * @stamp: what all its records say
 * @clear: accessed bits are cleared when read
 * @mend: where something was accessed, the bits of the entries above it shall be set
 * @prune: tables whose own accessed bit is clear are not descended into
 * @shared: pages of shared areas are read although others map them
 * @cleared_any: at least one was
 * @met_moving: the table page under way has a page that is on its way elsewhere
 * @second_mmu: something besides the CPUs uses the address space, or did (a KVM guest, a device),
 *	whose touches the accessed bits don't show: a clear bit then tells nothing
 * @ranges: what was asked for
 * @range: first range that isn't finished
 * @left: ranges from there on; more() first
 * @address: where the walk stands
 * @used: bytes of records in the bounce buffer
 * @room: bytes that the sink still takes, those in the bounce buffer already taken off
 * @now: the clock, at most one table page old
 */
struct walk {
	struct thermocline_attachment *att;
	struct mm_struct *mm;
	struct thermocline_scan *scan;
	struct thermocline_stamp stamp;
	bool clear;
	bool mend;
	bool prune;
	bool shared;
	bool cleared_any;
	bool met_moving;
	bool second_mmu;
	const struct thermocline_range *ranges;
	const struct thermocline_range *range;
	u32 left;
	unsigned long address;
	size_t used;
	u64 room;
	u64 now;
};

/* ------------------------------------------------------------------ the node of a page --------- */

/* All that an entry can name. */
#define MAX_BLOCK_ORDER (52 - PAGE_SHIFT)

/*
 * The largest aligned block of pages around @pfn that no other node reaches into is of the node of @pfn.
 * Where nodes lie within each other's span, a section whose first and last page are of one node is of
 * that node: firmware describes memory in ranges of many sections. In any other section, each page is
 * asked. The entry that names @pfn is present and locked, so the page can't go away meanwhile.
 *
 * Say node 0 spans 0-66 GiB and node 1 66-130 GiB. Then a page at 5 GiB stands for 0-64 GiB, one at
 * 65 GiB for 64-66, one at 70 for 68-72, and one at 90 for 80-96.
 */
static noinline u8 learn_node(struct thermocline_node_cache *cache, unsigned long pfn, u16 *node)
{
	const unsigned long section = pfn_to_section_nr(pfn);
	const u32 i = section % ARRAY_SIZE(cache->slot);
	u8 order = MAX_BLOCK_ORDER;
	struct page *head, *tail;
	int nid, other;

	*node = nid = page_to_nid(pfn_to_page(pfn));
	for_each_node_state(other, N_MEMORY) {
		unsigned long start = node_start_pfn(other), end = node_end_pfn(other);
		unsigned long nearest = pfn < start ? start : end - 1;

		if (other == nid || start == end)
			continue;
		if (start <= pfn && pfn < end) {
			order = 0;
			break;
		}
		/* A block that holds both is of one order more than their highest unlike bit. */
		order = min_t(u8, order, fls64(pfn ^ nearest) - 1);
	}
	if (order < PFN_SECTION_SHIFT) {
		head = pfn_to_online_page(section_nr_to_pfn(section));
		tail = pfn_to_online_page(section_nr_to_pfn(section + 1) - 1);
		if (!head || !tail || page_to_nid(head) != nid || page_to_nid(tail) != nid)
			return 0;
		order = PFN_SECTION_SHIFT;
	}
	cache->slot[i].section = section;
	cache->slot[i].node = nid;
	cache->slot[i].order = order;
	cache->slot[i].scan = cache->scan;
	return order;
}

/* The node of a page, and the order of the aligned block around it that is on that node. */
static __always_inline u8 find_node(struct thermocline_node_cache *cache, unsigned long pfn,
				    u16 *node)
{
	u32 section = pfn_to_section_nr(pfn);
	u32 i = section % ARRAY_SIZE(cache->slot);

	if (unlikely(cache->slot[i].section != section || cache->slot[i].scan != cache->scan))
		return learn_node(cache, pfn, node);
	*node = cache->slot[i].node;
	return cache->slot[i].order;
}

/* For a new scan. Emptying all of the cache would cost as much as reading some hundred entries. */
static void forget_nodes(struct thermocline_node_cache *cache)
{
	if (unlikely(++cache->scan == 0)) {
		memset(cache->slot, 0, sizeof(cache->slot));
		cache->scan = 1;
	}
}

/* ------------------------------------------------------------------ runs ----------------------- */

/* Turns the open run into a record. A run that maps nothing leaves no trace. */
static void close_run(struct walk *w)
{
	struct thermocline_attachment *att = w->att;
	struct thermocline_run *run = &att->run;
	size_t size;

	if (run->count &&
	    (run->idle || memchr_inv(run->map[THERMOCLINE_PRESENT], 0, sizeof(run->map[0])))) {
		size = thermocline_record_write(run, &w->stamp, att->sequence++,
						att->bounce + w->used / sizeof(u64));
		w->used += size;
		w->room -= size;
		w->scan->records++;
	}
	run->count = 0;
}

static unsigned long range_end(const struct thermocline_range *range)
{
	return (range->first_page + range->count) << PAGE_SHIFT;
}

/* Opens a run; false when there may not be room for the record that it becomes. */
static bool open_run(struct walk *w, unsigned long address, u8 order, bool idle)
{
	struct thermocline_run *run = &w->att->run;

	close_run(w);
	if (w->room < THERMOCLINE_RUN_MAX_BYTES ||
	    THERMOCLINE_BOUNCE_BYTES - w->used < THERMOCLINE_RUN_MAX_BYTES)
		return false;
	run->first_page = address >> PAGE_SHIFT;
	run->scan_ns = w->now;
	run->order = order;
	run->idle = idle;
	run->shared = false;
	run->node_runs = 0;
	memset(run->map, 0, sizeof(run->map));
	return true;
}

/* Sees to it that a run of 2 MiB blocks is open and goes on at @address with room for @count more. */
static bool continue_run(struct walk *w, unsigned long address, bool idle, u32 count)
{
	const u32 limit = idle ? THERMOCLINE_RECORD_MAX_ENTRIES : THERMOCLINE_RUN_ENTRIES;
	const struct thermocline_run *run = &w->att->run;

	if (run->count && run->order == THERMOCLINE_ORDER_2M && run->idle == idle &&
	    run->count + count <= limit &&
	    run->first_page + ((u64)run->count << THERMOCLINE_ORDER_2M) == address >> PAGE_SHIFT)
		return true;
	return open_run(w, address, THERMOCLINE_ORDER_2M, idle);
}

static void add_nodes(struct thermocline_run *run, u16 node, u16 count)
{
	if (run->node_runs && run->nodes[run->node_runs - 1].node == node) {
		run->nodes[run->node_runs - 1].count += count;
		return;
	}
	run->nodes[run->node_runs].node = node;
	run->nodes[run->node_runs].count = count;
	run->node_runs++;
}

/* ------------------------------------------------------------------ leaves --------------------- */

/*
 * Memory that the program has placed itself (mbind(2)) is not ours to judge: its entries are told
 * as present, with their node, but as not observable, and their accessed bits are left to the kernel.
 */
static bool is_placed(struct vm_area_struct *vma)
{
	return vma_policy(vma);
}

/*
 * What others do with a page of a file that they map, too, is not seen here; so such a page is told
 * like one that is placed, unless it is asked for. (Anonymous pages have two owners only between a fork
 * and the next write.)
 */
static __always_inline bool is_shared(unsigned long pfn)
{
	return thermocline_page_is_shared(pfn_to_page(pfn));
}

/*
 * Whether pages of an area can have another owner. When the area is the only one that maps its file, none
 * has, and their struct pages, a cache miss each, need not be read. The file's tree of areas is not locked,
 * but only its root pointer and this area's own node, which the mmap lock keeps, are looked at.
 */
static bool is_shareable(struct vm_area_struct *vma)
{
	const struct rb_node *own = &vma->shared.rb;

	return vma->vm_file && (READ_ONCE(vma->vm_file->f_mapping->i_mmap.rb_root.rb_node) != own ||
				READ_ONCE(own->rb_left) || READ_ONCE(own->rb_right));
}

/*
 * Whether pages that others map as well are read all the same. Those of a private mapping are not: the C
 * library is everybody's.
 */
static bool is_told_shared(const struct walk *w, const struct vm_area_struct *vma)
{
	return w->shared && vma->vm_flags & VM_MAYSHARE;
}

/*
 * Reclaim reads the same bit: to it, a page whose bit a scan clears would look unused. The young flag
 * tells it what it can't see any more, as after idle page tracking and DAMON. Debian's 6.1 has no
 * such flag (nor another place that reclaim would look at), so there this does nothing.
 */
static __always_inline void hand_on_young(unsigned long pfn)
{
	struct folio *folio;

	if (!IS_ENABLED(CONFIG_PAGE_IDLE_FLAG))
		return;
	folio = page_folio(pfn_to_page(pfn));
	if (!folio_test_young(folio)) /* most hot pages have it still: spare the atomic write */
		folio_set_young(folio);
}

/* The same flag of the page itself: true only where the page is its own folio, or the first of it. */
static __always_inline bool has_young_flag(struct page *page)
{
#ifdef CONFIG_PAGE_IDLE_FLAG
	return thermocline_page_flags(page) & BIT(PG_young);
#else
	return true;
#endif
}

/*
 * The shared zero pages are nobody's memory: they have no node and can't be moved, so they are told
 * as present but not observable. A zero PTE is special; a huge zero PMD can be told from an
 * anonymous huge page only by its page, as huge_zero_pfn isn't exported.
 */
static bool is_huge_zero(struct vm_area_struct *vma, pmd_t pmd)
{
	return vma_is_anonymous(vma) && !pmd_write(pmd) && !pmd_dirty(pmd) &&
	       !PageAnon(pfn_to_page(pmd_pfn(pmd)));
}

/*
 * Whether what was asked for has part of the huge page at @address that lies before w->address: that
 * part has been told in this pass, as small pages or as none, before they became one.
 */
static bool is_told_in_part(const struct walk *w, unsigned long address)
{
	if (likely(address == w->address))
		return false;
	return w->range->first_page << PAGE_SHIFT < w->address ||
	       (w->range > w->ranges && range_end(w->range - 1) > address);
}

/*
 * The rest of the huge page of @pmdp, from w->address on, is there, and that is all. Not when it is no huge page
 * any more: then the walk looks at this address again. False: no room.
 */
static bool tell_unknown(struct walk *w, struct vm_area_struct *vma, pmd_t *pmdp)
{
	const unsigned long next = (w->address & PMD_MASK) + PMD_SIZE;
	const u32 count = (next - w->address) >> PAGE_SHIFT;
	struct thermocline_run *run = &w->att->run;
	u16 node = THERMOCLINE_NODE_NONE;
	unsigned long moving;
	spinlock_t *lock;
	bool there;
	pmd_t pmd;
	u32 word;

	if (!open_run(w, w->address, THERMOCLINE_ORDER_4K, false))
		return false;
	lock = pmd_lock(w->mm, pmdp);
	pmd = READ_ONCE(*pmdp);
	there = true;
	if (!pmd_present(pmd) && thermocline_moving_pmd(pmd, &moving))
		find_node(&w->att->nodes, moving, &node);
	else if (!pmd_present(pmd) || !pmd_leaf(pmd))
		there = false;
	else if (!is_huge_zero(vma, pmd))
		find_node(&w->att->nodes, pmd_pfn(pmd), &node);
	spin_unlock(lock);
	if (!there)
		return true;
	for (word = 0; word * 64 < count; word++)
		run->map[THERMOCLINE_PRESENT][word] = ~0ull >> (64 - min(count - word * 64, 64u));
	add_nodes(run, node, count);
	run->count = count;
	close_run(w);
	w->address = next;
	return true;
}

/* Huge pages whose entries are read in one hold of their lock. */
#define LEAVES_AT_ONCE 32u

/*
 * Huge pages in a row, the first of them at w->address, until @end, or until something else comes.
 * False: no room, nothing read.
 */
static bool read_pmds(struct walk *w, struct vm_area_struct *vma, pmd_t *pmdp, unsigned long end)
{
	unsigned long address = w->address & PMD_MASK;
	const bool placed = is_placed(vma), shareable = is_shareable(vma);
	const bool told_shared = is_told_shared(w, vma);
	struct thermocline_run *run = &w->att->run;
	spinlock_t *lock;
	u32 room;

	if (unlikely(is_told_in_part(w, address))) {
		/* Records go up; the next pass tells it whole. Until then its rest is there, and unknown. */
		return tell_unknown(w, vma, pmdp);
	}
	if (!continue_run(w, address, false, 1))
		return false;

	lock = pmd_lock(w->mm, pmdp); /* of all entries in this table */
	for (room = min(LEAVES_AT_ONCE, THERMOCLINE_RUN_ENTRIES - run->count);
	     room && address < end; room--, pmdp++, address += PMD_SIZE) {
		const pmd_t pmd = READ_ONCE(*pmdp);
		const u32 word = run->count / 64;
		const u64 bit = 1ull << (run->count % 64);
		bool observable = false, young = false;
		u16 node = THERMOCLINE_NODE_NONE;
		unsigned long moving;

		if (unlikely(!pmd_present(pmd) && thermocline_moving_pmd(pmd, &moving))) {
			find_node(&w->att->nodes, moving, &node);
		} else if (unlikely(!pmd_present(pmd) || !pmd_leaf(pmd))) {
			break; /* something else, or split since: the walk looks at this address again */
		} else if (likely(!is_huge_zero(vma, pmd))) {
			const unsigned long pfn = pmd_pfn(pmd);

			find_node(&w->att->nodes, pfn, &node);
			observable = !placed;
			if (shareable && observable && thermocline_leaf_is_shared(pfn_to_page(pfn))) {
				observable = told_shared;
				run->shared |= told_shared;
			}
			young = pmd_young(pmd) && observable;
			if (pmd_dirty(pmd))
				run->map[THERMOCLINE_DIRTY][word] |= bit;
			if (young) {
				run->map[THERMOCLINE_ACCESSED][word] |= bit;
				w->scan->accessed++;
				if (w->clear) {
					hand_on_young(pfn);
					clear_bit(_PAGE_BIT_ACCESSED, (unsigned long *)pmdp);
					w->cleared_any = true;
				}
			}
		}
		run->map[THERMOCLINE_PRESENT][word] |= bit;
		if (observable && (young || !w->second_mmu))
			run->map[THERMOCLINE_OBSERVABLE][word] |= bit;
		add_nodes(run, node, 1);
		run->count++;
		w->scan->entries++;
		w->address = address + PMD_SIZE;
	}
	spin_unlock(lock);
	return true;
}

/*
 * Entries of 4 KiB pages are mostly like the one before. All that differ only in bits that mean nothing
 * here, in those that are told entry by entry (accessed, dirty), and in the place of the page within a
 * block of its node, are present or not, can be observed or not, and lie on the same node, all of them.
 * So that is worked out for the first one only.
 */
#define TOLD_BITS ((u64)(_PAGE_ACCESSED | _PAGE_DIRTY))
#define FREE_BITS (TOLD_BITS | (u64)(_PAGE_RW | _PAGE_SOFT_DIRTY))

/* Entries of one cache line. */
#define LINE 8u
#define LINE_BITS 0xffull

/* In an entry that isn't present: what it stands for (asm/pgtable_64.h). */
#define SWAP_TYPE (~0ull << (64 - SWP_TYPE_BITS))

/* What a kind of entries has in common, besides its node. */
#define KIND_PRESENT 1u /* they map a page, or will again when it has been moved */
#define KIND_PLAIN 2u /* that is a page like any other, no shared zero page, and not being moved */
#define KIND_DIRTY 4u /* they are dirty by another bit than the CPU's, such as 6.12's "saved dirty" */
#define KIND_INVERTED 8u /* they have no access rights, and their page numbers are inverted */

/**
 * struct kind - entries that are alike
 * @mask: the bits that make them so; 0 in none
 * @like: any of them & @mask
 * @flags: KIND_*
 * @node: where their pages lie
 */
struct kind {
	u64 mask;
	u64 like;
	u32 flags;
	u16 node;
};

/**
 * struct stretch - entries of one table page that are of one kind, as far as they are read
 * @kind: theirs, and that of the stretch before
 * @first: the first entry on the node of @kind[0], which may be of an earlier stretch
 * @word: the maps of the 64 entries under way, in which the stretch is taken to last until their end
 */
struct stretch {
	struct kind kind[2];
	u32 first;
	struct {
		u64 present;
		u64 plain;
		u64 dirty;
		bool inverted; /* some of these entries are */
	} word;
};

static __always_inline bool is_of(const struct kind *kind, u64 value)
{
	return (value & kind->mask) == kind->like;
}

static __always_inline void set_rest(u64 *word, u64 rest, bool value)
{
	*word = value ? *word | rest : *word & ~rest;
}

static __always_inline void set_rest_of_word(struct stretch *s, u64 rest)
{
	set_rest(&s->word.present, rest, s->kind[0].flags & KIND_PRESENT);
	set_rest(&s->word.plain, rest, s->kind[0].flags & KIND_PLAIN);
	set_rest(&s->word.dirty, rest, s->kind[0].flags & KIND_DIRTY);
	s->word.inverted |= s->kind[0].flags & KIND_INVERTED;
}

static noinline void learn_kind(struct walk *w, struct kind *kind, pte_t pte)
{
	const u64 value = native_pte_val(pte);
	u8 order = MAX_BLOCK_ORDER;

	kind->node = THERMOCLINE_NODE_NONE;
	kind->flags = 0;
	if (!pte_present(pte)) {
		unsigned long pfn;

		if (unlikely(thermocline_moving_pte(pte, &pfn))) {
			/* It will be there again in a moment: present, and nobody can tell more. */
			kind->flags = KIND_PRESENT;
			w->met_moving = true;
			find_node(&w->att->nodes, pfn, &kind->node);
			kind->mask = ~0ull;
			kind->like = value;
			return;
		}
		kind->mask = _PAGE_PRESENT | _PAGE_PROTNONE | SWAP_TYPE;
		kind->like = value & kind->mask;
		return;
	}
	kind->flags |= KIND_PRESENT | (value & _PAGE_PRESENT ? 0 : KIND_INVERTED);
	if (!pte_special(pte)) {
		kind->flags |= KIND_PLAIN;
		if (pte_dirty(pte) && !(value & _PAGE_DIRTY))
			kind->flags |= KIND_DIRTY;
		order = find_node(&w->att->nodes, pte_pfn(pte), &kind->node);
	}
	/* An entry without access rights has its page number inverted. So have all that are like it. */
	kind->mask = ~(FREE_BITS | ((1ull << order) - 1) << PAGE_SHIFT);
	kind->like = value & kind->mask;
	if (cpu_feature_enabled(X86_FEATURE_XENPV)) {
		kind->mask = 0; /* its entries hold numbers of another kind */
		kind->like = 1;
	}
}

/* Entry @i of the table page isn't of the kind of those before it. Often two kinds take turns. */
static __always_inline void begin_stretch(struct walk *w, struct stretch *s, pte_t pte, u32 i)
{
	struct thermocline_run *run = &w->att->run;
	const struct kind before = s->kind[0];

	if (is_of(&s->kind[1], native_pte_val(pte)))
		s->kind[0] = s->kind[1];
	else
		learn_kind(w, &s->kind[0], pte);
	s->kind[1] = before;

	if (s->kind[0].flags != before.flags)
		set_rest_of_word(s, ~0ull << (i % 64));
	if (s->kind[0].node != before.node) {
		if (i > s->first) {
			run->nodes[run->node_runs].node = before.node;
			run->nodes[run->node_runs++].count = i - s->first;
		}
		s->first = i;
	}
}

/* The lowest bit of each byte, together in one: the product has that of byte i at bit 56 + i, and no carries. */
static __always_inline u64 lowest_bits(u64 bytes)
{
	return (bytes & 0x0101010101010101ull) * 0x0102040810204080ull >> 56;
}

/*
 * A cache line of entries that are all of the stretch: their bits, or false if they aren't. Memory is
 * mostly touched, or not, by the line; so is it written. That is told at once.
 */
static __always_inline bool read_line(pte_t *line, const struct kind *kind, u64 *accessed, u64 *dirty)
{
	u64 any = 0, all = ~0ull, value;
	u32 i;

#pragma GCC unroll 8
	for (i = 0; i < LINE; i++) {
		value = native_pte_val(ptep_get(line + i));
		any |= value;
		all &= value;
	}
	if (unlikely((any ^ all) & kind->mask || !is_of(kind, all)))
		return false;
	if (likely(!((any ^ all) & TOLD_BITS))) {
		*accessed = all & _PAGE_ACCESSED ? LINE_BITS : 0;
		*dirty = all & _PAGE_DIRTY ? LINE_BITS : 0;
		return true;
	}
	/* Both bits are in an entry's lowest byte. */
	BUILD_BUG_ON(TOLD_BITS > U8_MAX);
	value = 0;
#pragma GCC unroll 8
	for (i = LINE; i-- > 0;)
		value = value << BITS_PER_BYTE | READ_ONCE(*(const u8 *)(line + i));
	*accessed = lowest_bits(value >> _PAGE_BIT_ACCESSED);
	*dirty = lowest_bits(value >> _PAGE_BIT_DIRTY);
	return true;
}

/* Up to a cache line of any entries, of which @line is number @i of the table page. */
static noinline void read_unlike(struct walk *w, struct stretch *s, pte_t *line, u32 i, u32 count,
				 u64 *accessed, u64 *dirty)
{
	u32 j;

	*accessed = 0;
	*dirty = 0;
	for (j = 0; j < count; j++) {
		const pte_t pte = ptep_get(line + j);
		const u64 value = native_pte_val(pte);

		if (!is_of(&s->kind[0], value))
			begin_stretch(w, s, pte, i + j);
		*accessed |= (value >> _PAGE_BIT_ACCESSED & 1) << j;
		*dirty |= (value >> _PAGE_BIT_DIRTY & 1) << j;
	}
}

/* Which of the pages @mask have no other owner. */
static noinline u64 unshared(pte_t *ptep, u64 mask)
{
	u64 left, result = mask;

	for (left = mask; left; left &= left - 1) {
		const u32 i = __ffs64(left);

		if (is_shared(pte_pfn(ptep_get(ptep + i))))
			result &= ~(1ull << i);
	}
	return result;
}

static __always_inline void clear_entry(pte_t *ptep, unsigned long pfn)
{
	/* A page that is hot has the flag still, and no page but the first of a folio ever has it. */
	if (!has_young_flag(pfn_to_page(pfn)))
		hand_on_young(pfn);
	clear_bit(_PAGE_BIT_ACCESSED, (unsigned long *)ptep);
}

/* Entries that were accessed, a line of them at once where all of it was. */
static noinline void clear_lines(pte_t *ptep, u64 mask)
{
	const u64 numbers = PTE_PFN_MASK;
	u32 i;

	for (; mask; mask >>= LINE, ptep += LINE) {
		u64 line = mask & LINE_BITS;

		if (line == LINE_BITS) {
#pragma GCC unroll 8
			for (i = 0; i < LINE; i++)
				clear_entry(ptep + i, (native_pte_val(ptep_get(ptep + i)) &
						       numbers) >> PAGE_SHIFT);
			continue;
		}
		for (; line; line &= line - 1) {
			pte_t *const one = ptep + __ffs64(line);

			clear_entry(one, (native_pte_val(ptep_get(one)) & numbers) >> PAGE_SHIFT);
		}
	}
}

/* The same for entries whose page numbers aren't stored as they are. */
static noinline void clear_others(pte_t *ptep, u64 mask)
{
	for (; mask; mask &= mask - 1) {
		pte_t *const one = ptep + __ffs64(mask);

		clear_entry(one, pte_pfn(ptep_get(one)));
	}
}

/*
 * The entries of one table page, from ptep on; its lock is held, so they stay what they are but for their
 * accessed and dirty bits. Here is where a scan spends its time. So it takes a cache line of entries at a
 * time, and one by one only those of a line in which a stretch ends. Tells whether any was accessed.
 */
static noinline bool read_ptes(struct walk *w, struct vm_area_struct *vma, pte_t *ptep, u32 count)
{
	static const struct kind none = { .like = 1, .node = THERMOCLINE_NODE_NONE };
	struct thermocline_run *run = &w->att->run;
	const bool placed = is_placed(vma), shareable = is_shareable(vma);
	const bool told_shared = is_told_shared(w, vma);
	const bool hidden = w->second_mmu || placed;
	struct stretch s = { .kind = { none, none } };
	bool any_accessed = false;
	u32 begin, i;

	for (begin = 0; begin < count; begin += 64, ptep += 64) {
		const u32 n = min(count - begin, 64u), word = begin / 64;
		const u64 valid = ~0ull >> (64 - n);
		u64 accessed = 0, dirty = 0, observable;

		s.word.inverted = false;
		set_rest_of_word(&s, ~0ull);
		for (i = 0; i < n; i += LINE) {
			const u32 rest = min(n - i, LINE);
			u64 line_accessed, line_dirty;

			if (unlikely(rest < LINE ||
				     !read_line(ptep + i, &s.kind[0], &line_accessed, &line_dirty)))
				read_unlike(w, &s, ptep + i, begin + i, rest, &line_accessed,
					    &line_dirty);
			accessed |= line_accessed << i;
			dirty |= line_dirty << i;
		}

		observable = placed ? 0 : s.word.plain & valid;
		if (shareable) {
			const u64 alone = unshared(ptep, observable);

			if (told_shared)
				run->shared |= alone != observable;
			else
				observable = alone;
		}
		accessed &= observable;
		if (accessed) {
			any_accessed = true;
			w->scan->accessed += hweight64(accessed);
			if (w->clear) {
				if (likely(!s.word.inverted && !cpu_feature_enabled(X86_FEATURE_XENPV)))
					clear_lines(ptep, accessed);
				else
					clear_others(ptep, accessed);
				w->cleared_any = true;
			}
		}
		run->map[THERMOCLINE_PRESENT][word] = s.word.present & valid;
		run->map[THERMOCLINE_OBSERVABLE][word] = hidden ? accessed : observable;
		run->map[THERMOCLINE_ACCESSED][word] = accessed;
		run->map[THERMOCLINE_DIRTY][word] = (dirty | s.word.dirty) & s.word.plain & valid;
	}
	add_nodes(run, s.kind[0].node, count - s.first);
	run->count = count;
	w->scan->entries += count;
	return any_accessed;
}

/* A table page of 4 KiB entries hangs here. */
static bool is_table(pmd_t pmd)
{
	return pmd_present(pmd) && !pmd_leaf(pmd) && !pmd_bad(pmd);
}

/* ------------------------------------------------------------------ pruning -------------------- */

/*
 * A CPU that walks the tables sets the accessed bit of every entry that it passes. So while the bit of
 * an upper entry is clear, nothing beneath it was touched (Telescope, Nair et al., USENIX ATC 2024, uses
 * them to find the hot parts of terabytes; here they only spare descending into the cold ones).
 *
 * An entry is armed, that is, its bit cleared, only when a pass has found nothing accessed beneath it.
 * A table that is in use keeps its bit, is descended into and read exactly; only one that begins to be
 * used again depends on the bit. First the bit is cleared, then what is beneath it looked at once more:
 * the other way round, a touch between the two would leave its mark under a clear bit.
 *
 * A touch is missed, until a pass without pruning finds it, when no walk passes the upper entry: a CPU
 * still has that one in its paging-structure caches (a flush empties them), has read it just before it
 * was cleared, or the kernel's own ageing has cleared it and left what is beneath (MGLRU, which ages one
 * node at a time). Where something accessed is found beneath a clear bit, mend() sets it again.
 */
static bool is_prunable(const struct walk *w, struct vm_area_struct *vma)
{
	/* Whose bits below are not told must not have its bit above cleared: reclaim reads it, too. */
	return w->prune && !w->second_mmu && !is_placed(vma) && !is_shareable(vma);
}

/* Nothing of @count blocks of 2 MiB was accessed. False: no room to tell it. */
static bool tell_idle(struct walk *w, unsigned long address, u32 count)
{
	if (!continue_run(w, address, true, count))
		return false;
	w->att->run.count += count;
	w->scan->idle_pages += (u64)count << THERMOCLINE_ORDER_2M;
	return true;
}

/* How many of @count blocks, from @pmdp on, are table pages beneath which nothing was accessed. */
static u32 idle_blocks(pmd_t *pmdp, u32 count)
{
	u32 i;

	for (i = 0; i < count; i++)
		if ((native_pmd_val(READ_ONCE(pmdp[i])) &
		     (_PAGE_PRESENT | _PAGE_PSE | _PAGE_ACCESSED)) != _PAGE_PRESENT)
			break;
	return i;
}

static bool any_young_pte(pte_t *ptep)
{
	u32 i;

	/* The bit of the shared zero pages stays as it is. So would the upper one, if they counted. */
	for (i = 0; i < PTRS_PER_PTE; i++)
		if ((native_pte_val(ptep_get(ptep + i)) & (_PAGE_ACCESSED | _PAGE_SPECIAL)) ==
		    _PAGE_ACCESSED)
			return true;
	return false;
}

static bool any_young_pmd(pmd_t *pmdp)
{
	u32 i;

	for (i = 0; i < PTRS_PER_PMD; i++)
		if (pmd_flags(READ_ONCE(pmdp[i])) & _PAGE_ACCESSED)
			return true;
	return false;
}

/*
 * Nothing under the table page that @table names was accessed. Inside RCU: whoever takes the table away
 * needs the PMD lock to unhook it, and RCU to free it.
 */
static void arm_pmd(struct walk *w, pmd_t *pmdp, pmd_t table)
{
	spinlock_t *lock = pmd_lock(w->mm, pmdp);

	if (likely(pmd_same(READ_ONCE(*pmdp), table))) {
		clear_bit(_PAGE_BIT_ACCESSED, (unsigned long *)pmdp);
		if (unlikely(any_young_pte(pte_offset_kernel(&table, 0))))
			set_bit(_PAGE_BIT_ACCESSED, (unsigned long *)pmdp);
		else
			w->cleared_any = true;
	}
	spin_unlock(lock);
}

/* The same for a table of PMD entries, which the mmap lock keeps in place. */
static void arm_pud(struct walk *w, pud_t *pudp, pmd_t *pmds)
{
	spinlock_t *lock;

	if (any_young_pmd(pmds))
		return; /* the usual case, and mostly one of the first */
	lock = pud_lock(w->mm, pudp);
	clear_bit(_PAGE_BIT_ACCESSED, (unsigned long *)pudp);
	if (unlikely(any_young_pmd(pmds)))
		set_bit(_PAGE_BIT_ACCESSED, (unsigned long *)pudp);
	else
		w->cleared_any = true;
	spin_unlock(lock);
}

/* Something was accessed beneath a clear bit: so that it is descended into the next time. */
static void mend_pmd(struct walk *w, pmd_t *pmdp, pmd_t table)
{
	spinlock_t *lock = pmd_lock(w->mm, pmdp);

	if (likely(pmd_same(READ_ONCE(*pmdp), table)))
		set_bit(_PAGE_BIT_ACCESSED, (unsigned long *)pmdp);
	spin_unlock(lock);
}

static void mend_pud(struct walk *w, pud_t *pudp)
{
	spinlock_t *lock = pud_lock(w->mm, pudp);

	set_bit(_PAGE_BIT_ACCESSED, (unsigned long *)pudp);
	spin_unlock(lock);
}

static bool pud_is_young(pud_t pud)
{
	return pud_flags(pud) & _PAGE_ACCESSED;
}

/*
 * One table page of 4 KiB entries, up to @end. False: no room, nothing read.
 *
 * What step() saw at @pmdp may be gone by now, and its table page, which holds the lock, be somebody
 * else's memory. So only what is read inside RCU counts.
 */
static bool read_table(struct walk *w, struct vm_area_struct *vma, pmd_t *pmdp, unsigned long end,
		       bool arm)
{
	bool read = false, accessed;
	spinlock_t *lock;
	pmd_t pmd;

	if (!open_run(w, w->address, THERMOCLINE_ORDER_4K, false))
		return false;

	rcu_read_lock();
	pmd = READ_ONCE(*pmdp);
	if (likely(is_table(pmd))) {
		lock = pte_lockptr(w->mm, &pmd);
		spin_lock(lock);
		if (likely(pmd_same(pmd, READ_ONCE(*pmdp)))) {
			w->met_moving = false;
			accessed = read_ptes(w, vma, pte_offset_kernel(&pmd, w->address),
					     (end - w->address) >> PAGE_SHIFT);
			w->address = end;
			read = true;
		}
		spin_unlock(lock);
		/* Not under the table's own lock, which may be the same one. */
		/* What is being moved may come back touched: nothing above it must say that nothing was. */
		if (read && arm && !accessed && !w->met_moving && pmd_young(pmd))
			arm_pmd(w, pmdp, pmd);
		if (read && w->mend && accessed && unlikely(!pmd_young(pmd)))
			mend_pmd(w, pmdp, pmd);
	} /* where it changed: look at this address again */
	rcu_read_unlock();

	close_run(w);
	return true;
}

/* ------------------------------------------------------------------ the walk ------------------- */

/* Areas whose entries tell nothing we could use: no struct page, no moving, or another page size. */
static bool is_unscannable(struct vm_area_struct *vma)
{
	return (vma->vm_flags & (VM_IO | VM_PFNMAP | VM_MIXEDMAP)) || is_vm_hugetlb_page(vma) ||
	       vma_is_dax(vma);
}

/*
 * One step from w->address towards @end, within @vma and within the table of @pmdp: huge pages, a table
 * page, or what needs no look into: holes and, if @prune, idle blocks. False: no room for what is there.
 */
static bool step_pmd(struct walk *w, struct vm_area_struct *vma, pmd_t *pmdp, unsigned long end,
		     bool prune)
{
	unsigned long next, moving;
	bool whole;
	pmd_t pmd;
	u32 idle;

	for (; w->address < end; w->address = next, pmdp++) {
		next = pmd_addr_end(w->address, end);
		pmd = READ_ONCE(*pmdp);
		if (pmd_none(pmd))
			continue;
		if (!pmd_present(pmd) && !thermocline_moving_pmd(pmd, &moving))
			continue; /* a huge page of a device */
		if (!pmd_present(pmd) || pmd_leaf(pmd))
			return read_pmds(w, vma, pmdp, end);
		if (unlikely(!is_table(pmd)))
			continue;
		/* A block in part: the rest is another area's, or wasn't asked for, and won't be read now. */
		whole = next - w->address == PMD_SIZE;
		idle = prune && whole ? idle_blocks(pmdp, (end - w->address) >> PMD_SHIFT) : 0;
		if (!idle)
			return read_table(w, vma, pmdp, next, prune && whole);
		if (!tell_idle(w, w->address, idle))
			return false;
		pmdp += idle - 1;
		next = w->address + idle * PMD_SIZE;
	}
	return true;
}

/*
 * One step from w->address towards @end, the end of what was asked for or of @vma: holes, huge pages,
 * a table page, or idle blocks. False: no room for what is there.
 */
static bool step(struct walk *w, struct vm_area_struct *vma, unsigned long end)
{
	unsigned long address = w->address, begin = address & PUD_MASK;
	const bool prune = is_prunable(w, vma);
	const u64 accessed = w->scan->accessed;
	bool whole, room;
	pgd_t *pgdp = pgd_offset(w->mm, address);
	p4d_t *p4dp;
	pud_t *pudp, pud;

	/* Never the *_none_or_clear_bad() forms: they write to an entry that they don't like. */
	if (pgd_none(*pgdp) || unlikely(pgd_bad(*pgdp))) {
		w->address = pgd_addr_end(address, end);
		return true;
	}
	p4dp = p4d_offset(pgdp, address);
	if (p4d_none(*p4dp) || unlikely(p4d_bad(*p4dp))) {
		w->address = p4d_addr_end(address, end);
		return true;
	}
	pudp = pud_offset(p4dp, address);
	pud = READ_ONCE(*pudp);
	if (pud_none(pud) || unlikely(pud_bad(pud))) {
		/* A 1 GiB leaf outside hugetlb and DAX does not exist in the kernels we know. */
		w->address = pud_addr_end(address, end);
		if (pud_present(pud))
			w->scan->skipped_pages += (w->address - address) >> PAGE_SHIFT;
		return true;
	}
	end = pud_addr_end(address, end);
	whole = prune && end == begin + PUD_SIZE && vma->vm_start <= begin &&
		w->range->first_page << PAGE_SHIFT <= begin;
	if (whole && address == begin && !pud_is_young(pud)) {
		if (!tell_idle(w, address, PTRS_PER_PMD))
			return false;
		w->address = end;
		return true;
	}
	room = step_pmd(w, vma, pmd_offset(&pud, address), end, prune);
	if (whole && w->address == end && pud_is_young(pud))
		arm_pud(w, pudp, pmd_offset(&pud, begin));
	if (w->mend && unlikely(!pud_is_young(pud)) && w->scan->accessed != accessed)
		mend_pud(w, pudp);
	return room;
}

/* The mmap lock has been held for long enough. */
static bool held_enough(struct walk *w, u64 since)
{
	w->now = ktime_get_ns();
	if (w->now - since < THERMOCLINE_MIN_HOLD_NS)
		return false;
	return w->now - since >= THERMOCLINE_MAX_HOLD_NS || need_resched() ||
	       mmap_lock_is_contended(w->mm);
}

/* Drops the ranges that the walk has passed; false when none is left. */
static bool more(struct walk *w)
{
	while (w->left && w->address >= range_end(w->range)) {
		w->range++;
		w->left--;
	}
	return w->left;
}

/* Walks until all is done, a buffer is full, or the lock has been held for long enough. */
static void walk_locked(struct walk *w, u64 since)
{
	struct vm_area_struct *vma = NULL;
	unsigned long end;

	w->second_mmu = mm_has_notifiers(w->mm);
	while (more(w)) {
		end = range_end(w->range);
		w->address = max_t(unsigned long, w->address, w->range->first_page << PAGE_SHIFT);
		if (!vma || w->address >= vma->vm_end)
			vma = find_vma(w->mm, w->address);
		if (!vma || vma->vm_start >= end) {
			w->address = end;
		} else {
			w->address = max(w->address, vma->vm_start);
			end = min(end, vma->vm_end);
			if (is_unscannable(vma)) {
				w->scan->skipped_pages += (end - w->address) >> PAGE_SHIFT;
				w->address = end;
			} else if (!step(w, vma, end)) {
				break;
			}
		}
		if (held_enough(w, since))
			break;
	}
	close_run(w);
}

/* One hold of the address space and of its mmap lock. */
static int walk_once(struct walk *w)
{
	u64 since, held;
	u32 bucket;

	if (!mmget_not_zero(w->mm))
		return -ESRCH;
	if (mmap_read_lock_killable(w->mm)) {
		mmput_async(w->mm);
		return -EINTR;
	}
	since = w->now = ktime_get_ns();
	walk_locked(w, since);
	mmap_read_unlock(w->mm);
	held = ktime_get_ns() - since;
	w->scan->max_lock_ns = max(w->scan->max_lock_ns, held);
	bucket = min_t(u32, ilog2(held | 1), THERMOCLINE_STATS_HOLDS - 1);
	WRITE_ONCE(w->att->holds[bucket], w->att->holds[bucket] + 1);
	/* May be the last user: freeing a terabyte is a worker's, not work of this thread or its budget. */
	mmput_async(w->mm);
	return 0;
}

static void flush_here(void *unused)
{
	thermocline_flush_local();
}

/* A CPU whose kernel thread has the address space on loan runs none of its code; it flushes before it does. */
static bool is_not_lazy(int cpu, void *unused)
{
	return !per_cpu(cpu_tlbstate_shared.is_lazy, cpu);
}

/*
 * Makes the CPUs forget what they have cached of the address space, so that the next touch of a page
 * sets its accessed bit again. The generation makes a CPU that isn't running it now flush when it
 * comes back to it (with PCID its entries outlive a switch); those that run it are told at once. They
 * lose what they have of other address spaces, too: what flushes one only isn't exported.
 */
static void flush(struct mm_struct *mm)
{
	atomic64_inc(&mm->context.tlb_gen);
	/* The generation before the mask and the laziness, as switch_mm() does the reverse. */
	smp_mb__after_atomic();
	if (thermocline_is_broadcast(mm))
		on_each_cpu(flush_here, NULL, true);
	else
		on_each_cpu_cond_mask(is_not_lazy, flush_here, NULL, true, mm_cpumask(mm));
}

/*
 * How long the accessed bits that are about to be read could be set: since the last clearing pass
 * began. A pass is a call with resume_page 0 and the calls that resume it.
 */
static u64 window(struct thermocline_attachment *att, const struct thermocline_scan *scan, u64 now)
{
	u64 since_cleared = att->cleared_ns ? now - att->cleared_ns : 0;

	if (!(scan->flags & THERMOCLINE_SCAN_CLEAR))
		return since_cleared;
	if (!scan->resume_page) {
		att->window_ns = since_cleared;
		att->cleared_ns = now;
	}
	return att->window_ns;
}

int thermocline_walk(struct thermocline_attachment *att, struct thermocline_scan *scan,
		     const struct thermocline_range *ranges, struct thermocline_sink *sink)
{
	const struct thermocline_range everything = { .count = TASK_SIZE_MAX >> PAGE_SHIFT };
	const u64 began = ktime_get_ns(), window_ns = window(att, scan, began);
	struct walk w = {
		.att = att,
		.mm = att->mm,
		.scan = scan,
		.stamp.asid = att->asid,
		.stamp.epoch = scan->epoch,
		.stamp.window_ns = scan->window_ns ?: window_ns,
		.clear = scan->flags & THERMOCLINE_SCAN_CLEAR,
		.mend = (scan->flags & THERMOCLINE_SCAN_CLEAR) && thermocline_can_prune(),
		.prune = scan->flags & THERMOCLINE_SCAN_PRUNE,
		.shared = scan->flags & THERMOCLINE_SCAN_SHARED,
		.ranges = scan->range_count ? ranges : &everything,
		.range = scan->range_count ? ranges : &everything,
		.left = scan->range_count ?: 1,
		.address = scan->resume_page << PAGE_SHIFT,
		.room = sink->room,
	};
	int err = 0;

	if (w.clear)
		w.stamp.flags |= THERMOCLINE_RECORD_CLEARED;
	forget_nodes(&att->nodes);
	att->run.count = 0;

	trace_scan_begin(att->asid, scan->epoch, scan->flags, w.stamp.window_ns);
	for (;;) {
		err = walk_once(&w);
		if (err)
			break;
		/* User memory may lie in the address space that is walked: hand on without its lock. */
		err = sink->put(sink, att->bounce, w.used);
		if (err)
			break;
		scan->bytes += w.used;
		w.used = 0;
		if (!more(&w) || w.room < THERMOCLINE_RUN_MAX_BYTES)
			break;
		if (fatal_signal_pending(current)) {
			err = -EINTR;
			break;
		}
		cond_resched();
		scan->lock_drops++;
	}
	if (w.cleared_any && (scan->flags & THERMOCLINE_SCAN_FLUSH))
		flush(w.mm);
	scan->window_ns = w.stamp.window_ns;
	scan->elapsed_ns = ktime_get_ns() - began;
	scan->resume_page = more(&w) ? w.address >> PAGE_SHIFT : 0;
	trace_scan_end(att->asid, err, scan);
	return err;
}

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Copies page tables of one task to user space. Loaded by page_table_reader.cc; changes nothing.
 *
 * A task iterator with one task, as kernels before 6.2 have no bpf_task_from_pid(). Types are our own,
 * with only the fields that are used: CO-RE finds them in the running kernel, so one object serves all.
 *
 * Nothing is locked, so a table may be freed while it is copied. Every copy therefore counts only
 * if the entry above still points to the same table afterwards; what that can't catch (freed and
 * made a table of the same place again) reads as a page seen a moment too early or too late. All reads
 * are bpf_probe_read_kernel(), for which an address that isn't there is an error, not a fault.
 */
#include "tracking/bpf/page_tables.h"

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define BY_NAME __attribute__((preserve_access_index))

struct mmu_notifier_subscriptions;
struct mempolicy;
struct file;
struct seq_file;

struct mm_struct {
	void *pgd;
	struct mmu_notifier_subscriptions *notifier_subscriptions;
} BY_NAME;

struct task_struct {
	struct mm_struct *mm;
} BY_NAME;

struct vm_area_struct {
	unsigned long vm_start, vm_end, vm_flags;
	struct file *vm_file;
	struct mempolicy *vm_policy;
	struct mm_struct *vm_mm;
} BY_NAME;

struct bpf_iter_meta {
	struct seq_file *seq;
} BY_NAME;

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} BY_NAME;

struct bpf_iter__task_vma {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct vm_area_struct *vma;
} BY_NAME;

struct table {
	__u64 entry[512];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tc_bpf_control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, TC_BPF_SLOTS);
	__type(key, __u32);
	__type(value, struct table);
} tables SEC(".maps");

/* x86-64 page tables, arch/x86/include/asm/pgtable_types.h */
#define PRESENT (1ull << 0)
#define ACCESSED (1ull << 5)
#define DIRTY (1ull << 6)
#define LEAF (1ull << 7)
#define ADDRESS 0x000ffffffffff000ull
#define SHIFT_2M 21
#define SHIFT_1G 30
#define SHIFT_512G 39
#define SHIFT_256T 48
#define SIZE(shift) (1ull << (shift))

struct walk {
	__u64 base, pgd, address, end;
	__u64 pud_at, pud, pmd_table; /* of the upper table that is in slot `upper` */
	__u64 slots, stale, tries;
	__u64 upper, have_upper, five_levels;
};

/* Of the run under way. In a map and not on the stack, where the verifier would follow every value that
 * the counters take; runs don't overlap, as their user waits for one before the next. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct walk);
} state SEC(".maps");

static __always_inline __u64 next_boundary(__u64 address, __u32 shift)
{
	return (address | (SIZE(shift) - 1)) + 1;
}

/* The entry for `address` of the table at virtual address `table`; 0 when it can't be read. */
static __always_inline __u64 entry(__u64 table, __u64 address, __u32 shift)
{
	__u64 e = 0;

	if (bpf_probe_read_kernel(&e, sizeof(e), (void *)(table + ((address >> shift) & 511) * 8)))
		return 0;
	return e;
}

/* Kernel addresses of a machine with four levels are sign-extended from bit 47. */
static __always_inline __u32 has_five_levels(__u64 pgd)
{
	return pgd >> 47 != 0x1ffff;
}

/* Virtual address of the entry that maps 1 GiB at `address`, or 0 and how far nothing is mapped. */
static __always_inline __u64 find_pud(__u64 base, __u64 pgd, __u32 five, __u64 address, __u32 *hole)
{
	__u64 table = pgd, e;

	if (five) {
		e = entry(table, address, SHIFT_256T);
		*hole = SHIFT_256T;
		if (!(e & PRESENT))
			return 0;
		table = base + (e & ADDRESS);
	}
	e = entry(table, address, SHIFT_512G);
	*hole = SHIFT_512G;
	if (!(e & PRESENT))
		return 0;
	return base + (e & ADDRESS) + ((address >> SHIFT_1G) & 511) * 8;
}

/* Whether two readings of an entry name the same table; hardware sets A and D by itself. */
static __always_inline int same(__u64 a, __u64 b)
{
	return ((a ^ b) & ~(ACCESSED | DIRTY)) == 0;
}

/* Copies a table to the next slot; false when the entry above changed meanwhile. */
static __always_inline int copy(struct walk *w, struct tc_bpf_control *c, __u64 at, __u64 e, __u64 first)
{
	__u32 key = w->slots, slot = w->slots;
	struct table *to = bpf_map_lookup_elem(&tables, &key);
	__u64 now = 0;

	if (!to)
		return 0;
	if (bpf_probe_read_kernel(to, sizeof(*to), (void *)(w->base + (e & ADDRESS))) ||
	    bpf_probe_read_kernel(&now, sizeof(now), (void *)at) || !same(e, now))
		return 0;
	barrier_var(slot); /* or else the test ends up on another copy than the use */
	if (slot >= TC_BPF_SLOTS)
		return 0;
	c->base[slot] = first;
	w->slots = slot + 1;
	return 1;
}

/* How often a table that changed while it was copied is looked at again. */
#define MOST_TRIES 3

/* Whether the step that found one is to be done again. */
static __always_inline int again(struct walk *w)
{
	if (w->tries++ < MOST_TRIES)
		return 1;
	w->tries = 0;
	w->stale++;
	return 0;
}

/* One step: a hole, the upper table of a GiB, or the next 2 MiB of it. 1 = stop. */
static long step(__u32 i, void *unused)
{
	struct tc_bpf_control *c;
	struct walk *w;
	struct table *upper;
	__u32 zero = 0, hole, slot;
	__u64 e, at;

	c = bpf_map_lookup_elem(&control, &zero);
	w = bpf_map_lookup_elem(&state, &zero);
	if (!c || !w || w->address >= w->end || w->slots >= TC_BPF_SLOTS)
		return 1;
	if (!w->have_upper) {
		w->pud_at = find_pud(w->base, w->pgd, w->five_levels, w->address, &hole);
		if (!w->pud_at) {
			w->address = next_boundary(w->address, hole);
			return 0;
		}
		w->pud = 0;
		bpf_probe_read_kernel(&w->pud, sizeof(w->pud), (void *)w->pud_at);
		/* A 1 GiB leaf exists in hugetlbfs and DAX only, which nobody may move. */
		w->upper = w->slots;
		if (!(w->pud & PRESENT) || (w->pud & LEAF)) {
			w->tries = 0;
			w->address = next_boundary(w->address, SHIFT_1G);
			return 0;
		}
		if (!copy(w, c, w->pud_at, w->pud, (w->address & ~(SIZE(SHIFT_1G) - 1)) | 1)) {
			if (!again(w))
				w->address = next_boundary(w->address, SHIFT_1G);
			return 0;
		}
		w->tries = 0;
		w->have_upper = 1;
		return 0; /* the slot may have been the last */
	}
	slot = w->upper;
	upper = bpf_map_lookup_elem(&tables, &slot);
	if (!upper)
		return 1;
	e = upper->entry[(w->address >> SHIFT_2M) & 511];
	at = w->base + (w->pud & ADDRESS) + ((w->address >> SHIFT_2M) & 511) * 8;
	if ((e & PRESENT) && !(e & LEAF) && !copy(w, c, at, e, w->address & ~(SIZE(SHIFT_2M) - 1)) && again(w)) {
		/* It may be a huge page by now, or nothing. */
		if (!bpf_probe_read_kernel(&e, sizeof(e), (void *)at))
			upper->entry[(w->address >> SHIFT_2M) & 511] = e;
		return 0;
	}
	w->tries = 0;
	w->address = next_boundary(w->address, SHIFT_2M);
	if (!(w->address & (SIZE(SHIFT_1G) - 1)))
		w->have_upper = 0;
	return 0;
}

struct search {
	__u64 pgd, base, found;
	__u32 five_levels;
};

/*
 * The direct map begins at a multiple of 1 GiB, and the kernel's page tables lie in it. So where the
 * tables, read with a guess of where it begins, say that the top table's own address is mapped to
 * the physical address at just that distance from the guess, the guess is right: a wrong one reads
 * other memory as tables, and would have to find this very number in it.
 */
static long guess(__u32 i, struct search *s)
{
	__u64 base = (s->pgd & ~(SIZE(SHIFT_1G) - 1)) - ((__u64)i << SHIFT_1G), at, e;
	__u32 hole, shift = SHIFT_1G;

	at = find_pud(base, s->pgd, s->five_levels, s->pgd, &hole);
	if (!at || bpf_probe_read_kernel(&e, sizeof(e), (void *)at) || !(e & PRESENT))
		return 0;
	if (!(e & LEAF)) {
		shift = SHIFT_2M;
		e = entry(base + (e & ADDRESS), s->pgd, shift);
		if (!(e & PRESENT))
			return 0;
		if (!(e & LEAF)) {
			shift = 12;
			e = entry(base + (e & ADDRESS), s->pgd, shift);
			if (!(e & PRESENT))
				return 0;
		}
	}
	if (base + (e & ADDRESS & ~(SIZE(shift) - 1)) + (s->pgd & (SIZE(shift) - 1)) != s->pgd)
		return 0;
	s->found = base;
	return 1;
}

SEC("iter/task")
int walk_task(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct tc_bpf_control *c;
	struct mm_struct *mm;
	struct walk *w;
	__u32 zero = 0;
	__u64 pgd = 0;

	c = bpf_map_lookup_elem(&control, &zero);
	w = bpf_map_lookup_elem(&state, &zero);
	if (!task || !c || !w)
		return 0;
	mm = task->mm;
	c->ran = 1;
	c->found_mm = (__u64)mm;
	if (!mm || (c->mm && c->mm != (__u64)mm))
		return 0;
	c->second_mmu = bpf_core_field_exists(mm->notifier_subscriptions) ? (__u64)mm->notifier_subscriptions : 0;
	bpf_core_read(&pgd, sizeof(pgd), &mm->pgd); /* as a number: sums with a pointer are refused */
	if (c->what == TC_BPF_FIND) {
		struct search s = { .pgd = pgd, .five_levels = has_five_levels(pgd) };

		bpf_loop(c->gibs, guess, &s, 0);
		c->found_base = s.found;
		return 0;
	}
	__builtin_memset(w, 0, sizeof(*w));
	w->base = c->direct_map;
	w->pgd = pgd;
	w->five_levels = has_five_levels(pgd);
	w->address = c->from;
	w->end = c->to;
	bpf_loop(TC_BPF_STEPS, step, 0, 0);
	c->next = w->address;
	c->slots = w->slots;
	c->stale = w->stale;
	/* The process may have exited or exec'd in between: what was copied is then nobody's. */
	c->found_mm = (__u64)task->mm;
	return 0;
}

SEC("iter/task_vma")
int list_areas(struct bpf_iter__task_vma *ctx)
{
	struct vm_area_struct *vma = ctx->vma;
	struct tc_bpf_area area = {};

	if (!vma)
		return 0;
	area.start = vma->vm_start;
	area.end = vma->vm_end;
	area.flags = vma->vm_flags;
	area.file = vma->vm_file != 0;
	area.placed = bpf_core_field_exists(vma->vm_policy) && vma->vm_policy != 0;
	bpf_seq_write(ctx->meta->seq, &area, sizeof(area));
	return 0;
}

char licence_of_this[] SEC("license") = "Dual BSD/GPL";

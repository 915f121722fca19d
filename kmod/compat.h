/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What isn't the same in all kernels that the module is built for. Each case names the version from which
 * it holds; with the oldest of them gone, its branch can go.
 */
#ifndef THERMOCLINE_COMPAT_H
#define THERMOCLINE_COMPAT_H

#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/version.h>
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
#include <linux/swap.h>
#include <linux/swapops.h>
#else
#include <linux/leafops.h>
#endif

#include <asm/cpufeature.h>
#include <asm/invpcid.h>
#include <asm/special_insns.h>
#include <asm/tlbflush.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "thermocline needs Linux 6.1 or later"
#endif

/**
 * thermocline_page_is_shared() - whether @page has another owner, as far as its kernel knows; never a wrong no
 *
 * Of a page that is mapped by itself. From 6.10 on page_mapcount() is there no more, and until 6.14 folio_likely_mapped_shared() goes by the first
 * page of a folio alone; so it is counted here.
 */
static __always_inline bool thermocline_page_is_shared(struct page *page)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 10, 0)
	return page_mapcount(page) > 1;
#elif LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
	const struct folio *const folio = page_folio(page);
	int owners = atomic_read(&page->_mapcount) + 1;

	if (folio_test_large(folio))
		owners += folio_entire_mapcount(folio);
	return owners > 1;
#else
	return folio_maybe_mapped_shared(page_folio(page));
#endif
}

/**
 * thermocline_leaf_is_shared() - the same of a huge page that is mapped as one, by its first page
 *
 * Others may map parts of it.
 */
static inline bool thermocline_leaf_is_shared(struct page *page)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 10, 0)
	u32 i;

	for (i = 0; i < PTRS_PER_PMD; i++)
		if (page_mapcount(page + i) > 1)
			return true;
	return false;
#elif LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
	return folio_mapcount(page_folio(page)) > 1;
#else
	return folio_maybe_mapped_shared(page_folio(page));
#endif
}

/** thermocline_moving_pte() - @pte isn't present, as its page, number @pfn, is on its way to another place */
static inline bool thermocline_moving_pte(pte_t pte, unsigned long *pfn)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
	const swp_entry_t entry = pte_to_swp_entry(pte);

	if (!is_migration_entry(entry))
		return false;
	*pfn = swp_offset_pfn(entry);
#else
	const softleaf_t entry = softleaf_from_pte(pte);

	if (!softleaf_is_migration(entry))
		return false;
	*pfn = softleaf_to_pfn(entry);
#endif
	return true;
}

/** thermocline_moving_pmd() - the same for a huge page */
static inline bool thermocline_moving_pmd(pmd_t pmd, unsigned long *pfn)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
	if (!is_pmd_migration_entry(pmd))
		return false;
	*pfn = swp_offset_pfn(pmd_to_swp_entry(pmd));
#else
	if (!pmd_is_migration_entry(pmd))
		return false;
	*pfn = softleaf_to_pfn(softleaf_from_pmd(pmd));
#endif
	return true;
}

/** thermocline_page_flags() - the flags of @page itself, not of its folio */
static __always_inline unsigned long thermocline_page_flags(const struct page *page)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 18, 0)
	return page->flags;
#else
	return page->flags.f;
#endif
}

/*
 * From about 7.0 on (the guard is on the safe side), __flush_tlb_all() is exported to KVM only. What it does
 * besides emptying the TLB of all processes' pages is to empty it of global ones, which no process has; so
 * it can be done without. Where a CPU has PCIDs but can't name them in an instruction, it can't.
 */
#define THERMOCLINE_FLUSH_ALL_IS_EXPORTED (LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0))

/** thermocline_can_flush() - thermocline_flush_local() works on these CPUs */
static inline bool thermocline_can_flush(void)
{
	return THERMOCLINE_FLUSH_ALL_IS_EXPORTED ||
	       (!cpu_feature_enabled(X86_FEATURE_XENPV) &&
		(boot_cpu_has(X86_FEATURE_INVPCID) || !boot_cpu_has(X86_FEATURE_PCID)));
}

/** thermocline_flush_local() - empties this CPU's TLB of all processes' pages. With interrupts off. */
static inline void thermocline_flush_local(void)
{
#if THERMOCLINE_FLUSH_ALL_IS_EXPORTED
	__flush_tlb_all();
#else
	if (boot_cpu_has(X86_FEATURE_INVPCID))
		invpcid_flush_all_nonglobals();
	else
		native_write_cr3(__native_read_cr3());
#endif
}

/*
 * Whether a CPU has an address space on loan only. The kernel exports the variable and hides its declaration from
 * modules; it has been this one since 5.13, in all kernels that dkms.conf lets the module be built for.
 */
struct tlb_state_shared {
	bool is_lazy;
};
DECLARE_PER_CPU_SHARED_ALIGNED(struct tlb_state_shared, cpu_tlbstate_shared);

/**
 * thermocline_is_broadcast() - @mm has the same PCID on all CPUs
 *
 * So AMD's INVLPGB wants it (6.15). Its flushes reach all CPUs, so one that comes back to such an address
 * space doesn't look whether it has missed any.
 */
static inline bool thermocline_is_broadcast(const struct mm_struct *mm)
{
#ifdef CONFIG_BROADCAST_TLB_FLUSH
	return cpu_feature_enabled(X86_FEATURE_INVLPGB) && READ_ONCE(mm->context.global_asid);
#else
	return false;
#endif
}

#endif /* THERMOCLINE_COMPAT_H */

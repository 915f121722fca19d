/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Marks for the timing model, for programs and kernel code of a guest: everything that is counted
 * (instructions, misses per tier and per page) is written out at each mark, so what lies between
 * two marks can be told exactly. A mark is one store with prefixes that no compiler emits; without
 * the model it is a plain store. Any program may set one.
 */
#ifndef THERMOCLINE_TIMING_MARK_H
#define THERMOCLINE_TIMING_MARK_H

/* Name of up to eight letters: thermocline_timing_name("begin"). */
static inline unsigned long thermocline_timing_name(const char* name) {
  unsigned long value = 0;
  unsigned int i;

  for (i = 0; i < 8 && name[i]; i++) value |= (unsigned long)(unsigned char)name[i] << (8 * i);
  return value;
}

/* Sends a value to the model. */
static inline void thermocline_timing_send(unsigned long value) {
  unsigned long sink;

  __asm__ volatile(".byte 0x2e, 0x3e, 0x26, 0x36, 0x2e, 0x3e\n\tmovq %1, %0"
                   : "=m"(sink)
                   : "r"(value)
                   : "memory");
  (void)sink;
}

/* What is between this mark and the next one is counted by itself. */
static inline void thermocline_timing_mark(const char* name) {
  thermocline_timing_send(thermocline_timing_name(name));
}

/* From here on, others take so many 10^6 bytes per second of a node's bandwidth. */
static inline void thermocline_timing_background(unsigned int node, unsigned long megabytes) {
  thermocline_timing_send(1UL << 56 | (unsigned long)(node & 0xff) << 48 |
                          (megabytes & 0xffffffff));
}

/* What a module's functions do, for a profile (docs/emulation.md). */
enum thermocline_timing_purpose {
  THERMOCLINE_TIMING_TRACKER = 1,
  THERMOCLINE_TIMING_POLICY = 2,
  THERMOCLINE_TIMING_MOVER = 3,
};

/* From here on, so many pages of kernel text at this address are for that. */
static inline void thermocline_timing_text(enum thermocline_timing_purpose purpose,
                                           unsigned long address, unsigned long pages) {
  thermocline_timing_send(2UL << 56 | (unsigned long)purpose << 52 | (pages & 0xfffff) << 32 |
                          (address & 0xffffffff));
}

#endif

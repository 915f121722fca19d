// SPDX-License-Identifier: Apache-2.0
// A fault of QEMU that ends guests with CXL memory, and its remedy. The runner calls it for the cxl
// profile; nothing on disk changes.
//
// The fault (QEMU 10.0, target/i386/tcg/access.c, access_ptr()): instructions that save or restore
// registers as a block (XSAVE, FXSAVE, XRSTOR and kin) look their one or two pages up first. A page
// that is not plain RAM has no host address and must take the slow way. That is tested for the
// first page and forgotten for the second: where a block begins in DRAM and ends in emulated CXL
// memory, QEMU writes to the null pointer plus an offset and dies of SIGSEGV. Such blocks lie on
// every program's stack: the kernel puts one there for each signal, the dynamic loader one for each
// function bound lazily.
//
// The remedy: the eight functions access_ld{b,w,l,q} and access_st{b,w,l,q} end that path with
// "if (haddr2 + offset != NULL) fast; else slow". With the jump to the fast way taken out (two
// bytes each), the second page always takes the slow way, which is right for RAM as well.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace thermocline::lab {

struct FunctionRange {
  std::uint64_t address;  ///< as in the file: before it is loaded somewhere
  std::uint64_t size;     ///< bytes
};

/// The exported functions of an x86-64 ELF file that have one of these names; empty for any other
/// machine. kCorrupt when the bytes don't follow their format.
[[nodiscard]] Result<std::vector<FunctionRange>> exported_functions(
    std::string_view elf, std::span<const std::string_view> names);

/// Where in the code of one of the eight functions the jump to the fast way is (two bytes);
/// nothing when the code is another build's or is mended already.
[[nodiscard]] std::optional<std::size_t> faulty_jump(std::string_view code);

/// Waits up to two seconds until `child`, which was just forked, runs QEMU, and mends that in its
/// memory. The number of jumps taken out: 0 when this QEMU doesn't have the fault, or not in the
/// shape known here, or has ended. An Error when its memory can't be read or written.
[[nodiscard]] Result<unsigned> mend_emulator(pid_t child);

}  // namespace thermocline::lab

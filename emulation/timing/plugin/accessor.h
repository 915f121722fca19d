// SPDX-License-Identifier: GPL-2.0
// Reads where a function of QEMU keeps what it calls, off its first instructions. Pure, for the
// self-check and its test. The functions are of the form
//   mov GLOBAL(%rip),%rax; [test %rax,%rax; je ...;] mov SLOT(%rax),%rax; test %rax,%rax; je ...;
//   jmp *%rax
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace timing_plugin {

struct Accessor {
  bool known = false;       ///< the code has exactly the form above
  std::int32_t global = 0;  ///< displacement of GLOBAL from the end of the first instruction
  std::int32_t slot = 0;    ///< offset of the function pointer in the object
};

inline constexpr std::size_t kAccessorBytes = 26;
inline constexpr std::size_t kFirstInstruction = 7;  ///< its length

/// `code` has at least kAccessorBytes bytes.
inline Accessor decode_accessor(const unsigned char* code) {
  const auto word = [](const unsigned char* at) {
    std::int32_t value = 0;
    std::memcpy(&value, at, sizeof value);
    return value;
  };
  const auto match = [](const unsigned char* at, const char* bytes, std::size_t n) {
    return std::memcmp(at, bytes, n) == 0;
  };
  Accessor accessor;
  if (!match(code, "\x48\x8b\x05", 3)) return {};  // mov disp32(%rip),%rax
  accessor.global = word(code + 3);
  const unsigned char* at = code + kFirstInstruction;
  if (match(at, "\x48\x85\xc0\x74", 4)) at += 5;  // test %rax,%rax; je
  if (!match(at, "\x48\x8b\x80", 3)) return {};   // mov disp32(%rax),%rax
  accessor.slot = word(at + 3);
  at += 7;
  if (!match(at, "\x48\x85\xc0\x74", 4) || !match(at + 5, "\xff\xe0", 2)) return {};
  accessor.known = true;
  return accessor;
}

/// What cpus_get_accel() begins with: mov GLOBAL(%rip),%rax.
inline bool decode_getter(const unsigned char* code, std::int32_t& global) {
  if (std::memcmp(code, "\x48\x8b\x05", 3) != 0) return false;
  std::memcpy(&global, code + 3, sizeof global);
  return true;
}

}  // namespace timing_plugin

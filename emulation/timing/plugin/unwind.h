// SPDX-License-Identifier: GPL-2.0
// Walks a kernel stack from outside, by the tables that the kernel has for itself (ORC): where the
// caller's address lies, for every instruction. Words that an older call left behind are not taken
// for callers. Pure; main.cc reads the tables and stacks out of the guest's memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace timing_plugin {

/// Where a function is; of a caller, `pc` is the return address.
struct Frame {
  std::uint64_t pc = 0;
  std::uint64_t sp = 0;
  std::uint64_t bp = 0;
};

class Unwinder {
 public:
  static constexpr std::size_t kEntryBytes = 6;

  /// `places` is the kernel's table that begins at address `base` (each number is relative to its
  /// own address), `entries` what it says of them. False when they are in no known form.
  bool load(std::uint64_t base, std::vector<std::int32_t> places,
            std::vector<std::uint8_t> entries) {
    if (places.empty() || entries.size() != places.size() * kEntryBytes) return false;
    // Nearly all entries are those of ordinary calls; Linux 6.4 gave them another number.
    std::array<std::size_t, 8> types{};
    for (std::size_t i = 0; i < places.size(); ++i) ++types[entries[i * kEntryBytes + 5] & 7u];
    old_ = types[0] > places.size() / 2;
    if (!old_ && types[2] <= places.size() / 2) return false;
    base_ = base;
    places_ = std::move(places);
    entries_ = std::move(entries);
    return true;
  }
  [[nodiscard]] bool known() const { return !places_.empty(); }

  enum class Step {
    kCaller,  ///< `frame` is its caller now
    kEnd,     ///< nobody called: user code, an interrupt or exception, the end of a thread
    kLost,    ///< not told (a module's function)
  };
  /// `read(address, word)` reads 8 bytes of the guest's memory, false when it can't.
  template <class Read>
  Step up(Frame& frame, bool innermost, Read read) const {
    const Entry entry = find(innermost ? frame.pc : frame.pc - 1);
    if (entry.type == Type::kEnd || entry.type == Type::kRegisters) return Step::kEnd;
    if (entry.type != Type::kCall) return Step::kLost;
    std::uint64_t sp = 0;
    const auto offset = static_cast<std::uint64_t>(std::int64_t{entry.sp_offset});
    switch (entry.sp_register) {
      case kBp:
        sp = frame.bp + offset;
        break;
      case kSp:
        sp = frame.sp + offset;
        break;
      case kBpIndirect:
        if (!read(frame.bp + offset, sp)) return Step::kLost;
        break;
      case kSpIndirect:
        if (!read(frame.sp, sp)) return Step::kLost;
        sp += offset;
        break;
      default:
        return Step::kLost;
    }
    const auto bp_offset = static_cast<std::uint64_t>(std::int64_t{entry.bp_offset});
    std::uint64_t pc = 0;
    std::uint64_t bp = frame.bp;
    if (!read(sp - 8, pc)) return Step::kLost;
    if (entry.bp_register == kPreviousSp && !read(sp + bp_offset, bp)) return Step::kLost;
    if (entry.bp_register == kBp && !read(frame.bp + bp_offset, bp)) return Step::kLost;
    frame = {pc, sp, bp};
    return Step::kCaller;
  }

 private:
  enum class Type { kUnknown, kEnd, kCall, kRegisters };
  // Numbers of the kernel's arch/x86/include/asm/orc_types.h.
  static constexpr unsigned kPreviousSp = 1;
  static constexpr unsigned kBp = 4;
  static constexpr unsigned kSp = 5;
  static constexpr unsigned kBpIndirect = 8;
  static constexpr unsigned kSpIndirect = 9;
  /// Text beyond the last place that is told: a module's.
  static constexpr std::uint64_t kFurthest = 1 << 20;

  struct Entry {
    std::int16_t sp_offset = 0;
    std::int16_t bp_offset = 0;
    unsigned sp_register = 0;
    unsigned bp_register = 0;
    Type type = Type::kUnknown;
  };

  [[nodiscard]] std::uint64_t place(std::size_t i) const {
    return base_ + 4 * i + static_cast<std::uint64_t>(std::int64_t{places_[i]});
  }

  [[nodiscard]] Type type_of(unsigned number, unsigned sp_register) const {
    if (!old_) {
      static constexpr std::array<Type, 5> kTypes = {Type::kUnknown, Type::kEnd, Type::kCall,
                                                     Type::kRegisters, Type::kRegisters};
      return number < kTypes.size() ? kTypes[number] : Type::kUnknown;
    }
    constexpr unsigned kEndBit = 4;
    if (sp_register == 0) return (number & kEndBit) != 0 ? Type::kEnd : Type::kUnknown;
    return (number & 3u) == 0 ? Type::kCall : Type::kRegisters;
  }

  /// The last entry at or before an address.
  [[nodiscard]] Entry find(std::uint64_t address) const {
    std::size_t first = 0;
    for (std::size_t last = places_.size(); first < last;) {
      const std::size_t middle = first + (last - first) / 2;
      if (place(middle) <= address)
        first = middle + 1;
      else
        last = middle;
    }
    if (first == 0 || address - place(first - 1) > kFurthest) return {};
    const std::uint8_t* const bytes = &entries_[(first - 1) * kEntryBytes];
    Entry entry;
    std::memcpy(&entry.sp_offset, bytes, 2);
    std::memcpy(&entry.bp_offset, bytes + 2, 2);
    entry.sp_register = bytes[4] & 15u;
    entry.bp_register = bytes[4] >> 4u;
    entry.type = type_of(bytes[5] & 7u, entry.sp_register);
    return entry;
  }

  bool old_ = false;  ///< the form before Linux 6.4
  std::uint64_t base_ = 0;
  std::vector<std::int32_t> places_;
  std::vector<std::uint8_t> entries_;
};

}  // namespace timing_plugin

// SPDX-License-Identifier: Apache-2.0
// Units as types: a page count can't be passed where bytes are meant.
// Used by every layer; has no behaviour beyond arithmetic within a unit and named conversions.
#pragma once

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>

namespace thermocline {

using Nanoseconds = std::chrono::nanoseconds;

/// Size of a base page in bytes and its log2. x86-64 only has this one.
inline constexpr std::uint64_t kPageSize = 4096;
inline constexpr unsigned kPageShift = 12;

/// An unsigned quantity of one unit. Arithmetic stays within the unit; get() leaves it.
template <class Tag, class Rep = std::uint64_t>
class Quantity {
 public:
  using rep = Rep;
  constexpr Quantity() = default;
  constexpr explicit Quantity(Rep value) : value_(value) {}
  [[nodiscard]] constexpr Rep get() const { return value_; }
  constexpr auto operator<=>(const Quantity&) const = default;
  constexpr Quantity& operator+=(Quantity o) {
    value_ = static_cast<Rep>(value_ + o.value_);
    return *this;
  }
  constexpr Quantity& operator-=(Quantity o) {
    value_ = static_cast<Rep>(value_ - o.value_);
    return *this;
  }
  friend constexpr Quantity operator+(Quantity a, Quantity b) { return a += b; }
  friend constexpr Quantity operator-(Quantity a, Quantity b) { return a -= b; }
  /// a - b, or 0 when b is larger.
  [[nodiscard]] constexpr Quantity minus_floor(Quantity b) const {
    return value_ > b.value_ ? Quantity(static_cast<Rep>(value_ - b.value_)) : Quantity();
  }

 private:
  Rep value_{};
};

/// A number that names something: compares, but doesn't add.
template <class Tag, class Rep>
class Id {
 public:
  using rep = Rep;
  constexpr Id() = default;
  constexpr explicit Id(Rep value) : value_(value) {}
  [[nodiscard]] constexpr Rep get() const { return value_; }
  constexpr auto operator<=>(const Id&) const = default;

 private:
  Rep value_{};
};

using Bytes = Quantity<struct BytesTag>;
/// Count of 4 KiB pages, whatever the size of the mapping.
using PageCount = Quantity<struct PageCountTag>;
/// NUMA node as the kernel numbers it.
using NodeId = Id<struct NodeIdTag, std::int32_t>;
/// Position in the ordered list of tiers; 0 is the fastest.
using TierId = Id<struct TierIdTag, std::uint8_t>;
/// Identity of an address space; survives pid reuse, changes at exec (see tracking/process.h).
using Asid = Id<struct AsidTag, std::uint64_t>;
using Epoch = Id<struct EpochTag, std::uint64_t>;
/// Page temperature: 0 (untouched for long) to 255; at a decision 127 = touched in every window.
/// See heat/scale.h.
using Heat = Id<struct HeatTag, std::uint8_t>;
using Pid = Id<struct PidTag, std::int32_t>;

/// Virtual page number: virtual address >> 12.
class Vpn : public Id<struct VpnTag, std::uint64_t> {
 public:
  using Id::Id;
  [[nodiscard]] constexpr std::uint64_t address() const { return get() << kPageShift; }
  static constexpr Vpn of_address(std::uint64_t address) { return Vpn(address >> kPageShift); }
  friend constexpr Vpn operator+(Vpn a, PageCount n) { return Vpn(a.get() + n.get()); }
  friend constexpr PageCount operator-(Vpn a, Vpn b) { return PageCount(a.get() - b.get()); }
};

/// Size of a mapping as a power of two of base pages: 0 = 4 KiB, 9 = 2 MiB, 18 = 1 GiB.
class PageOrder : public Id<struct PageOrderTag, std::uint8_t> {
 public:
  using Id::Id;
  [[nodiscard]] constexpr PageCount pages() const { return PageCount(std::uint64_t{1} << get()); }
};

inline constexpr PageOrder kOrder4K{0};
inline constexpr PageOrder kOrder2M{9};
inline constexpr PageOrder kOrder1G{18};

/// Tier of a page that is not present or whose node belongs to no tier.
inline constexpr TierId kNoTier{7};
/// Most tiers a machine may have: tier numbers 0..6 fit a page's state, 7 means none.
inline constexpr std::size_t kMaxTiers = 7;

[[nodiscard]] constexpr Bytes bytes_of(PageCount pages) {
  return Bytes(pages.get() << kPageShift);
}
/// Whole pages in `bytes`; a last part of a page is dropped.
[[nodiscard]] constexpr PageCount pages_of(Bytes bytes) {
  return PageCount(bytes.get() >> kPageShift);
}

inline namespace literals {
constexpr Bytes operator""_KiB(unsigned long long n) {
  return Bytes(n << 10);
}
constexpr Bytes operator""_MiB(unsigned long long n) {
  return Bytes(n << 20);
}
constexpr Bytes operator""_GiB(unsigned long long n) {
  return Bytes(n << 30);
}
}  // namespace literals

}  // namespace thermocline

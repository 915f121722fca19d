// SPDX-License-Identifier: GPL-2.0
#include "emulation/timing/plugin/clock.h"

#include <dlfcn.h>

#include <atomic>

#include "emulation/timing/plugin/accessor.h"
#include "emulation/timing/plugin/qemu_api.h"

namespace timing_plugin {

namespace {

// What the slots hold must be plain functions. While the clock is being taken they answer with
// numbers that only they can have given.
std::atomic<ClockFn> the_clock{nullptr};
std::atomic<void (*)(std::int64_t)> the_setter{nullptr};
std::atomic<std::int64_t> last_set{0};
constexpr std::int64_t kClockAnswer = 3;
constexpr std::int64_t kTicksAnswer = 5;
constexpr std::int64_t kSetQuestion = 7;

std::int64_t get_clock() {
  const ClockFn clock = the_clock.load(std::memory_order_acquire);
  return clock != nullptr ? clock() : kClockAnswer;
}
std::int64_t get_ticks() {
  const ClockFn clock = the_clock.load(std::memory_order_acquire);
  return clock != nullptr ? clock() : kTicksAnswer;  // a TSC of 1 GHz
}
void set_clock(std::int64_t now) {
  const auto setter = the_setter.load(std::memory_order_acquire);
  if (setter != nullptr)
    setter(now);
  else
    last_set = now;
}

template <class F>
bool find(const char* name, F& function, std::string& error) {
  function = reinterpret_cast<F>(::dlsym(RTLD_DEFAULT, name));
  if (function == nullptr) error = std::string("this QEMU has no symbol ") + name;
  return function != nullptr;
}

const unsigned char* code_of(auto function) {
  return reinterpret_cast<const unsigned char*>(function);
}

constexpr std::size_t kPointer = sizeof(void*);
constexpr std::int64_t kMostAtStart = 1'000'000'000;

}  // namespace

bool Clock::prepare(Mode mode, std::string& error) {
  mode_ = mode;
  if (!find("tlb_flush", tlb_flush_, error) || !find("qemu_get_cpu", get_cpu_, error)) return false;
  if (mode == Mode::kReport) return true;
  if (!find("cpus_get_accel", get_accel_, error) ||
      !find("cpus_get_virtual_clock", get_virtual_clock_, error) ||
      !find("cpus_set_virtual_clock", set_virtual_clock_, error) ||
      !find("cpus_get_elapsed_ticks", get_elapsed_ticks_, error) ||
      !find("icount_get", icount_get_, error) || !find("icount_get_raw", icount_get_raw_, error))
    return false;
  const Accessor get = decode_accessor(code_of(get_virtual_clock_));
  const Accessor set = decode_accessor(code_of(set_virtual_clock_));
  const Accessor ticks = decode_accessor(code_of(get_elapsed_ticks_));
  std::int32_t global = 0;
  if (!get.known || !set.known || !ticks.known || !decode_getter(code_of(get_accel_), global)) {
    error = "QEMU's clock functions are not of the form that was tested";
    return false;
  }
  const auto object = [](auto function, std::int32_t displacement) {
    return code_of(function) + kFirstInstruction + displacement;
  };
  if (object(get_virtual_clock_, get.global) != object(get_accel_, global) ||
      object(set_virtual_clock_, set.global) != object(get_accel_, global) ||
      object(get_elapsed_ticks_, ticks.global) != object(get_accel_, global)) {
    error = "QEMU's clock functions don't use the same accelerator object";
    return false;
  }
  const auto offset = static_cast<std::size_t>(get.slot);
  if (get.slot < 64 || get.slot > 1024 || offset % kPointer != 0 ||
      set.slot != get.slot + static_cast<int>(kPointer) ||
      ticks.slot != get.slot + 2 * static_cast<int>(kPointer)) {
    error = "the clock operations of QEMU's accelerator are not where they were tested to be";
    return false;
  }
  slots_ = offset;
  control_ = qemu_plugin_request_time_control();
  if (control_ == nullptr) error = "another plug-in has control of QEMU's time";
  return control_ != nullptr;
}

bool Clock::take(ClockFn get, void (*set)(std::int64_t), std::string& error) {
  void** const slots = reinterpret_cast<void**>(static_cast<unsigned char*>(get_accel_()) + slots_);
  void* const expected = mode_ == Mode::kReference ? reinterpret_cast<void*>(icount_get_) : nullptr;
  if (slots[0] != expected || slots[1] != nullptr || slots[2] != expected) {
    error = mode_ == Mode::kReference
                ? "QEMU's clock is not the instruction counter that was tested (-icount)"
                : "QEMU's clock is not the plain one that was tested (tcg, thread=multi)";
    return false;
  }
  if (const std::int64_t now = get_virtual_clock_(); now < 0 || now > kMostAtStart) {
    error = "the guest's clock runs already";
    return false;
  }
  slots[0] = reinterpret_cast<void*>(get_clock);
  slots[1] = reinterpret_cast<void*>(set_clock);
  slots[2] = reinterpret_cast<void*>(get_ticks);
  set_virtual_clock_(kSetQuestion);
  if (get_virtual_clock_() != kClockAnswer || get_elapsed_ticks_() != kTicksAnswer ||
      last_set != kSetQuestion) {
    slots[0] = slots[2] = expected;
    slots[1] = nullptr;
    error = "QEMU does not read its clock through the operations that were replaced";
    return false;
  }
  the_setter.store(set, std::memory_order_release);
  the_clock.store(get, std::memory_order_release);
  return true;
}

void Clock::kick(std::int64_t now) const {
  // Under the instruction counter any call makes QEMU look at its timers. Otherwise they run at
  // once only when the clock is moved past them.
  qemu_plugin_update_ns(control_, mode_ == Mode::kReference ? 0 : now + 1);
}

}  // namespace timing_plugin

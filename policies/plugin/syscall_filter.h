// SPDX-License-Identifier: Apache-2.0
// The system calls that the process of a plug-in may make; the kernel refuses a few others, and
// ends it for the rest (seccomp). Called by host_main alone, before the plug-in is loaded and once
// more before it decides. What was given up can't be had back.
#pragma once

#include "base/result.h"

namespace thermocline::plugin {

enum class MayOpen : std::uint8_t {
  kToRead,   ///< files, and nothing else: to load a library, and in create()
  kNothing,  ///< memory, time, its socket and what it has open are left
};

/// For this process, all of its threads. Requires no_new_privs. kUnsupported when the kernel has no
/// such filters, or is none for which there is one here.
[[nodiscard]] Status limit_system_calls(MayOpen open);

}  // namespace thermocline::plugin

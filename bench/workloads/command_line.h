// SPDX-License-Identifier: Apache-2.0
// Command lines of the workloads.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "base/result.h"
#include "base/text.h"

namespace thermocline::workloads {

/// False when there is nothing left to do: help was asked for, and printed. kUsage, in one
/// sentence, when the command line can't be understood.
[[nodiscard]] inline Result<bool> understand(CLI::App& app, const char* name, int argc,
                                             char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    app.exit(e);
    return false;
  } catch (const CLI::ParseError& e) {
    return fail(ErrorKind::kUsage, "{}", usage_sentence(e.what(), name));
  }
  return true;
}

}  // namespace thermocline::workloads

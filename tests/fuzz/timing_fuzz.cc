// SPDX-License-Identifier: Apache-2.0
// The timing-model parser on any text: accepted or refused with a place, never more; and a model
// that is accepted gives a plan for a guest, or a reason with a place.
#include <cstdlib>
#include <string>

#include "emulation/timing/model.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace thermocline;
  const auto model =
      timing::parse_model(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
  const auto refused = [](const Error& error) {
    return error.kind == ErrorKind::kUsage && error.message.starts_with("fuzz:");
  };
  if (!model) {
    if (!refused(model.error())) std::abort();
    return 0;
  }
  timing::GuestMemory memory;
  memory.ranges = {{NodeId(0), 0, Bytes(1u << 30)}, {NodeId(1), 1u << 30, Bytes(1u << 30)}};
  memory.cpu_node = {NodeId(0), NodeId(0)};
  const auto plan = timing::make_plan(*model, memory, timing::Mode::kReport, {});
  if (!plan && !refused(plan.error())) std::abort();
  return 0;
}

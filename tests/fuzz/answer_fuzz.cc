// SPDX-License-Identifier: Apache-2.0
// What a command makes of JSON that a daemon, or a history file, may hold: a text or an error.
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/report_html.h"
#include "cli/report_model.h"
#include "control/status.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace thermocline;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_discarded()) {
    const auto status = status_text(json);
    if (status ? status->empty() : status.error().message.empty()) std::abort();
  }
  report::Model model;
  if (auto runs = report::parse_history(text, "fuzz")) model.histories = std::move(*runs);
  if (report::to_html(model).empty()) std::abort();
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
// A request on the control socket, any bytes: exactly one line of valid JSON comes back.
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "control/control_socket.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace thermocline;
  const std::string answer = answer_request(
      std::string(reinterpret_cast<const char*>(data), size),
      [](const std::string& command, const nlohmann::json& request) -> Result<nlohmann::json> {
        if (command == "echo") return request;
        return fail(ErrorKind::kUsage, "unknown command \"{}\"", command);
      });
  if (answer.empty() || answer.find('\n') != answer.size() - 1) std::abort();
  const auto parsed = nlohmann::json::parse(answer, nullptr, false);
  if (!parsed.is_object() || !parsed.contains("ok")) std::abort();
  return 0;
}

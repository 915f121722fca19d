// SPDX-License-Identifier: Apache-2.0
// The control socket: a client sends one line of JSON, {"command": "status"}, and gets one line of
// JSON back, {"ok": true, "result": …} or {"ok": false, "error": "…"}; then the server closes.
// Untrusted input: a request has at most 64 KiB and 5 seconds, and there are at most 16 clients.
// The socket is only for its owner (mode 0600).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"
#include "base/system.h"
#include "control/event_loop.h"

namespace thermocline {

/// Answers a command; the Error's message goes to the client.
using ControlHandler = std::function<Result<nlohmann::json>(const std::string& command,
                                                            const nlohmann::json& request)>;

/// One request line to one answer line; what the server does with the bytes of a client.
[[nodiscard]] std::string answer_request(const std::string& line, const ControlHandler& handler);

class ControlServer {
 public:
  static constexpr std::size_t kMaxRequest = 64 * 1024;
  static constexpr std::size_t kMaxClients = 16;
  static constexpr Nanoseconds kClientTime = std::chrono::seconds(5);

  /// Binds `path`. A socket left behind by a daemon that has died is replaced; one that answers is
  /// kFailure ("already running").
  [[nodiscard]] static Result<std::unique_ptr<ControlServer>> start(EventLoop& loop, System& system,
                                                                    const std::string& path,
                                                                    ControlHandler handler);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  /// Close clients that took too long. Called now and then by the owner.
  void expire(Nanoseconds now);

 private:
  struct Client {
    UniqueFd fd;
    std::string in, out;
    std::size_t sent = 0;
    Nanoseconds until{};
  };

  ControlServer(EventLoop& loop, System& system, std::string path, ControlHandler handler);
  void accept_client();
  void read_client(int fd);
  void write_client(int fd);
  void drop(int fd);

  EventLoop& loop_;
  System& system_;
  std::string path_;
  ControlHandler handler_;
  UniqueFd listener_;
  std::map<int, Client> clients_;
};

/// The client's side: asks the daemon behind `path`. kFailure with a sentence when none answers.
[[nodiscard]] Result<nlohmann::json> ask_daemon(const std::string& path,
                                                const nlohmann::json& request);

}  // namespace thermocline

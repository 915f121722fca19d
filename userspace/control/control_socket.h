// SPDX-License-Identifier: Apache-2.0
// The control socket: a client sends one line of JSON, {"command": "status"}, and gets one line of
// JSON back, {"ok": true, "result": …} or {"ok": false, "error": "…"}; then the server closes.
// Untrusted input: a request has at most 64 KiB and 5 seconds, and there are at most 16 clients.
// The socket is only for its owner (mode 0600).
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
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
  /// Pause after accept() failed for want of file descriptors: the socket would stay ready.
  static constexpr Nanoseconds kAcceptPause = std::chrono::milliseconds(500);

  /// Binds `path`. A socket left behind by a daemon that has died is replaced; one that lives is
  /// kFailure ("already running"). PATH.lock is locked for as long as the server lives, so that of
  /// two that start at once only one touches the socket.
  [[nodiscard]] static Result<std::unique_ptr<ControlServer>> start(EventLoop& loop, System& system,
                                                                    const std::string& path,
                                                                    ControlHandler handler);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  /// Closes clients that took too long, and accepts again when file descriptors had run out. Called
  /// by the owner before it waits, which it does no longer than until next_deadline().
  void expire(Nanoseconds now);
  /// When expire() is due; Nanoseconds::max() when it isn't.
  [[nodiscard]] Nanoseconds next_deadline() const;

 private:
  struct Client {
    UniqueFd fd;
    std::string in, out;
    std::size_t sent = 0;
    Nanoseconds until{};
  };

  /// The socket's file, to tell it from one that someone else has put there since.
  struct FileId {
    dev_t device = 0;
    ino_t inode = 0;
    bool operator==(const FileId&) const = default;
  };

  ControlServer(EventLoop& loop, System& system, std::string path, ControlHandler handler);
  [[nodiscard]] static std::optional<FileId> file_id(const std::string& path);
  Status lock();
  Status listen_for_clients();
  void accept_client();
  void read_client(int fd);
  void write_client(int fd);
  void drop(int fd);

  EventLoop& loop_;
  System& system_;
  std::string path_;
  ControlHandler handler_;
  UniqueFd lock_;
  UniqueFd listener_;
  std::optional<FileId> own_file_;
  std::optional<Nanoseconds> accept_again_;  ///< set: not listening for clients until then
  std::map<int, Client> clients_;
};

/// The client's side: asks the daemon behind `path`. kFailure with a sentence when none answers.
[[nodiscard]] Result<nlohmann::json> ask_daemon(const std::string& path,
                                                const nlohmann::json& request);

}  // namespace thermocline

// SPDX-License-Identifier: Apache-2.0
#include "control/control_socket.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/text.h"

namespace thermocline {

namespace {

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    return fail(ErrorKind::kUsage, "\"{}\" can't be a socket path: 1 to {} characters", path,
                sizeof(address.sun_path) - 1);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

UniqueFd connect_to(const sockaddr_un& address) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd && ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) < 0)
    fd.reset();
  return fd;
}

std::string lock_path(const std::string& socket) {
  return socket + ".lock";
}

tl::unexpected<Error> already_running(const std::string& path) {
  return fail(ErrorKind::kFailure,
              "a daemon is already running on {}: stop it, or give this one another control.socket",
              path);
}

std::string error_line(const std::string& message) {
  return nlohmann::json{{"ok", false}, {"error", message}}.dump(
             -1, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

}  // namespace

std::string answer_request(const std::string& line, const ControlHandler& handler) {
  // Depth is bounded by the length, and the parser works without recursion.
  const auto request = nlohmann::json::parse(line, nullptr, false);
  if (!request.is_object() || !request.contains("command") || !request["command"].is_string())
    return error_line(R"(a request is one line of JSON with a "command")");
  const auto result = handler(request["command"].get<std::string>(), request);
  if (!result) return error_line(result.error().message);
  return nlohmann::json{{"ok", true}, {"result", *result}}.dump(
             -1, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

ControlServer::ControlServer(EventLoop& loop, System& system, std::string path,
                             ControlHandler handler)
    : loop_(loop), system_(system), path_(std::move(path)), handler_(std::move(handler)) {}

Result<std::unique_ptr<ControlServer>> ControlServer::start(EventLoop& loop, System& system,
                                                            const std::string& path,
                                                            ControlHandler handler) {
  TC_ASSIGN(const auto address, address_of(path));
  std::unique_ptr<ControlServer> server(new ControlServer(loop, system, path, std::move(handler)));
  TC_TRY(server->lock());
  if (connect_to(address)) return already_running(path);
  struct stat old {};
  if (::lstat(path.c_str(), &old) == 0) {
    if (!S_ISSOCK(old.st_mode))
      return fail(ErrorKind::kUsage, "{} exists and is not a socket: choose another control.socket",
                  path);
    ::unlink(path.c_str());
  }
  server->listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!server->listener_) return fail_errno(errno, "can't make a socket");
  const mode_t mask = ::umask(0177);
  const int bound =
      ::bind(server->listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  const int bind_errno = errno;
  ::umask(mask);
  if (bound < 0) {
    server->listener_.reset();
    return fail_errno(bind_errno, fmt::format("can't make the control socket {}", path));
  }
  server->own_file_ = file_id(path);
  if (::listen(server->listener_.get(), 16) < 0)
    return fail_errno(errno, fmt::format("can't listen on {}", path));
  TC_TRY(server->listen_for_clients());
  return server;
}

ControlServer::~ControlServer() {
  while (!clients_.empty()) drop(clients_.begin()->first);
  if (listener_) loop_.unwatch(listener_.get());
  if (own_file_ && file_id(path_) == own_file_) ::unlink(path_.c_str());
  if (lock_) ::unlink(lock_path(path_).c_str());
}

std::optional<ControlServer::FileId> ControlServer::file_id(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return std::nullopt;
  return FileId{info.st_dev, info.st_ino};
}

Status ControlServer::lock() {
  const std::string path = lock_path(path_);
  for (;;) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd) return fail_errno(errno, fmt::format("can't make the lock file {}", path));
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return already_running(path_);
      return fail_errno(errno, "can't lock " + path);
    }
    // The one before us removes the file at its end: what we locked must still be what is there.
    struct stat info {};
    if (::fstat(fd.get(), &info) == 0 && file_id(path) == FileId{info.st_dev, info.st_ino}) {
      lock_ = std::move(fd);
      return {};
    }
  }
}

Status ControlServer::listen_for_clients() {
  return loop_.watch(listener_.get(), false, [this] { accept_client(); });
}

void ControlServer::accept_client() {
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
    // The client stays in the queue and the socket ready: waiting for it now would be a busy loop.
    loop_.unwatch(listener_.get());
    accept_again_ = system_.now() + kAcceptPause;
    return;
  }
  if (!fd || clients_.size() >= kMaxClients) return;
  const int number = fd.get();
  Client client;
  client.fd = std::move(fd);
  client.until = system_.now() + kClientTime;
  clients_[number] = std::move(client);
  if (!loop_.watch(number, false, [this, number] { read_client(number); })) clients_.erase(number);
}

void ControlServer::read_client(int fd) {
  Client& client = clients_.at(fd);
  std::array<char, 4096> buffer;
  const ssize_t n = ::read(fd, buffer.data(), buffer.size());
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) return drop(fd);
  client.in.append(buffer.data(), static_cast<std::size_t>(n));
  const auto end = client.in.find('\n');
  if (end == std::string::npos) {
    if (client.in.size() <= kMaxRequest) return;
    client.out = error_line("the request is longer than 64 KiB");
  } else {
    client.out = answer_request(client.in.substr(0, end), handler_);
  }
  loop_.unwatch(fd);
  if (!loop_.watch(fd, true, [this, fd] { write_client(fd); })) drop(fd);
}

void ControlServer::write_client(int fd) {
  Client& client = clients_.at(fd);
  const ssize_t n =
      ::send(fd, client.out.data() + client.sent, client.out.size() - client.sent, MSG_NOSIGNAL);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) return drop(fd);
  client.sent += static_cast<std::size_t>(n);
  if (client.sent == client.out.size()) drop(fd);
}

void ControlServer::drop(int fd) {
  loop_.unwatch(fd);
  clients_.erase(fd);
}

void ControlServer::expire(Nanoseconds now) {
  std::vector<int> late;
  for (const auto& [fd, client] : clients_)
    if (now > client.until) late.push_back(fd);
  for (const int fd : late) drop(fd);
  if (accept_again_ && now >= *accept_again_) {
    // Once more later, should even watching fail now.
    accept_again_ = listen_for_clients() ? std::nullopt : std::optional(now + kAcceptPause);
  }
}

Nanoseconds ControlServer::next_deadline() const {
  Nanoseconds next = accept_again_.value_or(Nanoseconds::max());
  // A client is late just after its time, not at it.
  for (const auto& [fd, client] : clients_) next = std::min(next, client.until + Nanoseconds(1));
  return next;
}

Result<nlohmann::json> ask_daemon(const std::string& path, const nlohmann::json& request) {
  TC_ASSIGN(const auto address, address_of(path));
  const UniqueFd fd = connect_to(address);
  if (!fd) {
    const int why = errno;
    if (why == EACCES || why == EPERM)
      return fail(ErrorKind::kPermission, "not allowed to talk to the daemon on {}: run as root",
                  path);
    return fail(
        ErrorKind::kFailure,
        "no daemon answers on {} ({}): start thermoclined, or name its socket with --socket", path,
        errno_text(why));
  }
  const timeval patience{30, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  const std::string line =
      request.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  if (::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size()))
    return fail_errno(errno, "can't ask the daemon");
  std::string answer;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "the daemon does not answer");
    if (n == 0) break;
    answer.append(buffer.data(), static_cast<std::size_t>(n));
  }
  const auto parsed = nlohmann::json::parse(answer, nullptr, false);
  if (!parsed.is_object() || !parsed.contains("ok") || !parsed["ok"].is_boolean())
    return fail(ErrorKind::kFailure, "the daemon on {} sent an answer that makes no sense", path);
  if (parsed["ok"].get<bool>() && parsed.contains("result")) return parsed["result"];
  if (parsed.contains("error") && parsed["error"].is_string())
    return fail(ErrorKind::kFailure, "the daemon refuses: {}",
                printable(parsed["error"].get<std::string>()));
  return fail(ErrorKind::kFailure, "the daemon on {} sent an answer that makes no sense", path);
}

}  // namespace thermocline

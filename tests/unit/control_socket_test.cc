// SPDX-License-Identifier: Apache-2.0
// The control socket over both kinds of event loop, with good and bad clients.
#include "control/control_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

namespace thermocline {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

Result<nlohmann::json> handle(const std::string& command, const nlohmann::json& request) {
  if (command == "echo") return request;
  if (command == "big") return nlohmann::json(std::string(3'000'000, 'x'));
  return fail(ErrorKind::kUsage, "unknown command \"{}\"", command);
}

TEST(AnswerRequest, GarbageGetsAnErrorLine) {
  for (const char* line : {"", "x", "[]", "{}", R"({"command": 5})", "{\"command\": \"\xff\"}"}) {
    const auto answer = nlohmann::json::parse(answer_request(line, handle));
    EXPECT_FALSE(answer.at("ok").get<bool>()) << line;
  }
  const std::string deep(60'000, '[');
  EXPECT_THAT(answer_request(deep, handle), HasSubstr("\"ok\":false"));
}

UniqueFd connect_client(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

class ControlSocketTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "tc_control_" + std::to_string(::getpid()) + ".sock";
    auto loop = make_event_loop_named(GetParam());
    if (!loop) GTEST_SKIP() << loop.error().message;
    loop_ = std::move(*loop);
    auto server = ControlServer::start(*loop_, *system_, path_, handle);
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
    thread_ = std::thread([this] {
      while (!stop_) {
        server_->expire(system_->now());
        ASSERT_TRUE(loop_->run_once(system_->now() + 10ms));
      }
    });
  }
  void TearDown() override {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    server_.reset();
    if (loop_) {
      EXPECT_NE(::access(path_.c_str(), F_OK), 0) << "the socket was left behind";
      EXPECT_NE(::access((path_ + ".lock").c_str(), F_OK), 0) << "the lock was left behind";
    }
  }
  UniqueFd connect() const { return connect_client(path_); }

  std::string path_;
  std::unique_ptr<System> system_ = make_real_system();
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<ControlServer> server_;
  std::thread thread_;
  std::atomic<bool> stop_{false};
};

TEST_P(ControlSocketTest, AnswersAndRefuses) {
  const auto answer = ask_daemon(path_, {{"command", "echo"}, {"n", 5}});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->at("n"), 5);
  const auto refused = ask_daemon(path_, {{"command", "fly"}});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("unknown command \"fly\""));
}

TEST_P(ControlSocketTest, LongAnswersArriveWhole) {
  const auto answer = ask_daemon(path_, {{"command", "big"}});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->get<std::string>().size(), 3'000'000u);
}

TEST_P(ControlSocketTest, SilentAndHalfClientsDoNotStopOthers) {
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 8; ++i) silent.push_back(connect());
  ASSERT_EQ(::send(silent[0].get(), "{\"comm", 6, MSG_NOSIGNAL), 6);
  silent[1].reset();
  EXPECT_TRUE(ask_daemon(path_, {{"command", "echo"}}));
}

TEST_P(ControlSocketTest, AnEndlessRequestIsCutOff) {
  const UniqueFd fd = connect();
  const std::string junk(8192, 'x');
  for (int i = 0; i < 64; ++i)
    if (::send(fd.get(), junk.data(), junk.size(), MSG_NOSIGNAL) < 0) break;
  std::string answer(4096, '\0');
  const ssize_t n = ::read(fd.get(), answer.data(), answer.size());
  // The server may have closed before all of the junk was taken: then the kernel resets.
  if (n > 0) {
    EXPECT_THAT(answer, HasSubstr("longer than 64 KiB"));
  }
  EXPECT_TRUE(ask_daemon(path_, {{"command", "echo"}}));
}

TEST_P(ControlSocketTest, ASecondDaemonIsRefused) {
  const auto loop = make_event_loop_named("epoll");
  const auto second = ControlServer::start(**loop, *system_, path_, handle);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("already running"));
  EXPECT_TRUE(ask_daemon(path_, {{"command", "echo"}})) << "the first one must go on";
}

TEST_P(ControlSocketTest, OnlyTheOwnerMayTalk) {
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_P(ControlSocketTest, ASecondDaemonIsRefusedEvenWhileTheFirstDoesNotAnswer) {
  // The moment between bind() and listen(), or a queue that is full: connect() fails.
  ::unlink(path_.c_str());
  const auto loop = make_event_loop_named("epoll");
  const auto second = ControlServer::start(**loop, *system_, path_, handle);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("already running"));
}

INSTANTIATE_TEST_SUITE_P(Loops, ControlSocketTest, testing::Values("io_uring", "epoll"),
                         [](const auto& param) { return param.param; });

TEST(ControlSocket, RemovesOnlyItsOwnSocket) {
  const std::string path = testing::TempDir() + "tc_own.sock";
  ::unlink(path.c_str());
  const auto system = make_real_system();
  const auto loop = make_event_loop_named("epoll");
  {
    const auto server = ControlServer::start(**loop, *system, path, handle);
    ASSERT_TRUE(server) << server.error().message;
    ::unlink(path.c_str());
    std::ofstream(path) << "someone else's";
  }
  EXPECT_EQ(::access(path.c_str(), F_OK), 0);
  ::unlink(path.c_str());
}

TEST(ControlSocket, ASilentClientIsClosedInTimeAndItsTimeIsADeadline) {
  const std::string path = testing::TempDir() + "tc_silent.sock";
  const auto system = make_real_system();
  const auto loop = make_event_loop_named("epoll");
  const auto server = ControlServer::start(**loop, *system, path, handle);
  ASSERT_TRUE(server) << server.error().message;
  EXPECT_EQ((*server)->next_deadline(), Nanoseconds::max());
  const UniqueFd client = connect_client(path);
  ASSERT_TRUE((*loop)->run_once(system->now() + 1s));
  const Nanoseconds deadline = (*server)->next_deadline();
  EXPECT_LE(deadline, system->now() + ControlServer::kClientTime + 1ms);
  (*server)->expire(deadline);
  EXPECT_EQ((*server)->next_deadline(), Nanoseconds::max());
  char byte = 0;
  EXPECT_EQ(::read(client.get(), &byte, 1), 0) << "the server has closed";
}

TEST(ControlSocket, WithoutFileDescriptorsItWaitsInsteadOfSpinning) {
  const std::string path = testing::TempDir() + "tc_emfile.sock";
  const auto system = make_real_system();
  for (const char* kind : {"io_uring", "epoll"}) {
    const auto loop = make_event_loop_named(kind);
    if (!loop) continue;
    const auto server = ControlServer::start(**loop, *system, path, handle);
    ASSERT_TRUE(server) << server.error().message;
    const UniqueFd client = connect_client(path);
    rlimit old{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
    rlimit none = old;
    none.rlim_cur = 0;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
    const Nanoseconds until = system->now() + 100ms;
    int turns = 0;
    while (system->now() < until && turns < 1000) {
      (*server)->expire(system->now());
      ASSERT_TRUE((*loop)->run_once(std::min(until, (*server)->next_deadline())));
      ++turns;
    }
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
    EXPECT_LT(turns, 20) << kind;
    const Nanoseconds again = (*server)->next_deadline();
    EXPECT_LE(again, system->now() + ControlServer::kAcceptPause);
    (*server)->expire(again);
    ASSERT_TRUE((*loop)->run_once(system->now() + 1s));
    EXPECT_NE((*server)->next_deadline(), Nanoseconds::max()) << "the client was not accepted";
  }
}

TEST(ControlSocket, AStaleSocketIsReplacedAndAFileIsNot) {
  const std::string path = testing::TempDir() + "tc_stale.sock";
  ::unlink(path.c_str());
  const auto system = make_real_system();
  const auto loop = make_event_loop_named("epoll");
  {
    const UniqueFd left(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    ASSERT_EQ(::bind(left.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  { EXPECT_TRUE(ControlServer::start(**loop, *system, path, handle)); }
  std::ofstream(path) << "precious";
  const auto refused = ControlServer::start(**loop, *system, path, handle);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("is not a socket"));
  EXPECT_EQ(::access(path.c_str(), F_OK), 0);
  ::unlink(path.c_str());
}

/// Answers one client with `answer`, whatever it asks.
std::string complaint_about(const std::string& answer) {
  const std::string path = testing::TempDir() + "tc_fake_" + std::to_string(::getpid()) + ".sock";
  ::unlink(path.c_str());
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  EXPECT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(::listen(listener.get(), 1), 0);
  std::thread fake([&] {
    const UniqueFd client(::accept(listener.get(), nullptr, nullptr));
    std::string request(4096, '\0');
    EXPECT_GT(::read(client.get(), request.data(), request.size()), 0);
    EXPECT_EQ(::send(client.get(), answer.data(), answer.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(answer.size()));
  });
  const auto result = ask_daemon(path, {{"command", "status"}});
  fake.join();
  ::unlink(path.c_str());
  return result ? "accepted" : result.error().message;
}

TEST(ControlSocket, AnAnswerThatMakesNoSenseIsOneClearSentence) {
  for (const char* answer : {"", "nonsense", "[]", "{}", R"({"ok": 1})", R"({"ok": true})",
                             R"({"ok": false, "error": 5})", R"({"ok": false})", "{\"ok\": \"\xff"})
    EXPECT_THAT(complaint_about(answer), HasSubstr("makes no sense")) << answer;
  EXPECT_THAT(complaint_about(R"({"ok": false, "error": "no \u001b"})"),
              HasSubstr("refuses: no ?"));
  EXPECT_EQ(complaint_about(R"({"ok": true, "result": {}})"), "accepted");
}

TEST(ControlSocket, NoDaemonIsOneClearSentence) {
  const auto answer = ask_daemon("/nonexistent/x.sock", {{"command", "status"}});
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error().message, HasSubstr("start thermoclined"));
}

}  // namespace
}  // namespace thermocline

// SPDX-License-Identifier: Apache-2.0
// thermocline-policy-host: the process that a policy plug-in runs in. Started by PluginProcess with
// the plug-in's file and a socket, both open; nobody calls it by hand.
//
// Gives up all that it can do without before the first line of the plug-in runs, and opening files
// when the policy is there; then serves one request after the other until the socket is closed.
// Nothing here protects from the plug-in: it may write into all of this memory. Who it talks to
// does.
#include <dlfcn.h>
#include <grp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "policies/plugin/plugin_process.h"
#include "policies/plugin/syscall_filter.h"
#include "policies/plugin/wire.h"

namespace thermocline::plugin {

namespace {

constexpr int kSocket = PluginProcess::kSocketFd;
constexpr uid_t kNobody = 65534;
constexpr rlim_t kMostMemory = rlim_t{1} << 30;
constexpr rlim_t kMostFiles = 64;

// Sanitizers reserve terabytes of address space, and make system calls of their own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#else
constexpr bool kSanitized = false;
#endif

bool write_whole(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::send(kSocket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return true;
}

bool read_whole(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::recv(kSocket, bytes.data(), bytes.size(), 0);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return true;
}

bool send_frame(FrameType type, std::span<const std::byte> payload) {
  FrameHeader header;
  header.type = type;
  header.length = payload.size();
  return write_whole(std::as_bytes(std::span(&header, 1))) && write_whole(payload);
}

/// The end of it: why, as what follows the plug-in's name.
int refuse(const std::string& why) {
  (void)send_frame(FrameType::kRefused, encode_text(why));
  return 1;
}

std::optional<Frame> next_frame() {
  FrameHeader header;
  if (!read_whole(std::as_writable_bytes(std::span(&header, 1))) ||
      !check_header(header, kMostView))
    return std::nullopt;
  Frame frame{header.type, std::vector<std::byte>(header.length)};
  if (!read_whole(frame.payload)) return std::nullopt;
  return frame;
}

void limit(__rlimit_resource what, rlim_t most) {
  const rlimit value{most, most};
  ::setrlimit(what, &value);
}

std::optional<std::string> limit_calls(MayOpen open) {
  if (kSanitized) return std::nullopt;
  if (const Status limited = limit_system_calls(open); !limited) return limited.error().message;
  return std::nullopt;
}

/// Gives up what can be given up. Says what couldn't be and must.
std::optional<std::string> give_up_rights() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return "can't run without no_new_privs";
  limit(RLIMIT_CORE, 0);
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  // a pipe for cores heeds no limit
  limit(RLIMIT_MEMLOCK, 0);
  limit(RLIMIT_NOFILE, kMostFiles);
  if (!kSanitized) limit(RLIMIT_AS, kMostMemory);
  if (::geteuid() == 0) {
    // Where the kernel lets root: no network, and nobody else's System V memory.
    (void)::unshare(CLONE_NEWNET);
    (void)::unshare(CLONE_NEWIPC);
    if (::setgroups(0, nullptr) != 0 || ::setresgid(kNobody, kNobody, kNobody) != 0 ||
        ::setresuid(kNobody, kNobody, kNobody) != 0)
      return fmt::format("can't run as nobody ({})", std::strerror(errno));
  }
  limit(RLIMIT_NPROC, 0);
  // After the change of user, which would undo it.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  return limit_calls(MayOpen::kToRead);
}

std::string text_or_empty(const char* text) {
  return text == nullptr ? std::string()
                         : std::string(text, ::strnlen(text, THERMOCLINE_MOST_TEXT));
}

/// What the plug-in tells about itself, or what is wrong with that.
std::optional<std::string> describe(const thermocline_policy_ops& policy, Hello& hello) {
  if (policy.abi != THERMOCLINE_POLICY_ABI)
    return fmt::format(
        "is made for version {} of the interface of policies, and this Thermocline has version {}; "
        "build it with the policy_abi.h that came with it",
        policy.abi, THERMOCLINE_POLICY_ABI);
  if (policy.create == nullptr || policy.decide == nullptr)
    return fmt::format("has no {} in its thermocline_policy",
                       policy.create == nullptr ? "create" : "decide");
  hello.needs = policy.needs;
  hello.name = text_or_empty(policy.name);
  hello.summary = text_or_empty(policy.summary);
  hello.source = text_or_empty(policy.source);
  std::vector<const std::string*> texts{&hello.name, &hello.summary, &hello.source};
  for (const char* const* rule = policy.rules; rule != nullptr && *rule != nullptr; ++rule) {
    hello.rules.push_back(text_or_empty(*rule));
    if (hello.rules.size() > THERMOCLINE_MOST_RULES)
      return fmt::format("has more than {} rules", THERMOCLINE_MOST_RULES);
  }
  for (const thermocline_option* o = policy.options; o != nullptr && o->key != nullptr; ++o) {
    hello.options.push_back(
        {text_or_empty(o->key), text_or_empty(o->meaning), text_or_empty(o->default_text)});
    if (hello.options.size() > THERMOCLINE_MOST_OPTIONS)
      return fmt::format("has more than {} options", THERMOCLINE_MOST_OPTIONS);
  }
  for (const std::string& rule : hello.rules) texts.push_back(&rule);
  for (const PolicyOptionHelp& option : hello.options)
    for (const std::string* text : {&option.key, &option.meaning, &option.default_text})
      texts.push_back(text);
  for (const std::string* text : texts)
    if (text->empty() || text->size() >= THERMOCLINE_MOST_TEXT)
      return fmt::format(
          "has a text in its thermocline_policy that is missing or has {} letters "
          "and more",
          THERMOCLINE_MOST_TEXT);
  if (hello.rules.empty()) return "has no rules in its thermocline_policy";
  return std::nullopt;
}

/// One decision. False when there is nobody to tell.
bool decide(const thermocline_policy_ops& policy, void* self, std::span<const std::byte> payload) {
  const auto shown = decode_view(payload);
  if (!shown) return refuse("was shown " + shown.error().message), false;
  std::vector<thermocline_move> moves(shown->pages.size());
  thermocline_plan plan{};
  plan.moves = moves.data();
  plan.capacity = moves.size();
  plan.pages_left = shown->view.budget;
  if (const int result = policy.decide(self, &shown->view, &plan); result != 0)
    return refuse(fmt::format("returned {} from decide()", result)), false;
  if (plan.count > moves.size())
    return refuse(fmt::format("planned {} moves of {} pages that it was shown", plan.count,
                              moves.size())),
           false;
  moves.resize(plan.count);
  return send_frame(FrameType::kPlan, encode(PlanReply{plan.window_eighths, std::move(moves)}));
}

int serve() {
  if (const auto why = give_up_rights()) return refuse(*why);
  const std::string path = fmt::format("/proc/self/fd/{}", PluginProcess::kPluginFd);
  void* const library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::string why = text_or_empty(::dlerror());
    if (why.starts_with(path + ": ")) why.erase(0, path.size() + 2);
    return refuse("can't be loaded: " + why);
  }
  ::close(PluginProcess::kPluginFd);
  const auto* const policy =
      static_cast<const thermocline_policy_ops*>(::dlsym(library, "thermocline_policy"));
  if (policy == nullptr) return refuse("doesn't export thermocline_policy");
  Hello hello;
  if (const auto why = describe(*policy, hello)) return refuse(*why);
  if (!send_frame(FrameType::kHello, encode(hello))) return 0;

  const auto first = next_frame();
  if (!first) return 0;
  const auto create = decode_create(first->payload);
  if (first->type != FrameType::kCreate || !create || create->values.size() != hello.options.size())
    return refuse("was given options that it doesn't have");
  std::vector<const char*> values;
  for (const std::string& value : create->values) values.push_back(value.c_str());
  char error[THERMOCLINE_MOST_TEXT] = "";
  void* const self = policy->create(values.data(), create->seed, error, sizeof(error));
  if (self == nullptr)
    return refuse(error[0] != 0 ? text_or_empty(error) : "it refuses, and doesn't say why");
  if (const auto why = limit_calls(MayOpen::kNothing)) return refuse(*why);
  if (!send_frame(FrameType::kReady, {})) return 0;
  while (const auto frame = next_frame()) {
    if (frame->type != FrameType::kView) break;
    if (!decide(*policy, self, frame->payload)) return 1;
  }
  if (policy->destroy != nullptr) policy->destroy(self);
  return 0;
}

}  // namespace

}  // namespace thermocline::plugin

int main() {
  return thermocline::plugin::serve();
}

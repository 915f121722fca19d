// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/common.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <thread>
#include <vector>

#include "base/output.h"
#include "base/text.h"

namespace thermocline::workloads {

std::atomic<bool> stop_requested{false};

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { stop_requested.store(true, std::memory_order_relaxed); };
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
}

double monotonic_seconds(const System& system) {
  return std::chrono::duration<double>(system.now()).count();
}

Status write_ready_file(const std::string& path, std::string_view content) {
  return path.empty() ? Status{} : write_whole(path, content);
}

void wait_for_file(const std::string& path) {
  while (!path.empty() && ::access(path.c_str(), F_OK) != 0 && !stop_requested)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

template <class Json>
static Status write_any_json(const std::string& path, const Json& json) {
  if (path.empty()) return {};
  const std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  if (path != "-") return write_whole(path, text);
  std::fputs(text.c_str(), stdout);  // run_program() looks whether it arrived
  return {};
}

Status write_json(const std::string& path, const nlohmann::json& json) {
  return write_any_json(path, json);
}
Status write_json(const std::string& path, const nlohmann::ordered_json& json) {
  return write_any_json(path, json);
}

double Placement::share(int node) const {
  const auto it = pages_on_node.find(node);
  if (it == pages_on_node.end()) return 0.0;
  std::uint64_t all = unknown;
  for (const auto& [number, pages] : pages_on_node) all += pages;
  return static_cast<double>(it->second) / static_cast<double>(all);
}

nlohmann::json Placement::to_json() const {
  nlohmann::json nodes = nlohmann::json::object();
  for (const auto& [node, pages] : pages_on_node) nodes[std::to_string(node)] = pages;
  return {{"pages_on_node", nodes}, {"unknown_pages", unknown}};
}

std::string Placement::to_text() const {
  std::string text;
  for (const auto& [node, pages] : pages_on_node)
    text += fmt::format("{}node {}: {} ({:.1f} %)", text.empty() ? "" : ", ", node, pages,
                        100.0 * share(node));
  if (unknown > 0) text += fmt::format("{}unknown: {}", text.empty() ? "" : ", ", unknown);
  return text;
}

Result<Placement> query_placement(System& system, const std::byte* base,
                                  std::span<const std::uint32_t> pages) {
  constexpr std::size_t kBatch = 4096;
  Placement placement;
  std::vector<void*> addresses;
  std::array<int, kBatch> status;
  while (!pages.empty()) {
    const auto batch = pages.first(std::min(pages.size(), kBatch));
    pages = pages.subspan(batch.size());
    addresses.clear();
    for (const std::uint32_t page : batch)
      addresses.push_back(const_cast<std::byte*>(base + std::size_t{page} * kPageSize));
    const std::span<int> answers = std::span(status).first(batch.size());
    const long rc = system.move_pages(Pid(0), addresses, {}, answers, 0);
    if (rc < 0) return fail_errno(static_cast<int>(-rc), "can't ask where pages live (move_pages)");
    for (const int node : answers) {
      if (node >= 0)
        ++placement.pages_on_node[node];
      else
        ++placement.unknown;
    }
  }
  return placement;
}

Status check_node(const System& system, int node) {
  TC_ASSIGN(const std::string online, system.read_file("/sys/devices/system/node/online"));
  TC_ASSIGN(const auto nodes, parse_list(online));
  for (const std::uint32_t n : nodes)
    if (static_cast<int>(n) == node) return {};
  return fail(ErrorKind::kUsage, "there is no NUMA node {} here; the nodes are {}", node,
              trim(online));
}

int run_program(const char* name, const std::function<Result<int>()>& body) {
  Result<int> result = body();
  if (Status printed = finish_stdout(); result && !printed)
    result = tl::make_unexpected(std::move(printed).error());
  if (result) return *result;
  fmt::print(stderr, "{}: {}\n", name, result.error().message);
  return static_cast<int>(result.error().exit_code());
}

}  // namespace thermocline::workloads

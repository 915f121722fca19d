// SPDX-License-Identifier: Apache-2.0
#include "trace/trace_info.h"

#include <nlohmann/json.hpp>

#include "base/json_read.h"
#include "base/text.h"

namespace thermocline::trace {

namespace {

using nlohmann::json;

constexpr std::uint64_t kPages = std::uint64_t{1} << (57 - kPageShift);

std::string text_or_empty(const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() ? "" : printable(found->get_ref<const std::string&>());
}

SessionInfo session_of(const json& j) {
  SessionInfo session;
  session.made_by = text_or_empty(j, "made_by");
  session.source = text_or_empty(j, "source");
  session.grain = text_or_empty(j, "grain");
  session.sees_reads = j.value("sees_reads", true);
  session.window = Nanoseconds(whole_or<std::int64_t>(j, "window_ns", 0));
  session.unix_ns = whole_or<std::uint64_t>(j, "unix_ns", 0);
  if (const auto machine = j.find("machine"); machine != j.end()) {
    session.kernel = text_or_empty(*machine, "kernel");
    session.cpu = text_or_empty(*machine, "cpu");
    session.memory = Bytes(whole_or<std::uint64_t>(*machine, "memory_bytes", 0));
  }
  if (const auto tiers = j.find("tiers"); tiers != j.end())
    for (const json& t : *tiers) {
      TierInfo tier;
      tier.name = text_or_empty(t, "name");
      for (const json& node : t.at("nodes")) tier.nodes.emplace_back(whole<std::uint16_t>(node));
      tier.total = Bytes(whole_or<std::uint64_t>(t, "total_bytes", 0));
      session.tiers.push_back(std::move(tier));
    }
  if (const auto command = j.find("command"); command != j.end())
    for (const json& word : *command)
      session.command.push_back(printable(word.get_ref<const std::string&>()));
  return session;
}

ProcessInfo process_of(const json& j) {
  ProcessInfo process;
  process.asid = Asid(whole<std::uint64_t>(j.at("asid")));
  process.pid = Pid(whole_or<std::int32_t>(j, "pid", 0));
  process.command = text_or_empty(j, "command");
  std::uint64_t end = 0;
  if (const auto mappings = j.find("mappings"); mappings != j.end())
    for (const json& m : *mappings) {
      const auto first = whole<std::uint64_t>(m.at("first_page"));
      const auto pages = whole<std::uint64_t>(m.at("pages"));
      if (first < end || pages == 0 || first >= kPages || pages > kPages - first)
        throw json::other_error::create(501, "mappings that overlap or lie nowhere", &m);
      end = first + pages;
      process.mappings.push_back({Vpn(first), PageCount(pages), text_or_empty(m, "name")});
    }
  return process;
}

EndInfo end_of(const json& j) {
  return {text_or_empty(j, "reason"), whole_or<std::uint64_t>(j, "windows", 0),
          whole_or<std::uint64_t>(j, "lost_records", 0)};
}

}  // namespace

nlohmann::ordered_json to_json(const SessionInfo& s) {
  nlohmann::ordered_json tiers = nlohmann::ordered_json::array();
  for (const TierInfo& tier : s.tiers) {
    std::vector<std::int32_t> nodes;
    for (const NodeId node : tier.nodes) nodes.push_back(node.get());
    tiers.push_back({{"name", tier.name}, {"nodes", nodes}, {"total_bytes", tier.total.get()}});
  }
  return {{"session",
           {{"made_by", s.made_by},
            {"source", s.source},
            {"grain", s.grain},
            {"sees_reads", s.sees_reads},
            {"window_ns", s.window.count()},
            {"unix_ns", s.unix_ns},
            {"machine", {{"kernel", s.kernel}, {"cpu", s.cpu}, {"memory_bytes", s.memory.get()}}},
            {"tiers", std::move(tiers)},
            {"command", s.command}}}};
}

nlohmann::ordered_json to_json(const ProcessInfo& p) {
  nlohmann::ordered_json mappings = nlohmann::ordered_json::array();
  for (const NamedRange& m : p.mappings)
    mappings.push_back({{"first_page", m.first.get()}, {"pages", m.pages.get()}, {"name", m.name}});
  return {{"process",
           {{"asid", p.asid.get()},
            {"pid", p.pid.get()},
            {"command", p.command},
            {"mappings", std::move(mappings)}}}};
}

nlohmann::ordered_json to_json(const EndInfo& e) {
  return {
      {"end", {{"reason", e.reason}, {"windows", e.windows}, {"lost_records", e.lost_records}}}};
}

Status add_info(std::string_view text, TraceInfo& info) {
  try {
    const json object = json::parse(text);
    if (const auto session = object.find("session"); session != object.end())
      info.sessions.push_back(session_of(*session));
    if (const auto found = object.find("process"); found != object.end()) {
      ProcessInfo process = process_of(*found);
      info.processes[process.asid] = std::move(process);
    }
    if (const auto end = object.find("end"); end != object.end()) info.ends.push_back(end_of(*end));
  } catch (const json::exception& e) {
    return fail(ErrorKind::kCorrupt, "its description is no JSON of the kind: {}", e.what());
  }
  return {};
}

}  // namespace thermocline::trace

// SPDX-License-Identifier: Apache-2.0
// demo_verdict DIR: reads what the demo's guest left in DIR, prints the table, writes
// DIR/table.json for the report, and exits 0 only if the demo showed what it promises.
#include <fmt/core.h>

#include <cstdio>
#include <memory>

#include "base/system.h"
#include "base/text.h"
#include "bench/demo/verdict.h"
#include "bench/workloads/common.h"

namespace thermocline::demo {
namespace {

Status read_json(const System& system, const std::string& path, nlohmann::json& out) {
  TC_ASSIGN(const std::string text, system.read_file(path));
  out = nlohmann::json::parse(text, nullptr, false);
  if (out.is_discarded()) return fail(ErrorKind::kCorrupt, "{} is not JSON", path);
  return {};
}

Status read_number(const System& system, const std::string& path, std::uint64_t& out) {
  TC_ASSIGN(const std::string text, system.read_file(path));
  TC_ASSIGN(out, parse_u64(trim(text)));
  return {};
}

Result<int> run(int argc, char** argv) {
  if (argc != 2) return fail(ErrorKind::kUsage, "give the folder that the demo's guest wrote");
  const std::string dir = argv[1];
  const std::unique_ptr<System> system = make_real_system();
  Inputs in;
  TC_TRY(read_json(*system, dir + "/hotset-without.json", in.hotset_without));
  TC_TRY(read_json(*system, dir + "/hotset-with.json", in.hotset_with));
  TC_TRY(read_json(*system, dir + "/hotset-status.json", in.hotset_status));
  TC_TRY(read_json(*system, dir + "/redis-without.json", in.redis_without));
  TC_TRY(read_json(*system, dir + "/redis-with.json", in.redis_with));
  TC_TRY(read_json(*system, dir + "/redis-settled.json", in.redis_settled));
  TC_TRY(read_json(*system, dir + "/redis-status.json", in.redis_status));
  TC_TRY(read_json(*system, dir + "/oracle.json", in.oracle));
  TC_TRY(read_number(*system, dir + "/hotset-kernel-moves", in.hotset_kernel_moves));
  TC_TRY(read_number(*system, dir + "/redis-kernel-moves", in.redis_kernel_moves));
  TC_ASSIGN(const Verdict verdict, judge(in, Limits{}));
  TC_TRY(workloads::write_json(dir + "/table.json", verdict.table));
  fmt::print("{}\n", table_text(verdict.table));
  for (const Check& check : verdict.checks)
    fmt::print("  {}  {}\n", check.passed ? "ok  " : "FAIL", check.text);
  return verdict.passed() ? 0 : 1;
}

}  // namespace
}  // namespace thermocline::demo

int main(int argc, char** argv) {
  return thermocline::workloads::run_program("demo_verdict",
                                             [&] { return thermocline::demo::run(argc, argv); });
}

// SPDX-License-Identifier: Apache-2.0
// The sqlite3 shell, unmodified, with a database in memory: look-ups by primary key and by a second
// index, and updates, one statement at a time. What they find is told by key and version alone.
#include "bench/workloads/sqlite_shell.h"

#include "base/text.h"
#include "bench/workloads/suite/families.h"
#include "bench/workloads/suite/served.h"

namespace thermocline::workloads {

namespace {

/// The text of a row is key and version, 8 hexadecimal digits each, and so many dots: four rows of
/// 1,000 bytes fill a page.
constexpr unsigned kDots = 984;
/// Largest prime below 2^32: k -> k * a + b modulo it never gives a value twice.
constexpr std::uint64_t kPrime = 4'294'967'291;

class SqliteStore final : public Store {
 public:
  SqliteStore(std::unique_ptr<Server> server, std::uint64_t seed)
      : server_(std::move(server)),
        factor_(kPrime / 2 + mix64(seed) % (kPrime / 2)),
        offset_(mix64(~seed) % kPrime) {}

  Server& server() override { return *server_; }

  Status create() {
    TC_TRY(expect_nothing("PRAGMA journal_mode=OFF;", "off\n"));
    TC_TRY(expect_nothing("CREATE TABLE r(k INTEGER PRIMARY KEY,s INTEGER,v INTEGER,d TEXT);"));
    return expect_nothing("CREATE UNIQUE INDEX i ON r(s);");
  }

  /// The shell makes the rows itself: a statement a row would take most of a run.
  Status load(std::uint32_t first, std::uint32_t end) override {
    return expect_nothing(
        fmt::format("WITH RECURSIVE c(x) AS (SELECT {} UNION ALL SELECT x+1 FROM c WHERE x<{}) "
                    "INSERT INTO r SELECT x,(x*{}+{})%{},0,{} FROM c;",
                    first, end - 1, factor_, offset_, kPrime, text_expression("x", "0")));
  }

  Status exchange(std::span<const Request> requests, Findings& findings) override {
    for (const Request& request : requests) {
      const std::uint64_t k = request.record;
      std::string statement;
      switch (request.kind) {
        case Request::Kind::kRead:
          statement = fmt::format("SELECT k,v,d FROM r WHERE k={};", k);
          break;
        case Request::Kind::kReadByIndex:
          statement =
              fmt::format("SELECT k,v,d FROM r WHERE s={};", (k * factor_ + offset_) % kPrime);
          break;
        case Request::Kind::kWrite:
          statement = fmt::format("UPDATE r SET v={},d='{}' WHERE k={} RETURNING k,v,d;",
                                  request.version, text_of(request), k);
          break;
      }
      TC_ASSIGN(const std::string_view answer, ask(statement));
      judge(request, answer, findings);
    }
    return {};
  }

  /// The shell counts the rows that are as they say they are, by table and by index.
  Status audit(std::span<const std::uint32_t> versions, Findings& findings) override {
    std::uint64_t changes = 0;
    for (const std::uint32_t version : versions) changes += version;
    TC_ASSIGN(const std::string_view answer,
              ask(fmt::format("SELECT count(*),sum(v),'' FROM r WHERE d={};",
                              text_expression("k", "v"))));
    const auto row = parse_shell_row(answer);
    if (!row || row->key != versions.size() || row->version != changes)
      findings.add_wrong(fmt::format("{} rows with {} changes are intact, says the shell: {}",
                                     versions.size(), changes, printable(trim(answer))));
    TC_ASSIGN(const std::string_view check, ask("PRAGMA integrity_check;"));
    if (check != "ok\n") findings.add_wrong("the database is damaged: " + printable(trim(check)));
    return {};
  }

 private:
  static std::string text_expression(std::string_view key, std::string_view version) {
    // What doesn't hang on the row is worked out once a statement.
    return fmt::format("printf('%08x%08x',{},{})||replace(hex(zeroblob({})),'0','.')", key, version,
                       kDots / 2);
  }
  static std::string text_of(const Request& request) {
    return fmt::format("{:08x}{:08x}{:.>{}}", request.record, request.version, "", kDots);
  }

  /// Valid until the next call.
  Result<std::string_view> ask(std::string_view statement) {
    out_.clear();
    append_statement(out_, statement);
    Status sent = server_->channel().send(out_);
    if (!sent) return tl::make_unexpected(server_->explain(sent.error()));
    for (;;) {
      TC_ASSIGN(const std::optional<std::string_view> answer, answers_.next());
      if (answer) return *answer;
      const auto bytes = server_->channel().receive();
      if (!bytes) return tl::make_unexpected(server_->explain(bytes.error()));
      answers_.feed(*bytes);
    }
  }

  Status expect_nothing(std::string_view statement, std::string_view wanted = {}) {
    TC_ASSIGN(const std::string_view answer, ask(statement));
    const std::string complaint = server_->last_words();
    if (answer == wanted && complaint.empty()) return {};
    return fail(ErrorKind::kFailure, "sqlite3 can't make the database: {}",
                complaint.empty() ? printable(answer) : complaint);
  }

  void judge(const Request& request, std::string_view answer, Findings& findings) {
    const auto row = parse_shell_row(answer);
    if (!row)
      return findings.add_wrong(fmt::format("record {}: {}", request.record, row.error().message));
    if (row->key != request.record || row->version != request.version)
      return findings.add_wrong(fmt::format("record {} version {} came for record {} version {}",
                                            row->key, row->version, request.record,
                                            request.version));
    if (row->text != text_of(request))
      return findings.add_wrong(fmt::format("record {} has a damaged text", request.record));
    findings.sum += mix64(std::uint64_t{request.record} << 32 | request.version);
  }

  std::unique_ptr<Server> server_;
  std::uint64_t factor_, offset_;
  std::string out_;
  ShellAnswers answers_;
};

Result<std::unique_ptr<Workload>> sqlite(const Instance& instance) {
  Launch launch;
  launch.name = "sqlite3";
  launch.program = instance.program;
  launch.huge_pages = instance.huge_pages;
  launch.by_standard_input = true;
  launch.arguments = [](const std::string&) -> std::vector<std::string> {
    return {"-batch", "-init", "/dev/null", ":memory:"};
  };
  TC_ASSIGN(std::unique_ptr<Server> server, Server::start(launch));
  auto store = std::make_unique<SqliteStore>(std::move(server), instance.seed);
  TC_TRY(store->create());
  // A quarter of a page, which takes 4,368 bytes; an entry of the index some 25, as its pages are
  // 70 % full.
  const StoreSize size{Bytes(600'000), Bytes(1'124)};
  return Served::make(instance, std::move(store), size);
}

}  // namespace

std::vector<WorkloadSpec> sqlite_workloads() {
  return {{"sqlite",
           "looks a row up by primary key or by a second index, or updates it (5 %), in sqlite3",
           "sqlite 3.40; YCSB, SoCC 2010",
           16,
           {{"theta", 0.99, 0.01, 2, "Zipf's exponent"},
            {"set_share", 0.05, 0, 1, "share of operations that update"},
            {"index_share", 0.5, 0, 1, "share of look-ups that use the second index"}},
           sqlite,
           "sqlite3"}};
}

}  // namespace thermocline::workloads

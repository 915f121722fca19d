// SPDX-License-Identifier: Apache-2.0
// redis-server and memcached, unmodified: records of 1,000 bytes in a cache in memory, as YCSB has
// them, which one connection reads and overwrites with Zipf popularity.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "bench/workloads/memcached_text.h"
#include "bench/workloads/resp.h"
#include "bench/workloads/suite/families.h"
#include "bench/workloads/suite/served.h"

namespace thermocline::workloads {

namespace {

constexpr std::size_t kValueWords = 125;
using Value = std::array<std::uint64_t, kValueWords>;

/// What one request brought.
struct Answer {
  enum class Kind { kStored, kValue, kMissing, kRefused };
  Kind kind;
  std::string_view text;  ///< value or refusal
};

/// The language of a store.
class Wire {
 public:
  virtual ~Wire() = default;
  virtual void get(std::string& out, std::string_view key) = 0;
  virtual void set(std::string& out, std::string_view key, std::string_view value) = 0;
  virtual void feed(std::string_view bytes) = 0;
  /// nullopt when more bytes are needed.
  virtual Result<std::optional<Answer>> next() = 0;
};

class RedisWire final : public Wire {
 public:
  void get(std::string& out, std::string_view key) override {
    append_command(out, std::array<std::string_view, 2>{"GET", key});
  }
  void set(std::string& out, std::string_view key, std::string_view value) override {
    append_command(out, std::array<std::string_view, 3>{"SET", key, value});
  }
  void feed(std::string_view bytes) override { parser_.feed(bytes); }
  Result<std::optional<Answer>> next() override {
    TC_ASSIGN(const std::optional<Reply> reply, parser_.next());
    if (!reply) return std::nullopt;
    switch (reply->kind) {
      case Reply::Kind::kBulk:
        return Answer{Answer::Kind::kValue, reply->text};
      case Reply::Kind::kNull:
        return Answer{Answer::Kind::kMissing, {}};
      case Reply::Kind::kSimple:
        if (reply->text == "OK") return Answer{Answer::Kind::kStored, {}};
        break;
      default:
        break;
    }
    return Answer{Answer::Kind::kRefused, reply->text};
  }

 private:
  ReplyParser parser_;
};

class MemcachedWire final : public Wire {
 public:
  void get(std::string& out, std::string_view key) override { append_memcached_get(out, key); }
  void set(std::string& out, std::string_view key, std::string_view value) override {
    append_memcached_set(out, key, value);
  }
  void feed(std::string_view bytes) override { parser_.feed(bytes); }
  Result<std::optional<Answer>> next() override {
    TC_ASSIGN(const std::optional<MemcachedReply> reply, parser_.next());
    if (!reply) return std::nullopt;
    switch (reply->kind) {
      case MemcachedReply::Kind::kStored:
        return Answer{Answer::Kind::kStored, {}};
      case MemcachedReply::Kind::kValue:
        return Answer{Answer::Kind::kValue, reply->text};
      case MemcachedReply::Kind::kMissing:
        return Answer{Answer::Kind::kMissing, {}};
      case MemcachedReply::Kind::kRefused:
        break;
    }
    return Answer{Answer::Kind::kRefused, reply->text};
  }

 private:
  MemcachedParser parser_;
};

class KeyValueStore final : public Store {
 public:
  KeyValueStore(std::unique_ptr<Server> server, std::unique_ptr<Wire> wire, std::uint64_t seed)
      : server_(std::move(server)), wire_(std::move(wire)), seed_(seed) {}

  Server& server() override { return *server_; }

  Status load(std::uint32_t first, std::uint32_t end) override {
    Findings findings;
    batch_.clear();
    for (std::uint32_t record = first; record < end; ++record) {
      batch_.push_back({Request::Kind::kWrite, record, 0});
      if (batch_.size() == kMostAtOnce || record + 1 == end) {
        TC_TRY(exchange(batch_, findings));
        batch_.clear();
      }
    }
    if (findings.wrong > 0)
      return fail(ErrorKind::kFailure, "the records can't be loaded: {}", findings.first_wrong);
    return {};
  }

  Status exchange(std::span<const Request> requests, Findings& findings) override {
    out_.clear();
    for (const Request& request : requests) {
      const std::string name = name_of(request.record);
      if (request.kind == Request::Kind::kWrite)
        wire_->set(out_, name, value_of(request, findings));
      else
        wire_->get(out_, name);
    }
    if (Status sent = server_->channel().send(out_); !sent) return broken(sent.error());
    for (const Request& request : requests) {
      for (;;) {
        const auto answer = wire_->next();
        if (!answer) return broken(answer.error());
        if (*answer) {
          judge(request, **answer, findings);
          break;
        }
        const auto bytes = server_->channel().receive();
        if (!bytes) return broken(bytes.error());
        wire_->feed(*bytes);
      }
    }
    return {};
  }

  Status audit(std::span<const std::uint32_t> versions, Findings& findings) override {
    batch_.clear();
    for (std::uint32_t record = 0; record < versions.size(); ++record) {
      batch_.push_back({Request::Kind::kRead, record, versions[record]});
      if (batch_.size() == kMostAtOnce || record + 1 == versions.size()) {
        TC_TRY(exchange(batch_, findings));
        batch_.clear();
      }
    }
    return {};
  }

  /// Few enough that requests and answers fit into the buffers of a socket.
  static constexpr std::size_t kMostAtOnce = 64;

 private:
  Status broken(const Error& error) { return tl::make_unexpected(server_->explain(error)); }

  [[nodiscard]] std::uint64_t key_of(std::uint32_t record) const { return mix64(seed_ ^ record); }
  [[nodiscard]] std::string name_of(std::uint32_t record) const {
    return fmt::format("key:{:016x}", key_of(record));
  }
  /// Word j of a value, from 2 on; the first two are the key and the version.
  static std::uint64_t content(std::uint64_t key, std::uint32_t version) {
    return mix64(key + version);
  }

  std::string_view value_of(const Request& request, Findings& findings) {
    const std::uint64_t key = key_of(request.record);
    const std::uint64_t first = content(key, request.version);
    value_[0] = key;
    value_[1] = request.version;
    for (std::size_t j = 2; j < kValueWords; ++j) value_[j] = first + j;
    findings.sum += first;
    return {reinterpret_cast<const char*>(value_.data()), sizeof value_};
  }

  void judge(const Request& request, const Answer& answer, Findings& findings) {
    const auto wrong = [&](std::string_view what) {
      findings.add_wrong(
          fmt::format("record {} ({}) {}", request.record, name_of(request.record), what));
    };
    if (answer.kind == Answer::Kind::kRefused)
      return wrong(fmt::format("was refused: {}", answer.text));
    if (request.kind == Request::Kind::kWrite) {
      if (answer.kind != Answer::Kind::kStored) wrong("was not stored");
      return;
    }
    if (answer.kind == Answer::Kind::kMissing) return wrong("is lost");
    if (answer.kind != Answer::Kind::kValue || answer.text.size() != sizeof value_)
      return wrong("has a value of another size");
    std::memcpy(value_.data(), answer.text.data(), sizeof value_);
    const std::uint64_t key = key_of(request.record);
    if (value_[0] != key) return wrong("has the value of another one");
    if (value_[1] != request.version)
      return wrong(fmt::format("has version {} instead of {}", value_[1], request.version));
    const std::uint64_t first = content(key, request.version);
    std::uint64_t damage = 0;
    for (std::size_t j = 2; j < kValueWords; ++j) damage |= value_[j] ^ (first + j);
    if (damage != 0) return wrong("has a damaged value");
    findings.sum += first;
  }

  std::unique_ptr<Server> server_;
  std::unique_ptr<Wire> wire_;
  std::uint64_t seed_;
  std::string out_;
  Value value_{};
  std::vector<Request> batch_;
};

Result<std::unique_ptr<Workload>> redis(const Instance& instance) {
  Launch launch;
  launch.name = "redis-server";
  launch.program = instance.program;
  launch.huge_pages = instance.huge_pages;
  launch.arguments = [&](const std::string& socket) -> std::vector<std::string> {
    // No copy on disk, no second thread that serves or frees, no word but warnings. redis itself
    // refuses huge pages unless told otherwise.
    return {"--port",       "0",       "--unixsocket",         socket,
            "--save",       "",        "--appendonly",         "no",
            "--io-threads", "1",       "--jemalloc-bg-thread", "no",
            "--loglevel",   "warning", "--disable-thp",        instance.huge_pages ? "no" : "yes"};
  };
  TC_ASSIGN(std::unique_ptr<Server> server, Server::start(launch));
  // jemalloc's classes: value 1,024, object 16, name 32, entry 32 and its place in the table 8 to
  // 16; and 3 % that lie unused between them.
  const StoreSize size{Bytes(2'900'000), Bytes(1'153)};
  return Served::make(instance,
                      std::make_unique<KeyValueStore>(std::move(server),
                                                      std::make_unique<RedisWire>(), instance.seed),
                      size);
}

Result<std::unique_ptr<Workload>> memcached(const Instance& instance) {
  constexpr std::uint64_t kItem = 1'184;  // its size class, with head and name
  Launch launch;
  launch.name = "memcached";
  launch.program = instance.program;
  launch.huge_pages = instance.huge_pages;
  launch.arguments = [&](const std::string& socket) -> std::vector<std::string> {
    // Room for twice the footprint, and a refusal rather than an eviction; the table has its size
    // from the start; no threads that tidy up. As root it insists on being told whom to run as.
    const std::uint64_t records = instance.footprint.get() / kItem;
    const int power = std::max(12, static_cast<int>(std::bit_width(records)));
    return {"-s",
            socket,
            "-u",
            "root",
            "-t",
            "1",
            "-M",
            "-m",
            std::to_string(2 * (instance.footprint.get() >> 20)),
            "-o",
            fmt::format("no_modern,hashpower={}", power)};
  };
  TC_ASSIGN(std::unique_ptr<Server> server, Server::start(launch));
  // Memory comes in slabs of 1 MiB, and the table has 8 to 16 bytes a record.
  const StoreSize size{Bytes(1'000'000), Bytes(kItem + 12), Bytes(1 << 20)};
  return Served::make(instance,
                      std::make_unique<KeyValueStore>(
                          std::move(server), std::make_unique<MemcachedWire>(), instance.seed),
                      size);
}

}  // namespace

std::vector<WorkloadSpec> key_value_workloads() {
  const std::vector<Setting> settings{
      {"theta", 0.99, 0.01, 2, "Zipf's exponent"},
      {"set_share", 0.05, 0, 1, "share of operations that overwrite"},
      {"pipeline", 16, 1, KeyValueStore::kMostAtOnce, "requests sent before answers are read"}};
  return {{"redis", "reads or overwrites (5 %) a record of redis-server",
           "redis 7.0; YCSB, SoCC 2010", 64, settings, redis, "redis-server"},
          {"memcached", "reads or overwrites (5 %) a record of memcached",
           "memcached 1.6; YCSB, SoCC 2010", 64, settings, memcached, "memcached"}};
}

}  // namespace thermocline::workloads

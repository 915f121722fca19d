// SPDX-License-Identifier: Apache-2.0
// zipf_client: loads a redis server and reads and writes its keys with a Zipf popularity, over a
// unix or TCP socket, with our own RESP. The sequence of keys follows from the seed alone. Every
// value that comes back is checked: the content of a key never changes, so GET has one right
// answer.
#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>
#include <thread>

#include "base/text.h"
#include "bench/workloads/channel.h"
#include "bench/workloads/command_line.h"
#include "bench/workloads/common.h"
#include "bench/workloads/random.h"
#include "bench/workloads/resp.h"
#include "bench/workloads/zipf.h"

namespace thermocline::workloads {
namespace {

struct Options {
  std::string socket, host, step = "both";
  unsigned port = 6379;
  std::uint32_t keys = 0;
  std::uint32_t value_bytes = 1000;
  double theta = 0.99;
  double set_share = 0.05;
  bool cold_first = false;
  double hot_fraction = 0.25;
  std::uint64_t seed = 1;
  unsigned pipeline = 16;
  double duration_s = 10;
  double rate = 0;
  double report_every_s = 0;
  std::string json, ready_file, wait_file;
};

/// Latencies in buckets that grow by 1/16: percentiles are right to about 6 %.
class LatencyHistogram {
 public:
  void add(double seconds) {
    const auto ns = static_cast<std::uint64_t>(std::max(seconds, 0.0) * 1e9) + 16;
    const auto exponent = static_cast<unsigned>(std::bit_width(ns)) - 5;
    ++counts_[exponent * 16 + (ns >> exponent) - 16];
    ++total_;
  }
  /// Upper edge of the bucket that holds the quantile, microseconds; 0 when there are none.
  [[nodiscard]] double quantile_us(double q) const {
    const auto wanted = static_cast<std::uint64_t>(std::ceil(q * static_cast<double>(total_)));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen >= wanted && seen > 0)
        return std::ldexp(static_cast<double>(i % 16 + 17), static_cast<int>(i / 16)) / 1000.0;
    }
    return 0;
  }

 private:
  std::array<std::uint64_t, 60 * 16> counts_{};
  std::uint64_t total_ = 0;
};

/// A connected stream socket with whole-request writes and parsed replies.
class Connection {
 public:
  static Result<Connection> open(const Options& o) {
    if (!o.socket.empty()) return open_unix(o.socket);
    return open_tcp(o.host, o.port);
  }

  Status send(std::string_view bytes) { return channel_.send(bytes); }

  Result<Reply> receive() {
    for (;;) {
      TC_ASSIGN(const std::optional<Reply> reply, parser_.next());
      if (reply) return *reply;
      TC_ASSIGN(const std::string_view bytes, channel_.receive());
      parser_.feed(bytes);
    }
  }

 private:
  explicit Connection(Channel channel) : channel_(std::move(channel)) {}

  static Result<Connection> open_unix(const std::string& path) {
    TC_ASSIGN(Channel channel, Channel::connect_unix(path));
    return Connection(std::move(channel));
  }

  static Result<Connection> open_tcp(const std::string& host, unsigned port) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const std::string service = std::to_string(port);
    if (const int rc = ::getaddrinfo(host.c_str(), service.c_str(), &hints, &found); rc != 0)
      return fail(ErrorKind::kFailure, "can't find the host {}: {}", host, ::gai_strerror(rc));
    int error = 0;
    UniqueFd fd;
    for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
      fd.reset(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
      if (fd && ::connect(fd.get(), a->ai_addr, a->ai_addrlen) == 0) break;
      error = errno;
      fd.reset();
    }
    ::freeaddrinfo(found);
    if (!fd)
      return fail_errno(error, fmt::format("can't connect to {} port {}; is redis-server running "
                                           "there",
                                           host, port));
    return Connection(Channel(std::move(fd)));
  }

  Channel channel_;
  ReplyParser parser_;
};

/// The one right value of a key: its number in 16 hex digits, again and again.
void value_of(std::uint32_t key, std::uint32_t bytes, std::string& value) {
  const std::string digits = fmt::format("{:016x}", mix64(key));
  value.resize(bytes);
  for (std::size_t i = 0; i < bytes; i += digits.size())
    std::memcpy(value.data() + i, digits.data(), std::min(digits.size(), bytes - i));
}

class Client {
 public:
  Client(Options options, Zipf zipf, Connection connection, const System& system)
      : o_(std::move(options)),
        zipf_(zipf),
        connection_(std::move(connection)),
        system_(system),
        key_of_rank_(o_.keys) {
    // Popularity has nothing to do with the number of a key.
    std::iota(key_of_rank_.begin(), key_of_rank_.end(), 0u);
    Random random(o_.seed, 1);
    shuffle(key_of_rank_, random);
  }

  Result<int> run() {
    nlohmann::json json{{"program", "zipf_client"},
                        {"keys", o_.keys},
                        {"value_bytes", o_.value_bytes},
                        {"theta", o_.theta},
                        {"seed", o_.seed}};
    if (o_.step != "run") {
      TC_TRY(load());
    }
    TC_TRY(write_ready_file(o_.ready_file));
    if (o_.step != "load") {
      wait_for_file(o_.wait_file);
      TC_TRY(drive(json));
    }
    TC_TRY(write_json(o_.json, json));
    return 0;
  }

 private:
  struct Request {
    std::uint32_t key;
    bool is_set;
  };

  template <class T>
  static void shuffle(std::vector<T>& values, Random& random) {
    for (std::size_t i = values.size(); i > 1; --i)
      std::swap(values[i - 1], values[random.below(i)]);
  }

  void append(std::uint32_t key, bool is_set, std::string& out) {
    const std::string name = fmt::format("key:{:010}", key);
    if (!is_set) {
      append_command(out, std::array<std::string_view, 2>{"GET", name});
      return;
    }
    value_of(key, o_.value_bytes, value_);
    append_command(out, std::array<std::string_view, 3>{"SET", name, value_});
  }

  Status check_reply(const Request& request, const Reply& reply) {
    if (reply.kind == Reply::Kind::kError)
      return fail(ErrorKind::kFailure, "the server answered: {}", reply.text);
    if (request.is_set) {
      if (reply.kind != Reply::Kind::kSimple || reply.text != "OK")
        return fail(ErrorKind::kFailure, "the server did not accept key {}", request.key);
      return {};
    }
    if (reply.kind == Reply::Kind::kNull)
      return fail(ErrorKind::kFailure,
                  "the server has no key {}; load it first with the same --keys (--step load)",
                  request.key);
    value_of(request.key, o_.value_bytes, value_);
    if (reply.kind != Reply::Kind::kBulk || reply.text != value_)
      return fail(ErrorKind::kFailure, "the server gave a wrong value for key {}", request.key);
    return {};
  }

  /// Sends `batch`, then takes its replies.
  Status exchange(std::vector<Request>& batch, LatencyHistogram* latencies) {
    out_.clear();
    for (const Request& request : batch) append(request.key, request.is_set, out_);
    const double sent = monotonic_seconds(system_);
    TC_TRY(connection_.send(out_));
    for (const Request& request : batch) {
      TC_ASSIGN(const Reply reply, connection_.receive());
      TC_TRY(check_reply(request, reply));
      if (latencies != nullptr) latencies->add(monotonic_seconds(system_) - sent);
    }
    batch.clear();
    return {};
  }

  Status load() {
    // Ranks in the order in which they are stored. Within a part the order is random, so that keys
    // of all popularities share a page; with cold-first the most popular part comes last.
    std::vector<std::uint32_t> ranks(o_.keys);
    std::iota(ranks.begin(), ranks.end(), 0u);
    Random random(o_.seed, 2);
    shuffle(ranks, random);
    if (o_.cold_first) {
      const auto hot = static_cast<std::uint32_t>(o_.hot_fraction * o_.keys);
      std::stable_partition(ranks.begin(), ranks.end(),
                            [hot](std::uint32_t rank) { return rank >= hot; });
    }
    const double start = monotonic_seconds(system_);
    std::vector<Request> batch;
    for (const std::uint32_t rank : ranks) {
      if (stop_requested) return fail(ErrorKind::kFailure, "stopped before all keys were loaded");
      batch.push_back({key_of_rank_[rank], true});
      if (batch.size() == 64) TC_TRY(exchange(batch, nullptr));
    }
    TC_TRY(exchange(batch, nullptr));
    fmt::print("zipf_client: loaded {} keys of {} bytes in {:.1f} s\n", o_.keys, o_.value_bytes,
               monotonic_seconds(system_) - start);
    std::fflush(stdout);
    return {};
  }

  Status drive(nlohmann::json& json) {
    Random random(o_.seed, 3);
    LatencyHistogram latencies;
    std::vector<Request> batch;
    std::uint64_t done = 0;
    std::uint64_t reported = 0;
    const double start = monotonic_seconds(system_);
    double last_report = start;
    double now = start;
    while (now - start < o_.duration_s && !stop_requested) {
      for (unsigned i = 0; i < o_.pipeline; ++i) {
        const std::uint64_t rank = zipf_.draw(random);
        batch.push_back({key_of_rank_[rank], random.unit() < o_.set_share});
      }
      done += batch.size();
      TC_TRY(exchange(batch, &latencies));
      now = monotonic_seconds(system_);
      if (o_.report_every_s > 0 && now - last_report >= o_.report_every_s) {
        fmt::print("{:6.1f} s  {:.0f} op/s\n", now - start,
                   static_cast<double>(done - reported) / (now - last_report));
        std::fflush(stdout);
        reported = done;
        last_report = now;
      }
      const double ahead = o_.rate > 0 ? static_cast<double>(done) / o_.rate - (now - start) : 0;
      if (ahead > 0) {
        std::this_thread::sleep_for(std::chrono::duration<double>(std::min(ahead, 0.2)));
        now = monotonic_seconds(system_);
      }
    }
    const double seconds = now - start;
    const double rate = static_cast<double>(done) / seconds;
    json["operations"] = done;
    json["seconds"] = seconds;
    json["operations_per_s"] = rate;
    json["latency_p50_us"] = latencies.quantile_us(0.50);
    json["latency_p99_us"] = latencies.quantile_us(0.99);
    json["start_monotonic_s"] = start;
    fmt::print(
        "zipf_client: {} GET and SET in {:.1f} s, {:.0f} op/s, latency p50 {:.0f} us, p99 "
        "{:.0f} us (pipelines of {}); every value was right\n",
        done, seconds, rate, latencies.quantile_us(0.50), latencies.quantile_us(0.99), o_.pipeline);
    return {};
  }

  Options o_;
  Zipf zipf_;
  Connection connection_;
  const System& system_;
  std::vector<std::uint32_t> key_of_rank_;
  std::string out_, value_;
};

Status check(const Options& o) {
  const auto usage = [](std::string message) {
    return tl::make_unexpected(Error{ErrorKind::kUsage, std::move(message), 0});
  };
  if (o.socket.empty() == o.host.empty()) return usage("give either --socket or --host");
  if (o.port < 1 || o.port > 65535) return usage("--port must be 1 to 65535");
  if (o.keys < 1) return usage("--keys must be at least 1");
  if (o.value_bytes < 1 || o.value_bytes > (1u << 20)) return usage("--value-size must be 1 to 1M");
  if (!(o.set_share >= 0 && o.set_share <= 1)) return usage("--set-share must be 0 to 1");
  if (!(o.hot_fraction > 0 && o.hot_fraction < 1))
    return usage("--hot-fraction must lie between 0 and 1");
  if (o.pipeline < 1 || o.pipeline > 1024) return usage("--pipeline must be 1 to 1024");
  if (!(o.duration_s > 0)) return usage("--duration must be more than 0 seconds");
  if (!(o.rate >= 0)) return usage("--rate must not be negative");
  return {};
}

Result<int> run(int argc, char** argv) {
  Options o;
  std::string value_size = "1000";
  CLI::App app{"zipf_client: loads a redis server, then reads and writes with Zipf popularity."};
  app.add_option("--socket", o.socket, "unix socket of the server");
  app.add_option("--host", o.host, "or its host");
  app.add_option("--port", o.port)->capture_default_str();
  app.add_option("--step", o.step, "load, run or both")
      ->capture_default_str()
      ->check(CLI::IsMember({"load", "run", "both"}));
  app.add_option("--keys", o.keys)->required();
  app.add_option("--value-size", value_size, "bytes of a value")->capture_default_str();
  app.add_option("--theta", o.theta, "skew: key of rank k is as popular as 1 / k^theta")
      ->capture_default_str();
  app.add_option("--set-share", o.set_share, "share of requests that are SET, with the same value")
      ->capture_default_str();
  app.add_flag("--cold-first", o.cold_first,
               "load the least popular keys first, so that they get the fast node");
  app.add_option("--hot-fraction", o.hot_fraction,
                 "with --cold-first: this share of the keys, the most popular, comes last")
      ->capture_default_str();
  app.add_option("--seed", o.seed, "same seed, same keys in the same order")->capture_default_str();
  app.add_option("--pipeline", o.pipeline, "requests sent before replies are read")
      ->capture_default_str();
  app.add_option("--duration", o.duration_s, "seconds of requests")->capture_default_str();
  app.add_option("--rate", o.rate, "requests per second at most; 0: no limit")
      ->capture_default_str();
  app.add_option("--report-every", o.report_every_s, "seconds between progress lines; 0: none")
      ->capture_default_str();
  app.add_option("--json", o.json, "also write the results to this file (-: standard output)");
  app.add_option("--ready-file", o.ready_file, "create this file when the keys are loaded");
  app.add_option("--wait-file", o.wait_file, "then wait for this file before the requests");
  TC_ASSIGN(const bool go_on, understand(app, "zipf_client", argc, argv));
  if (!go_on) return 0;
  TC_ASSIGN(const Bytes bytes, parse_bytes(value_size));
  o.value_bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes.get(), 1u << 30));
  TC_TRY(check(o));
  TC_ASSIGN(const Zipf zipf, Zipf::make(o.keys, o.theta));
  TC_ASSIGN(Connection connection, Connection::open(o));
  catch_stop_signals();
  const std::unique_ptr<System> system = make_real_system();
  return Client(std::move(o), zipf, std::move(connection), *system).run();
}

}  // namespace
}  // namespace thermocline::workloads

int main(int argc, char** argv) {
  return thermocline::workloads::run_program(
      "zipf_client", [&] { return thermocline::workloads::run(argc, argv); });
}

// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/suite/served.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "bench/workloads/common.h"

namespace thermocline::workloads {

namespace {
constexpr std::uint32_t kLoadStep = 1024;
constexpr unsigned kLoadParts = 4;
constexpr double kTolerance = 0.03;

double setting_or(const Instance& instance, const std::string& key, double otherwise) {
  const auto at = instance.settings.find(key);
  return at == instance.settings.end() ? otherwise : at->second;
}
}  // namespace

Result<std::unique_ptr<Workload>> Served::make(const Instance& instance,
                                               std::unique_ptr<Store> store,
                                               const StoreSize& size) {
  const std::uint64_t records = instance.footprint.get() / size.per_record.get();
  if (records > std::numeric_limits<std::int32_t>::max() / 2)
    return fail(ErrorKind::kUsage, "the footprint is too large; records have a number of 32 bits");
  return std::unique_ptr<Workload>(new Served(instance, std::move(store), size));
}

Served::Served(const Instance& instance, std::unique_ptr<Store> store, const StoreSize& size)
    : store_(std::move(store)),
      size_(size),
      footprint_(instance.footprint),
      seed_(instance.seed),
      theta_(instance["theta"]),
      set_share_(instance["set_share"]),
      index_share_(setting_or(instance, "index_share", 0)),
      pipeline_(static_cast<std::uint64_t>(setting_or(instance, "pipeline", 1))),
      random_(instance.seed, 7) {}

void Served::fill() {
  state_ = load();
}

Status Served::load() {
  const auto wanted = static_cast<double>(footprint_.get());
  const double tolerance = std::max(kTolerance * wanted, static_cast<double>(size_.granule.get()));
  auto per_record = static_cast<double>(size_.per_record.get());
  TC_ASSIGN(const Bytes at_start, store_->server().resident());
  double target = (wanted - static_cast<double>(size_.base.get())) / per_record;
  std::uint32_t loaded = 0;
  for (unsigned part = 1; part <= kLoadParts; ++part) {
    const auto end = static_cast<std::uint32_t>(target * part / kLoadParts);
    while (loaded < end) {
      if (stop_requested)
        return fail(ErrorKind::kFailure, "stopped before all records were loaded");
      const std::uint32_t next = std::min(end, loaded + kLoadStep);
      TC_TRY(store_->load(loaded, next));
      loaded = next;
    }
    TC_ASSIGN(const Bytes resident, store_->server().resident());
    const auto now = static_cast<double>(resident.get());
    if (std::abs(now + (target - loaded) * per_record - wanted) > tolerance) {
      per_record = std::max(1.0, now - static_cast<double>(at_start.get())) / loaded;
      target = std::max<double>(loaded, loaded + (wanted - now) / per_record);
    }
  }
  TC_ASSIGN(const Zipf zipf, Zipf::make(loaded, theta_));
  zipf_ = zipf;
  versions_.assign(loaded, 0);
  TC_ASSIGN(const Bytes resident, store_->server().resident());
  process_ = TieredProcess{store_->server().comm(), store_->server().pid(), resident};
  return {};
}

Request Served::choose() {
  // Popularity has nothing to do with the place of a record.
  const auto record =
      static_cast<std::uint32_t>(mix64(seed_ + zipf_->draw(random_)) % versions_.size());
  if (random_.unit() < set_share_) return {Request::Kind::kWrite, record, ++versions_[record]};
  const bool by_index = index_share_ > 0 && random_.unit() < index_share_;
  return {by_index ? Request::Kind::kReadByIndex : Request::Kind::kRead, record, versions_[record]};
}

void Served::run(unsigned /*phase*/, std::uint64_t count) {
  while (count > 0 && state_) {
    batch_.clear();
    for (; count > 0 && batch_.size() < pipeline_; --count) batch_.push_back(choose());
    state_ = store_->exchange(batch_, findings_);
  }
}

std::uint64_t Served::checksum() const {
  return mix64(findings_.sum ^ versions_.size());
}

Status Served::verify(std::uint64_t /*operations*/) {
  TC_TRY(store_->audit(versions_, findings_));
  if (findings_.wrong > 0)
    return fail(ErrorKind::kFailure, "{} wrong answers, the first one: {}", findings_.wrong,
                findings_.first_wrong);
  return {};
}

}  // namespace thermocline::workloads

// SPDX-License-Identifier: Apache-2.0
// The core workloads A to F of YCSB (Cooper et al., SoCC 2010; mixes as in its workloads/ folder)
// on a hash store in this process: buckets, chains and items as memcached has them. Popularity is
// Zipf 0.99, scattered over the records; in D the newest record is the most popular. Values have
// 100 to 1000 bytes. For E's scans the items are also a skip list (Pugh, 1990; LevelDB's memtable).
//
// The store keeps its number of records: an insert takes the room of the oldest one. Record number
// r lives in slot r mod (number of slots), and a slot keeps its size and popularity.
#include <algorithm>
#include <bit>
#include <cstring>

#include "bench/workloads/suite/families.h"
#include "bench/workloads/zipf.h"

namespace thermocline::workloads {

namespace {

struct Mix {
  char letter;
  unsigned read, update, insert, scan, read_modify_write;  ///< percent
  const char* about;
};
constexpr Mix kMixes[] = {
    {'a', 50, 50, 0, 0, 0, "reads or overwrites a record, half and half"},
    {'b', 95, 5, 0, 0, 0, "reads a record, or overwrites it (5 %)"},
    {'c', 100, 0, 0, 0, 0, "reads a record"},
    {'d', 95, 0, 5, 0, 0, "reads a record, newest first, or inserts one (5 %)"},
    {'e', 0, 0, 5, 95, 0, "scans 1 to 100 records in order of keys, or inserts one (5 %)"},
    {'f', 50, 0, 0, 0, 50, "reads a record, or reads and changes it (50 %)"},
};

constexpr std::uint32_t kMostLinks = 8;

/// Head of an item; links of the skip list (workload e) and the value follow it. Offsets count
/// 8-byte words from the start of the items; 0 is none. Whatever damage has made of them, no walk
/// leaves the items or goes on forever.
struct Item {
  std::uint64_t key;
  std::uint32_t chain;  ///< next item of the bucket
  std::uint32_t version;
  std::uint32_t value_words;
  std::uint32_t links;

  std::uint32_t* link() { return reinterpret_cast<std::uint32_t*>(this + 1); }
};
constexpr std::uint64_t kHeadWords = sizeof(Item) / 8;

class Ycsb final : public Workload {
 public:
  Ycsb(const Mix& mix, std::span<std::uint32_t> buckets, std::span<std::uint64_t> words,
       std::uint64_t slots, Zipf zipf, std::uint64_t seed)
      : mix_(mix),
        buckets_(buckets),
        words_(words),
        slots_(slots),
        newest_(slots),
        zipf_(zipf),
        seed_(seed),
        random_(seed, 6) {}

  /// Words that slot `slot` takes.
  static std::uint64_t words_of_slot(char letter, std::uint64_t seed, std::uint64_t slot) {
    return kHeadWords + (links_of(letter, seed, slot) + 1) / 2 + value_words(seed, slot);
  }

  void fill() override {
    std::uint64_t at = kHeadWords + kMostLinks / 2;  // behind the head of the skip list
    head()->links = kMostLinks;
    for (std::uint64_t slot = 0; slot < slots_; ++slot) {
      const auto offset = static_cast<std::uint32_t>(at);
      Item* const item = item_at(offset);
      item->links = static_cast<std::uint32_t>(links_of(mix_.letter, seed_, slot));
      item->value_words = static_cast<std::uint32_t>(value_words(seed_, slot));
      put(offset, slot);
      at += words_of_slot(mix_.letter, seed_, slot);
    }
  }

  void run(unsigned /*phase*/, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto dice = static_cast<unsigned>(random_.below(100));
      if (dice < mix_.read) {
        read(*find(key_of(choose())));
      } else if (dice < mix_.read + mix_.update) {
        change(*find(key_of(choose())));
      } else if (dice < mix_.read + mix_.update + mix_.scan) {
        scan(key_of(choose()), 1 + random_.below(100));
      } else if (dice < mix_.read + mix_.update + mix_.scan + mix_.read_modify_write) {
        Item* const item = find(key_of(choose()));
        read(*item);
        change(*item);
      } else {
        insert();
      }
    }
  }

  [[nodiscard]] std::uint64_t checksum() const override { return mix64(sum_ ^ newest_); }

  Status verify(std::uint64_t /*operations*/) override {
    if (missing_ > 0) return fail(ErrorKind::kFailure, "{} records were not found", missing_);
    std::uint64_t changes = 0;
    TC_TRY(verify_buckets());
    for (std::uint64_t record = newest_ - slots_; record < newest_; ++record) {
      const std::uint32_t* const from = link_to(key_of(record));
      if (from == nullptr) return fail(ErrorKind::kFailure, "record {} is lost", record);
      Item* const item = item_at(*from);
      if (item->value_words != value_words(seed_, record % slots_) ||
          item->links != links_of(mix_.letter, seed_, record % slots_))
        return fail(ErrorKind::kFailure, "record {} has a damaged head", record);
      const std::span<const std::uint64_t> value = value_of(*item);
      for (std::uint64_t j = 0; j < item->value_words; ++j)
        if (j >= value.size() || value[j] != content(*item) + j)
          return fail(ErrorKind::kFailure, "the value of record {} is not that of its version {}",
                      record, item->version);
      changes += item->version;
    }
    // Versions of expired records went with them.
    if (changes + expired_changes_ != changes_)
      return fail(ErrorKind::kFailure, "the records have seen {} changes instead of {}",
                  changes + expired_changes_, changes_);
    for (unsigned level = 0; mix_.letter == 'e' && level < kMostLinks; ++level)
      TC_TRY(verify_order(level));
    return {};
  }

 private:
  static std::uint64_t value_words(std::uint64_t seed, std::uint64_t slot) {
    return (100 + mix64(seed ^ (slot << 1)) % 901 + 7) / 8;
  }
  /// 1 with a probability of 3/4, and each further one with 1/4; none without scans.
  static std::uint64_t links_of(char letter, std::uint64_t seed, std::uint64_t slot) {
    if (letter != 'e') return 0;
    const auto zeros =
        static_cast<unsigned>(std::countr_zero(mix64(seed ^ (slot << 1 | 1)) | 1ull << 60));
    return std::min<std::uint64_t>(1 + zeros / 2, kMostLinks);
  }
  /// Never 0, which is the key of the skip list's head.
  [[nodiscard]] std::uint64_t key_of(std::uint64_t record) const {
    return mix64(seed_ ^ record) | 1;
  }
  static std::uint64_t content(const Item& item) { return mix64(item.key + item.version); }

  [[nodiscard]] Item* item_at(std::uint32_t offset) const {
    return reinterpret_cast<Item*>(&words_[offset]);
  }
  [[nodiscard]] Item* head() const { return item_at(0); }
  [[nodiscard]] bool may_be_item(std::uint32_t offset) const {
    return offset + kHeadWords + kMostLinks / 2 <= words_.size();
  }
  [[nodiscard]] std::span<std::uint64_t> value_of(Item& item) const {
    const auto at =
        static_cast<std::uint64_t>(reinterpret_cast<std::uint64_t*>(&item) - words_.data()) +
        kHeadWords + (std::uint64_t{item.links} + 1) / 2;
    if (at > words_.size()) return {};
    return words_.subspan(at, std::min<std::uint64_t>(item.value_words, words_.size() - at));
  }
  [[nodiscard]] std::uint32_t& bucket(std::uint64_t key) const {
    return buckets_[mix64(key) & (buckets_.size() - 1)];
  }

  /// A record that is there.
  std::uint64_t choose() {
    const std::uint64_t rank = zipf_.draw(random_);
    if (mix_.letter == 'd') return newest_ - 1 - rank;
    const std::uint64_t slot = mix64(seed_ + rank) % slots_;
    const std::uint64_t oldest = newest_ - slots_;
    return oldest + (slot + slots_ - oldest % slots_) % slots_;
  }

  /// The word, of the bucket or the item before, that leads to the record; none when there is none.
  [[nodiscard]] std::uint32_t* link_to(std::uint64_t key) const {
    std::uint32_t* from = &bucket(key);
    for (std::uint64_t hops = 0; *from != 0; from = &item_at(*from)->chain) {
      if (!may_be_item(*from) || hops++ == slots_) return nullptr;
      if (item_at(*from)->key == key) return from;
    }
    return nullptr;
  }
  /// The list's head, and counts it, when there is no such record.
  Item* find(std::uint64_t key) {
    if (const std::uint32_t* const from = link_to(key)) return item_at(*from);
    ++missing_;
    return head();
  }

  void read(Item& item) {
    for (const std::uint64_t word : value_of(item)) sum_ += word;
  }
  void write(Item& item) {
    std::uint64_t word = content(item);
    for (std::uint64_t& one : value_of(item)) one = word++;
  }
  void change(Item& item) {
    ++item.version;
    ++changes_;
    write(item);
  }

  void scan(std::uint64_t key, std::uint64_t count) {
    std::uint32_t before[kMostLinks];
    find_before(key, before);
    std::uint32_t at = item_at(before[0])->link()[0];
    for (; count > 0 && at != 0 && may_be_item(at); --count, at = item_at(at)->link()[0])
      read(*item_at(at));
  }

  /// The last items of each level with a smaller key.
  void find_before(std::uint64_t key, std::uint32_t (&before)[kMostLinks]) {
    std::uint32_t at = 0;
    std::uint64_t reached = 0;  // the key there
    for (unsigned level = kMostLinks; level-- > 0;) {
      for (std::uint32_t next = item_at(at)->link()[level];
           next != 0 && may_be_item(next) && item_at(next)->key < key &&
           item_at(next)->key > reached;
           next = item_at(at)->link()[level]) {
        at = next;
        reached = item_at(at)->key;
      }
      before[level] = at;
    }
  }

  /// Makes the free item at `offset` the one of `record`.
  void put(std::uint32_t offset, std::uint64_t record) {
    Item* const item = item_at(offset);
    item->key = key_of(record);
    item->version = 0;
    item->chain = bucket(item->key);
    bucket(item->key) = offset;
    write(*item);
    if (item->links == 0) return;
    std::uint32_t before[kMostLinks];
    find_before(item->key, before);
    for (unsigned level = 0; level < std::min(item->links, kMostLinks); ++level) {
      item->link()[level] = item_at(before[level])->link()[level];
      item_at(before[level])->link()[level] = offset;
    }
  }

  void insert() {
    const std::uint64_t key = key_of(newest_ - slots_);
    std::uint32_t* const from = link_to(key);
    if (from == nullptr) {
      ++missing_;
      return;
    }
    const std::uint32_t offset = *from;
    Item* const item = item_at(offset);
    *from = item->chain;
    expired_changes_ += item->version;
    if (item->links > 0) {
      std::uint32_t before[kMostLinks];
      find_before(key, before);
      for (unsigned level = 0; level < std::min(item->links, kMostLinks); ++level)
        item_at(before[level])->link()[level] = item->link()[level];
    }
    put(offset, newest_++);
  }

  /// That chains hold as many items as there are, each in its bucket.
  Status verify_buckets() const {
    std::uint64_t count = 0;
    for (const std::uint32_t& first : buckets_)
      for (std::uint32_t at = first; at != 0; at = item_at(at)->chain)
        if (!may_be_item(at) || &bucket(item_at(at)->key) != &first || ++count > slots_)
          return fail(ErrorKind::kFailure, "the chain of a bucket is damaged");
    if (count != slots_)
      return fail(ErrorKind::kFailure, "the buckets hold {} records instead of {}", count, slots_);
    return {};
  }
  /// Of the ordered index; the heads of all items are known to be sound.
  Status verify_order(unsigned level) const {
    std::uint64_t count = 0, last = 0;
    for (std::uint32_t at = head()->link()[level]; at != 0; at = item_at(at)->link()[level]) {
      if (!may_be_item(at) || item_at(at)->key <= last || item_at(at)->links <= level)
        return fail(ErrorKind::kFailure, "the ordered index is out of order");
      last = item_at(at)->key;
      ++count;
    }
    std::uint64_t wanted = 0;
    for (std::uint64_t slot = 0; slot < slots_; ++slot)
      wanted += links_of(mix_.letter, seed_, slot) > level;
    if (count != wanted)
      return fail(ErrorKind::kFailure, "the ordered index has {} records instead of {}", count,
                  wanted);
    return {};
  }

  const Mix& mix_;
  std::span<std::uint32_t> buckets_;
  std::span<std::uint64_t> words_;
  std::uint64_t slots_;
  std::uint64_t newest_;  ///< number of the next record
  Zipf zipf_;
  std::uint64_t seed_;
  Random random_;
  std::uint64_t sum_ = 0;
  std::uint64_t changes_ = 0, expired_changes_ = 0, missing_ = 0;
};

Result<std::unique_ptr<Workload>> ycsb(const Mix& mix, const Instance& instance) {
  constexpr std::uint64_t kMeanItem = 600;
  const std::uint64_t all = instance.footprint.get();
  if (all > std::uint64_t{32} << 30)
    return fail(ErrorKind::kUsage, "ycsb-{} takes at most 32 GiB a thread", mix.letter);
  const std::uint64_t buckets = std::bit_ceil(all / kMeanItem);
  const std::uint64_t words = (all - buckets * sizeof(std::uint32_t)) / 8;
  std::uint64_t slots = 0;
  for (std::uint64_t at = kHeadWords + kMostLinks / 2;; ++slots) {
    at += Ycsb::words_of_slot(mix.letter, instance.seed, slots);
    if (at > words) break;
  }
  TC_ASSIGN(const Zipf zipf, Zipf::make(slots, instance["theta"]));
  TC_ASSIGN(const auto table, instance.memory.allocate<std::uint32_t>(buckets));
  TC_ASSIGN(const auto items, instance.memory.allocate<std::uint64_t>(words));
  return std::make_unique<Ycsb>(mix, table, items, slots, zipf, instance.seed);
}

}  // namespace

std::vector<WorkloadSpec> ycsb_workloads() {
  std::vector<WorkloadSpec> all;
  for (const Mix& mix : kMixes)
    all.push_back({std::string("ycsb-") + mix.letter,
                   mix.about,
                   "YCSB, SoCC 2010",
                   64,
                   {{"theta", 0.99, 0.01, 2, "Zipf's exponent"}},
                   [&mix](const Instance& instance) { return ycsb(mix, instance); }});
  return all;
}

}  // namespace thermocline::workloads

// SPDX-License-Identifier: Apache-2.0
// An in-memory index: a B-tree (Bayer and McCreight, 1972; values in the leaves only) of 512-byte
// nodes, as the look-up benchmark of Mitosis (ASPLOS 2020) that papers on tiering run. The few
// nodes near the root are passed by every operation, the leaves by hardly any; nodes are numbered
// in shuffled order, so both lie anywhere.
//
// The tree keeps its number of keys: an insert expires the oldest. Keys of the first records are
// spread evenly, in shuffled order, so the tree is built without sorting them; later ones are
// random.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "bench/workloads/suite/families.h"
#include "bench/workloads/suite/permutation.h"
#include "bench/workloads/zipf.h"

namespace thermocline::workloads {

namespace {

constexpr std::uint32_t kMost = 31;   ///< entries of a node
constexpr std::uint32_t kLeast = 15;  ///< except the root's
constexpr std::uint32_t kNone = ~0u;

/// In a leaf (level 0) entries are keys and their values. Above, each is a child and the least key
/// that may be below it: the first has its parent's, 0 at the left rim. Unused entries are zero.
struct alignas(64) Node {
  std::uint32_t number;  ///< its own
  std::uint32_t next;    ///< free node, else kNone
  std::uint32_t level;
  std::uint32_t count;
  std::array<std::uint64_t, kMost> keys;
  std::array<std::uint64_t, kMost> values;
};
static_assert(sizeof(Node) == 512);

class Btree final : public Workload {
 public:
  Btree(std::span<Node> nodes, std::uint64_t records, Zipf zipf, double insert_share,
        std::uint64_t seed)
      : nodes_(nodes),
        records_(records),
        newest_(records),
        seed_(seed),
        order_(records, seed ^ 1),
        popular_(records, seed ^ 2),
        zipf_(zipf),
        insert_share_(insert_share),
        random_(seed, 11) {}

  void fill() override {
    const Permutation shuffled(nodes_.size(), seed_ ^ 3);
    Random random(seed_, 12);
    std::uint64_t built = 0, below = 0;  // nodes so far, and before the level below
    std::uint64_t entries = records_;
    for (std::uint32_t level = 0; level == 0 || entries > 1; ++level) {
      const std::uint64_t first = built;
      for (std::uint64_t done = 0; done < entries; ++built) {
        Node& node = clear(static_cast<std::uint32_t>(shuffled(built)), level);
        node.count = share_of(entries - done, random);
        for (std::uint32_t i = 0; i < node.count; ++i, ++done) {
          if (level == 0) {
            node.keys[i] = first_key(done);
            node.values[i] = value_of(node.keys[i]);
          } else {
            node.values[i] = shuffled(below + done);
            node.keys[i] = done == 0 ? 0 : nodes_[node.values[i]].keys[0];
          }
        }
        root_ = node.number;
        height_ = level;
      }
      entries = built - first;
      below = first;
    }
    for (std::uint64_t i = nodes_.size(); i-- > built;)
      release(clear(static_cast<std::uint32_t>(shuffled(i)), 0));
  }

  void run(unsigned /*phase*/, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i)
      if (random_.unit() < insert_share_)
        turn_over();
      else
        look_up(key_of(popular_record()));
  }

  [[nodiscard]] std::uint64_t checksum() const override { return mix64(sum_ ^ newest_); }

  Status verify(std::uint64_t /*operations*/) override {
    if (missing_ > 0) return fail(ErrorKind::kFailure, "{} keys had not their value", missing_);
    if (no_room_ > 0) return fail(ErrorKind::kFailure, "{} inserts found no room", no_room_);
    Census census;
    TC_TRY(check(root_, height_, 0, ~std::uint64_t{0}, census));
    if (census.keys != records_)
      return fail(ErrorKind::kFailure, "the tree has {} keys instead of {}", census.keys, records_);
    std::uint64_t sum = 0;
    for (std::uint64_t record = newest_ - records_; record < newest_; ++record)
      sum += mix64(key_of(record));
    if (sum != census.sum)
      return fail(ErrorKind::kFailure, "the keys of the tree are not those that were inserted");
    for (std::uint32_t at = free_; at != kNone; at = nodes_[at].next) {
      if (at >= nodes_.size() || ++census.nodes > nodes_.size() || nodes_[at].level != 0 ||
          nodes_[at].count != 0 || !holds_only_its_entries(at))
        return fail(ErrorKind::kFailure, "the list of free nodes is damaged");
    }
    if (census.nodes != nodes_.size())
      return fail(ErrorKind::kFailure, "{} of {} nodes are lost", nodes_.size() - census.nodes,
                  nodes_.size());
    return {};
  }

 private:
  struct Census {
    std::uint64_t keys = 0, nodes = 0, sum = 0;
  };

  /// Keys of the first records: the `position`-th from below. Even, so no later one is the same.
  [[nodiscard]] std::uint64_t first_key(std::uint64_t position) const {
    const std::uint64_t room = ~std::uint64_t{0} / records_;
    return (position * room + mix64(seed_ ^ position) % (room - 2) + 2) & ~std::uint64_t{1};
  }
  [[nodiscard]] std::uint64_t key_of(std::uint64_t record) const {
    return record < records_ ? first_key(order_(record)) : mix64(seed_ ^ record) | 1;
  }
  [[nodiscard]] std::uint64_t value_of(std::uint64_t key) const { return mix64(key + seed_); }

  /// Popularity stays with record numbers of the same remainder when records expire.
  std::uint64_t popular_record() {
    const std::uint64_t wanted = popular_(zipf_.draw(random_));
    const std::uint64_t oldest = newest_ - records_;
    return oldest + (wanted + records_ - oldest % records_) % records_;
  }

  /// How many of the `rest` entries of a level its next node takes when the tree is built: 15 to
  /// 26, about what many inserts and expiries leave, so that the number of nodes stays as it is.
  static std::uint32_t share_of(std::uint64_t rest, Random& random) {
    if (rest <= kMost) return static_cast<std::uint32_t>(rest);
    const std::uint64_t wanted = kLeast + random.below(12);
    return static_cast<std::uint32_t>(std::min(wanted, rest - kLeast));
  }

  /// Entries whose key is at most `key`.
  static std::uint32_t position(const Node& node, std::uint64_t key) {
    const auto end = node.keys.begin() + node.count;
    return static_cast<std::uint32_t>(std::upper_bound(node.keys.begin(), end, key) -
                                      node.keys.begin());
  }
  static void put(Node& node, std::uint32_t i, std::uint64_t key, std::uint64_t value) {
    move(node, i, node, i + 1, node.count - i);
    node.keys[i] = key;
    node.values[i] = value;
    ++node.count;
  }
  static void remove(Node& node, std::uint32_t i) {
    move(node, i + 1, node, i, node.count - i - 1);
    --node.count;
    node.keys[node.count] = 0;
    node.values[node.count] = 0;
  }
  static void move(const Node& from, std::uint32_t i, Node& to, std::uint32_t j,
                   std::uint32_t count) {
    std::memmove(&to.keys[j], &from.keys[i], count * sizeof from.keys[0]);
    std::memmove(&to.values[j], &from.values[i], count * sizeof from.values[0]);
  }
  /// Leaves the first `left` of both nodes' entries in a, the others in b.
  static void divide(Node& a, Node& b, std::uint32_t left) {
    const std::uint32_t all = a.count + b.count;
    if (left < a.count) {
      move(b, 0, b, a.count - left, b.count);
      move(a, left, b, 0, a.count - left);
    } else {
      move(b, 0, a, a.count, left - a.count);
      move(b, left - a.count, b, 0, all - left);
    }
    for (auto [node, count] : {std::pair<Node&, std::uint32_t>{a, left}, {b, all - left}}) {
      for (std::uint32_t i = count; i < node.count; ++i) node.keys[i] = node.values[i] = 0;
      node.count = count;
    }
  }

  Node& clear(std::uint32_t number, std::uint32_t level) {
    Node& node = nodes_[number];
    node = Node{};
    node.number = number;
    node.next = kNone;
    node.level = level;
    return node;
  }
  Node& take(std::uint32_t level) {
    Node& node = nodes_[free_];
    free_ = node.next;
    --free_nodes_;
    node.next = kNone;
    node.level = level;
    return node;
  }
  /// *Requires*: it has no entries.
  void release(Node& node) {
    node.level = 0;
    node.next = free_;
    free_ = node.number;
    ++free_nodes_;
  }

  void look_up(std::uint64_t key) {
    const Node* node = &nodes_[root_];
    while (node->level > 0) node = &nodes_[node->values[position(*node, key) - 1]];
    const std::uint32_t i = position(*node, key);
    if (i > 0 && node->keys[i - 1] == key && node->values[i - 1] == value_of(key))
      sum_ += node->values[i - 1];
    else
      ++missing_;
  }

  /// The oldest record expires, a new one is inserted.
  void turn_over() {
    if (free_nodes_ <= height_ + 1) {
      ++no_room_;
      return;
    }
    if (!erase(nodes_[root_], key_of(newest_ - records_))) ++missing_;
    if (Node& root = nodes_[root_]; root.level > 0 && root.count == 1) {
      root_ = static_cast<std::uint32_t>(root.values[0]);
      --height_;
      remove(root, 0);
      release(root);
    }
    const std::uint64_t key = key_of(newest_++);
    if (const Node* const right = insert(nodes_[root_], key, value_of(key))) {
      Node& root = take(++height_);
      put(root, 0, 0, root_);
      put(root, 1, right->keys[0], right->number);
      root_ = root.number;
    }
  }

  /// The new node behind `node` when that had to be split, else none.
  Node* insert(Node& node, std::uint64_t key, std::uint64_t value) {
    std::uint32_t i = position(node, key);
    if (node.level > 0) {
      const Node* const split = insert(nodes_[node.values[i - 1]], key, value);
      if (split == nullptr) return nullptr;
      key = split->keys[0];
      value = split->number;
    }
    if (node.count < kMost) {
      put(node, i, key, value);
      return nullptr;
    }
    Node& right = take(node.level);
    divide(node, right, kMost - kMost / 2);
    // At the border it goes left: the first key on the right is what the parent is told.
    if (i <= node.count)
      put(node, i, key, value);
    else
      put(right, i - node.count, key, value);
    return &right;
  }

  bool erase(Node& node, std::uint64_t key) {
    const std::uint32_t i = position(node, key) - 1;
    if (node.level == 0) {
      if (i >= node.count || node.keys[i] != key) return false;
      remove(node, i);
      return true;
    }
    Node& child = nodes_[node.values[i]];
    if (!erase(child, key)) return false;
    if (child.count < kLeast) refill(node, i > 0 ? i - 1 : 0);
    return true;
  }
  /// Merges children i and i + 1, or shares their entries evenly when they are too many for one.
  void refill(Node& parent, std::uint32_t i) {
    Node& left = nodes_[parent.values[i]];
    Node& right = nodes_[parent.values[i + 1]];
    const std::uint32_t all = left.count + right.count;
    divide(left, right, all <= kMost ? all : all / 2);
    if (right.count > 0) {
      parent.keys[i + 1] = right.keys[0];
      return;
    }
    remove(parent, i + 1);
    release(right);
  }

  [[nodiscard]] bool holds_only_its_entries(std::uint32_t number) const {
    const Node& node = nodes_[number];
    if (node.number != number || node.count > kMost) return false;
    std::uint64_t unused = 0;
    for (std::uint32_t i = node.count; i < kMost; ++i) unused |= node.keys[i] | node.values[i];
    return unused == 0;
  }
  /// That all keys below node `number` are in order and at least `low`, below `high`.
  Status check(std::uint64_t number, std::uint32_t level, std::uint64_t low, std::uint64_t high,
               Census& census) const {
    const auto wrong = [&](const char* what) {
      return fail(ErrorKind::kFailure, "node {} {}", number, what);
    };
    if (number >= nodes_.size() || ++census.nodes > nodes_.size())
      return wrong("is no node of the tree");
    const Node& node = nodes_[number];
    if (!holds_only_its_entries(static_cast<std::uint32_t>(number)) || node.next != kNone)
      return wrong("holds what was not written there");
    if (node.level != level) return wrong("is not as far from the root as the others");
    if (node.count < (number != root_ ? kLeast : level > 0 ? 2 : 0)) return wrong("is too empty");
    if (level > 0 && node.keys[0] != low) return wrong("has another least key than its parent");
    for (std::uint32_t i = 0; i < node.count; ++i) {
      const std::uint64_t least = i == 0 ? low : node.keys[i - 1] + 1;
      if (node.keys[i] < least || node.keys[i] >= high) return wrong("is out of order");
      if (level > 0) {
        TC_TRY(check(node.values[i], level - 1, node.keys[i],
                     i + 1 < node.count ? node.keys[i + 1] : high, census));
        continue;
      }
      if (node.values[i] != value_of(node.keys[i])) return wrong("holds a wrong value");
      census.sum += mix64(node.keys[i]);
      ++census.keys;
    }
    return {};
  }

  std::span<Node> nodes_;
  std::uint64_t records_;
  std::uint64_t newest_;  ///< number of the next record
  std::uint64_t seed_;
  Permutation order_, popular_;
  Zipf zipf_;
  double insert_share_;
  Random random_;
  std::uint32_t root_ = 0;
  std::uint32_t height_ = 0;  ///< level of the root
  std::uint32_t free_ = kNone;
  std::uint64_t free_nodes_ = 0;
  std::uint64_t sum_ = 0;
  std::uint64_t missing_ = 0, no_room_ = 0;
};

Result<std::unique_ptr<Workload>> btree(const Instance& instance) {
  const std::uint64_t count = instance.footprint.get() / sizeof(Node);
  if (count >= kNone) return fail(ErrorKind::kUsage, "btree takes less than 2 TiB a thread");
  // Random inserts and expiries settle at 19.6 entries a node, so 3 % of the nodes stay free. In 8
  // MiB, where chance weighs most, they come and go by 0.3 %: no insert finds no room.
  const std::uint64_t records = count * 19;
  TC_ASSIGN(const Zipf zipf, Zipf::make(records, instance["theta"]));
  TC_ASSIGN(const auto nodes, instance.memory.allocate<Node>(count));
  return std::make_unique<Btree>(nodes, records, zipf, instance["insert_share"], instance.seed);
}

}  // namespace

std::vector<WorkloadSpec> btree_workloads() {
  return {{"btree",
           "looks a key up in a B-tree, or inserts one (5 %) and expires the oldest",
           "Mitosis's BTree, ASPLOS 2020; Bayer and McCreight, 1972",
           64,
           {{"insert_share", 0.05, 0, 1, "share of the operations that insert"},
            {"theta", 0.99, 0.01, 2, "Zipf's exponent of the look-ups"}},
           btree}};
}

}  // namespace thermocline::workloads

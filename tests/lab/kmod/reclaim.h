// SPDX-License-Identifier: Apache-2.0
// What the tests of reclaim and demotion share: a cgroup to take memory from, MGLRU's ageing when
// it is asked for, and what was taken.
#pragma once

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <sstream>

#include "probe.h"

namespace thermocline::labtest {

inline double share(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

/// A cgroup for as long as the object lives, with one process in it. Each has a name of its own, as
/// the kernel's memory of those that are gone lasts.
class OwnCgroup {
 public:
  explicit OwnCgroup(pid_t pid) : pid_(pid) {
    std::ofstream("/sys/fs/cgroup/cgroup.subtree_control") << "+memory" << std::flush;
    mkdir(path_.c_str(), 0755);
    move_to(path_);
  }
  OwnCgroup(const OwnCgroup&) = delete;
  OwnCgroup& operator=(const OwnCgroup&) = delete;
  ~OwnCgroup() {
    move_to("/sys/fs/cgroup");
    rmdir(path_.c_str());
  }
  /// Has the kernel take as much away from it; it may take less.
  void reclaim(std::uint64_t bytes) const {
    std::ofstream(path_ + "/memory.reclaim") << bytes << std::flush;
  }
  /// Below the root of cgroups.
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  void move_to(const std::string& cgroup) const {
    std::ofstream(cgroup + "/cgroup.procs") << pid_ << std::flush;
  }
  pid_t pid_;
  static inline int made_ = 0;
  const std::string name_ = "/lab-" + std::to_string(++made_) + "-" + std::to_string(getpid());
  const std::string path_ = "/sys/fs/cgroup" + name_;
};

/// What MGLRU says of the memory of a cgroup.
struct Generations {
  std::uint64_t cgroup_id = 0;
  std::map<int, std::uint64_t> newest;  ///< by node; none without MGLRU
  /// Grows by one with each pass of ageing over a node.
  [[nodiscard]] std::uint64_t sum() const {
    std::uint64_t all = 0;
    for (const auto& [node, generation] : newest) all += generation;
    return all;
  }
};

inline bool is_mglru() {
  std::ifstream file("/sys/kernel/mm/lru_gen/enabled");
  std::string enabled;
  return file >> enabled && enabled != "0x0000";
}

inline constexpr const char* kLruGen = "/sys/kernel/debug/lru_gen";

inline Generations generations(const OwnCgroup& cgroup) {
  Generations found;
  if (!is_mglru()) return found;
  std::ifstream file(kLruGen);
  std::string line, word, path;
  int node = 0;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    words >> word;
    if (word == "memcg") {
      std::uint64_t id = 0;
      words >> id >> path;
      if (path == cgroup.name()) found.cgroup_id = id;
    } else if (word == "node") {
      words >> node;
    } else if (path == cgroup.name()) {
      found.newest[node] = std::strtoull(word.c_str(), nullptr, 10);  // they come by age
    }
  }
  EXPECT_FALSE(found.newest.empty()) << kLruGen << " doesn't know " << cgroup.name();
  return found;
}

/// One pass of ageing over all nodes, by the function that kswapd calls; nothing without MGLRU.
inline void age(const OwnCgroup& cgroup) {
  const Generations before = generations(cgroup);
  for (const auto& [node, newest] : before.newest)
    std::ofstream(kLruGen) << "+ " << before.cgroup_id << ' ' << node << ' ' << newest << " 1 1\n"
                           << std::flush;
  EXPECT_GE(generations(cgroup).sum(), before.sum() + before.newest.size()) << "no pass of ageing";
}

struct Victims {
  std::vector<bool> gone;
  std::uint64_t hot_gone = 0, cold_gone = 0;
  [[nodiscard]] std::uint64_t count() const { return hot_gone + cold_gone; }
};

/// Of the pages that one of two runs lost, the share that the other one lost, too.
inline double alike(const Victims& a, const Victims& b) {
  std::uint64_t both = 0;
  for (std::size_t i = 0; i < a.gone.size(); ++i) both += a.gone[i] && b.gone[i] ? 1u : 0u;
  return share(both, std::max(a.count(), b.count()));
}

}  // namespace thermocline::labtest

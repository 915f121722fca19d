// SPDX-License-Identifier: Apache-2.0
// The layer rule (docs/architecture.md), read off the #include lines of the tree:
//   base → topology → tracking → trace → heat → policies → policies/plugin → mover → engine →
//   control → programs
// A file includes its own folder and what stands before it. Beyond that, policies see base, heat
// and topology only; emulation/lab
// and emulation/timing see base only; kmod/ shares nothing with user space but kmod/uapi.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/text.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;
using testing::IsEmpty;

using Layers = std::set<std::string>;

/// Folders as they are named in #include lines, and what each may include beside itself.
const std::map<std::string, Layers>& rules() {
  static const std::map<std::string, Layers> kRules = [] {
    std::map<std::string, Layers> rules;
    const std::vector<std::string> order{"base",   "topology", "tracking",        "trace",
                                         "heat",   "policies", "policies/plugin", "mover",
                                         "engine", "control"};
    Layers before{"uapi"};
    for (const std::string& layer : order) {
      if (layer == "control") rules["emulation/sim"] = before;
      rules[layer] = before;
      before.insert(layer);
    }
    rules["policies"] = {"base", "heat", "topology"};
    rules["policies/plugin"] = {"base", "heat", "topology", "policies"};
    rules["emulation/replay"] = rules["control"];  // a host of the engine
    for (const char* program : {"daemon", "cli"}) rules[program] = before;
    rules["cli"].insert({"bench/suite", "bench/trackers", "draw", "emulation/lab",
                         "emulation/numa_remote", "emulation/replay", "emulation/sim",
                         "emulation/timing"});
    rules["emulation/sim"].insert("emulation/timing");
    rules["draw"] = {"base"};
    rules["bench/suite"] = {"base", "draw", "emulation/lab", "emulation/timing"};
    rules["bench/trackers"] = before;  // tracker_watch, in the guest, has an engine
    rules["bench/trackers"].insert({"bench", "bench/suite", "emulation/lab", "emulation/timing"});
    rules["emulation/lab"] = {"base", "emulation/timing"};
    rules["emulation/timing"] = {"base"};
    rules["emulation/probe"] = {"base"};
    rules["emulation/numa_remote"] = {"base", "topology", "emulation/probe", "emulation/timing"};
    rules["bench"] = before;
    rules["bench"].insert({"emulation/probe", "emulation/timing"});  // mark.h
    rules["kmod"] = {"uapi"};
    rules["uapi"] = {};
    return rules;
  }();
  return kRules;
}

/// The layer that a path below the root or userspace/ belongs to, or "" for none.
std::string layer_of(std::string path) {
  if (path.starts_with("userspace/")) path.erase(0, 10);
  if (path.starts_with("kmod/uapi/")) path.erase(0, 5);
  std::string best;
  for (const auto& [layer, allowed] : rules())
    if (path.starts_with(layer + "/") && layer.size() > best.size()) best = layer;
  return best;
}

struct Include {
  std::string path;
  bool quoted = false;
};

std::optional<Include> parse_include(std::string_view line) {
  line = trim(line);
  if (!line.starts_with('#')) return std::nullopt;
  line = trim(line.substr(1));
  if (!line.starts_with("include")) return std::nullopt;
  line = trim(line.substr(7));
  if (line.size() < 2 || (line[0] != '"' && line[0] != '<')) return std::nullopt;
  const auto end = line.find(line[0] == '"' ? '"' : '>', 1);
  if (end == std::string_view::npos) return std::nullopt;
  return Include{std::string(line.substr(1, end - 1)), line[0] == '"'};
}

/// "path:line: what is wrong" for each violation in one file.
std::vector<std::string> violations(const std::string& path, const std::string& text) {
  const std::string own = layer_of(path);
  std::vector<std::string> found;
  std::size_t number = 0;
  for (const std::string_view line : split(text, '\n')) {
    ++number;
    const auto include = parse_include(line);
    if (!include) continue;
    const auto complain = [&](const std::string& what) {
      found.push_back(path + ":" + std::to_string(number) + ": " + what);
    };
    if (include->path.find("..") != std::string::npos) {
      complain("includes by a relative path: " + include->path);
      continue;
    }
    // The kernel's header of tracepoints, not ours.
    if (own == "kmod" && !include->quoted && include->path == "trace/define_trace.h") continue;
    std::string other = layer_of(include->path);
    if (other.empty() && include->quoted) {
      // "scan.h" is a file beside this one in the module; user space names files in full.
      if (include->path.find('/') == std::string::npos && own == "kmod") continue;
      complain("includes a file of no layer: " + include->path);
      continue;
    }
    if (other.empty() || other == own) continue;
    if (!rules().at(own).contains(other))
      complain(own + " may not include " + other + ": " + include->path);
  }
  return found;
}

bool is_source(const fs::path& path) {
  static const Layers kExtensions{".h", ".c", ".cc", ".inc"};
  return kExtensions.contains(path.extension());
}

std::string read_all(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(LayerRule, HoldsInTheWholeTree) {
  const fs::path root = THERMOCLINE_SOURCE_DIR;
  std::vector<std::string> found;
  std::size_t files = 0;
  for (const char* top : {"userspace", "policies", "emulation", "bench", "kmod"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      if (!entry.is_regular_file() || !is_source(entry.path())) continue;
      const std::string path = entry.path().lexically_relative(root);
      if (entry.path().stem().extension() == ".mod") continue;  // generated by kbuild
      ++files;
      if (layer_of(path).empty()) {
        found.push_back(path + ":1: belongs to no layer; add its folder to this test");
        continue;
      }
      for (std::string& violation : violations(path, read_all(entry.path())))
        found.push_back(std::move(violation));
    }
  }
  std::string text;
  for (const std::string& violation : found) text += violation + "\n";
  EXPECT_THAT(found, IsEmpty()) << text;
  EXPECT_GT(files, 10u);
}

TEST(LayerRule, CatchesEachKindOfViolation) {
  const auto one = [](const std::string& path, const std::string& text) {
    const auto found = violations(path, text);
    return found.size() == 1 ? found[0] : std::to_string(found.size()) + " violations";
  };
  EXPECT_EQ(one("userspace/base/text.cc", "#include \"base/text.h\"\n\n#include \"heat/heat.h\"\n"),
            "userspace/base/text.cc:3: base may not include heat: heat/heat.h");
  EXPECT_EQ(one("userspace/heat/h.cc", "  #  include <engine/engine.h>"),
            "userspace/heat/h.cc:1: heat may not include engine: engine/engine.h");
  EXPECT_EQ(one("userspace/tracking/t.cc", "#include \"trace/trace_reader.h\""),
            "userspace/tracking/t.cc:1: tracking may not include trace: trace/trace_reader.h");
  EXPECT_EQ(one("policies/heat.cc", "#include \"mover/mover.h\""),
            "policies/heat.cc:1: policies may not include mover: mover/mover.h");
  EXPECT_EQ(one("policies/heat.cc", "#include \"tracking/record.h\""),
            "policies/heat.cc:1: policies may not include tracking: tracking/record.h");
  EXPECT_EQ(one("policies/heat.cc", "#include \"policies/plugin/wire.h\""),
            "policies/heat.cc:1: policies may not include policies/plugin: policies/plugin/wire.h");
  EXPECT_EQ(one("emulation/lab/lab.cc", "#include \"topology/topology.h\""),
            "emulation/lab/lab.cc:1: emulation/lab may not include topology: topology/topology.h");
  EXPECT_EQ(one("userspace/engine/e.cc", "#include \"emulation/lab/lab.h\""),
            "userspace/engine/e.cc:1: engine may not include emulation/lab: emulation/lab/lab.h");
  EXPECT_EQ(one("userspace/daemon/main.cc", "#include \"cli/command.h\""),
            "userspace/daemon/main.cc:1: daemon may not include cli: cli/command.h");
  EXPECT_EQ(one("kmod/scan.c", "#include \"base/units.h\""),
            "kmod/scan.c:1: kmod may not include base: base/units.h");
  EXPECT_EQ(one("userspace/tracking/k.cc", "#include \"kmod/scan.h\""),
            "userspace/tracking/k.cc:1: tracking may not include kmod: kmod/scan.h");
  EXPECT_EQ(one("userspace/heat/h.cc", "#include \"../base/text.h\""),
            "userspace/heat/h.cc:1: includes by a relative path: ../base/text.h");
  EXPECT_EQ(one("userspace/heat/h.cc", "#include \"text.h\""),
            "userspace/heat/h.cc:1: includes a file of no layer: text.h");
}

TEST(LayerRule, AllowsWhatItShould) {
  EXPECT_THAT(
      violations("userspace/engine/e.cc",
                 "#include \"policies/policy.h\"\n#include \"engine/e.h\"\n#include <vector>\n"
                 "#include <linux/types.h>\n// #include \"cli/command.h\"\n"),
      IsEmpty());
  EXPECT_THAT(violations("userspace/cli/cmd_lab.cc", "#include \"emulation/lab/lab.h\"\n"),
              IsEmpty());
  EXPECT_THAT(violations("userspace/tracking/k.cc", "#include \"uapi/thermocline.h\"\n"),
              IsEmpty());
  EXPECT_THAT(violations("userspace/tracking/k.cc", "#include \"kmod/uapi/thermocline.h\"\n"),
              IsEmpty());
  EXPECT_THAT(violations("kmod/scan.c", "#include \"scan.h\"\n#include \"uapi/thermocline.h\"\n"),
              IsEmpty());
}

}  // namespace
}  // namespace thermocline

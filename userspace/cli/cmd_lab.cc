// SPDX-License-Identifier: Apache-2.0
// `thermocline lab run|shell|doctor|capture`: guests with a fast and a slow memory node
// (emulation/lab).
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "base/output.h"
#include "base/text.h"
#include "cli/calibrate.h"
#include "cli/command.h"
#include "emulation/lab/capture.h"
#include "emulation/lab/doctor.h"
#include "emulation/lab/files.h"
#include "emulation/lab/runner.h"

namespace thermocline::cli {

namespace {

/// What run, shell and capture have in common, as typed.
struct GuestOptions {
  std::string kernel = "6.12";
  std::string profile = "hmat";
  std::string topology;
  std::string fast = "1G";
  std::string slow;
  std::string timeout = "120";
  std::string timing;
  std::string timing_mode = "reference";
  std::string truth_slice;
  std::string truth_profile;
  timing::TruthOptions truth;
  CLI::Option* cpus = nullptr;
  std::vector<CLI::Option*> of_timing;  ///< what means nothing without a model
  lab::RunSpec spec;
};

void add_guest_options(CLI::App& verb, GuestOptions& o) {
  verb.add_option("--kernel", o.kernel, "6.12, 6.1, debug-6.12, debug-6.1 or VMLINUZ[:MODULES_DIR]")
      ->type_name("KERNEL")
      ->capture_default_str();
  verb.add_option("--profile", o.profile, "how the slow node comes to be: hmat, nvdimm or cxl")
      ->type_name("PROFILE")
      ->capture_default_str();
  std::vector<std::string> topologies;
  for (const lab::NodeLayout& layout : lab::layouts()) topologies.push_back(layout.name);
  verb.add_option("--topology", o.topology,
                  fmt::format("a machine of several nodes instead of a profile: {}",
                              fmt::join(topologies, ", ")))
      ->type_name("NAME");
  verb.add_option("--fast", o.fast, "memory of the fast node")
      ->type_name("SIZE")
      ->capture_default_str();
  verb.add_option("--slow", o.slow, "memory of the slow node (default: 1G; cxl: 512M)")
      ->type_name("SIZE");
  verb.add_option("--cxl-devices", o.spec.machine.cxl_devices,
                  "slow nodes of the cxl profile, one a device")
      ->type_name("N")
      ->capture_default_str();
  o.cpus = verb.add_option("--smp", o.spec.machine.cpus,
                           "CPUs of the guest (default: 2; reference mode: 1)")
               ->type_name("N");
  verb.add_option("--with", o.spec.files,
                  "a file or folder to carry into the guest with its libraries")
      ->type_name("FILE[:/PLACE]")
      ->allow_extra_args(false);
  verb.add_option("--module", o.spec.modules, "one more kernel module to load")
      ->type_name("NAME")
      ->allow_extra_args(false);
  verb.add_option("--append", o.spec.append, "words for the kernel's command line")
      ->type_name("WORDS")
      ->allow_extra_args(false);
  verb.add_option("--qemu-arg", o.spec.qemu_args, "one more argument for QEMU")
      ->type_name("ARGUMENT")
      ->allow_extra_args(false);
  verb.add_option("--env", o.spec.env, "a variable for the command")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  verb.add_option("--log", o.spec.log_file, "write the guest's whole kernel log to this file")
      ->type_name("FILE");
  verb.add_flag("--verbose", o.spec.verbose, "show the kernel log as it comes");
}

void add_out_option(CLI::App& verb, GuestOptions& o) {
  verb.add_option("--out", o.spec.out_dir, "host folder that the guest sees as $TC_OUT")
      ->type_name("DIR");
}

void add_timing_options(CLI::App& verb, GuestOptions& o) {
  verb.add_option("--timing", o.timing,
                  fmt::format("memory-timing model that drives the guest's clock: {}, or a file",
                              fmt::join(timing::preset_names(), ", ")))
      ->type_name("MODEL");
  o.of_timing = {
      verb.add_option("--timing-mode", o.timing_mode,
                      "reference (one CPU, the same in every run), parallel, or report (the clock "
                      "is left alone)")
          ->type_name("MODE")
          ->capture_default_str(),
      verb.add_option("--truth", o.truth.file,
                      "write what the last-level cache missed, by node and page, to this file")
          ->type_name("FILE"),
      verb.add_option("--truth-slice", o.truth_slice,
                      "guest time of a slice of it (default: marks only)")
          ->type_name("TIME"),
      verb.add_option("--truth-pages", o.truth.pages, "none, physical or virtual")
          ->type_name("WHICH")
          ->capture_default_str(),
      verb.add_option("--truth-profile", o.truth_profile,
                      "guest time between samples of what its kernel does for tiering, such as "
                      "50us (default: none)")
          ->type_name("TIME")};
}

/// A file that is written when the guest has ended: whether it can be shows before it boots.
Status check_writable(const std::string& file, std::string_view what) {
  if (std::ofstream(file, std::ios::app)) return {};
  return fail(ErrorKind::kUsage, "can't write {} to {}: {}", what, file, errno_text(errno));
}

/// After take_spec(): the model is read and checked here, before anything is started.
Status take_timing(GuestOptions& o) {
  if (o.timing.empty()) {
    for (const CLI::Option* option : o.of_timing)
      if (option->count() != 0)
        return fail(ErrorKind::kUsage, "{} needs a model: give --timing as well",
                    option->get_name());
    return {};
  }
  lab::TimingSpec timing;
  TC_ASSIGN(timing.mode, timing::parse_mode(o.timing_mode));
  TC_ASSIGN(timing.model, timing::load_model(o.timing));
  timing.truth = o.truth;
  if (timing.truth.pages != "none" && timing.truth.pages != "physical" &&
      timing.truth.pages != "virtual")
    return fail(ErrorKind::kUsage, "--truth-pages is none, physical or virtual, not '{}'",
                timing.truth.pages);
  if (!o.truth_slice.empty()) {
    if (o.truth.file.empty())
      return fail(ErrorKind::kUsage,
                  "--truth-slice needs a file to write to: give --truth as well");
    const auto slice = parse_duration(o.truth_slice);
    if (!slice || *slice < std::chrono::milliseconds(1))
      return fail(ErrorKind::kUsage,
                  "--truth-slice wants a time of at least 1ms, such as 100ms, not '{}'",
                  o.truth_slice);
    timing.truth.slice = *slice;
  }
  if (!o.truth_profile.empty()) {
    if (o.truth.file.empty())
      return fail(ErrorKind::kUsage,
                  "--truth-profile needs a file to write to: give --truth as well");
    const auto period = parse_duration(o.truth_profile);
    if (!period || *period < std::chrono::microseconds(1) || *period > std::chrono::seconds(1))
      return fail(ErrorKind::kUsage, "--truth-profile wants 1us to 1s, such as 50us, not '{}'",
                  o.truth_profile);
    timing.truth.profile = *period;
  }
  if (!timing.truth.file.empty()) {
    timing.truth.file = std::filesystem::absolute(timing.truth.file).string();
    TC_TRY(check_writable(timing.truth.file, "the ground truth"));
  }
  if (timing.mode == timing::Mode::kReference && o.cpus->count() == 0) o.spec.machine.cpus = 1;
  // Whether the model fits the guest shows before QEMU or a kernel is looked for.
  lab::MachineSpec machine_spec = o.spec.machine;
  machine_spec.deterministic = timing.mode == timing::Mode::kReference;
  TC_ASSIGN(const lab::Machine machine, lab::build_machine(machine_spec));
  TC_TRY(timing::make_plan(timing.model, machine.memory, timing.mode, timing.truth));
  o.spec.timing = std::move(timing);
  return {};
}

/// What was typed as what is meant.
Status take_spec(GuestOptions& o) {
  lab::RunSpec& spec = o.spec;
  spec.kernel = o.kernel;
  TC_ASSIGN(spec.machine.profile, lab::parse_profile(o.profile));
  if (!o.topology.empty()) {
    TC_ASSIGN(spec.machine.layout, lab::find_layout(o.topology));
  }
  TC_ASSIGN(spec.machine.fast, parse_bytes(o.fast));
  if (!o.slow.empty()) {
    TC_ASSIGN(spec.machine.slow, parse_bytes(o.slow));
  }
  const auto seconds = parse_u64(o.timeout);
  if (!seconds || *seconds == 0 || *seconds > 1'000'000)
    return fail(ErrorKind::kUsage, "--timeout wants whole seconds, not '{}'", o.timeout);
  spec.timeout = std::chrono::seconds(*seconds);
  return {};
}

Result<int> run(GuestOptions& o) {
  TC_TRY(take_spec(o));
  TC_TRY(take_timing(o));
  const lab::RunSpec& spec = o.spec;
  if (!spec.interactive && (spec.command.empty() || spec.command.front().empty()))
    return fail(ErrorKind::kUsage,
                "no command for the guest; write: thermocline lab run -- COMMAND ...");
  if (spec.interactive && ::isatty(STDIN_FILENO) == 0)
    return fail(ErrorKind::kUsage,
                "standard input is not a terminal; for a command there is: thermocline lab run -- "
                "COMMAND ...");
  if (spec.interactive)
    fmt::print(stderr, "thermocline: lab: {}; `exit` ends the guest\n",
               !spec.timing ? "no timing model, times are emulated"
               : spec.timing->mode == timing::Mode::kReport
                   ? fmt::format("{} in report mode, times are emulated", spec.timing->model.name)
                   : fmt::format("{} in {} mode, times are modelled", spec.timing->model.name,
                                 timing::mode_name(spec.timing->mode)));
  return lab::run_guest(spec);
}

Result<int> doctor(bool json) {
  const auto findings = lab::examine_lab();
  if (json) {
    nlohmann::ordered_json out;
    out["ready"] = lab::is_ready(findings);
    for (const lab::Finding& f : findings)
      out["findings"].push_back(
          {{"what", f.what}, {"good", f.good}, {"needed", f.needed}, {"detail", f.detail}});
    print_line(json_text(out));
  } else {
    for (const lab::Finding& f : findings)
      print_line(fmt::format("{:<8} {:<16} {}",
                             f.good     ? "ok"
                             : f.needed ? "MISSING"
                                        : "absent",
                             f.what, f.detail));
  }
  return static_cast<int>(lab::is_ready(findings) ? ExitCode::kOk : ExitCode::kUnsupported);
}

/// Nodes of the guest with memory, in order, as the probe wants them: "1:25000:0".
std::vector<std::string> probe_nodes(const timing::Model& model,
                                     const timing::GuestMemory& memory) {
  std::vector<std::string> nodes;
  std::set<NodeId> seen;
  for (const auto& range : memory.ranges)
    if (const timing::NodeModel* node = timing::model_of(model, range.node);
        node != nullptr && seen.insert(range.node).second)
      nodes.push_back(
          fmt::format("{}:{}:{}", range.node.get(), node->bandwidth.get(), node->background.get()));
  return nodes;
}

Result<int> calibrate(GuestOptions& o, bool json, const std::string& svg) {
  if (o.timing.empty())
    return fail(ErrorKind::kUsage,
                "calibrate needs a model: give --timing, such as --timing cxl-asic");
  // The guest's memory is the same whatever runs in it.
  TC_TRY(take_spec(o));
  TC_TRY(take_timing(o));
  TC_ASSIGN(const lab::Machine machine, lab::build_machine(o.spec.machine));
  const lab::TimingSpec& timing = *o.spec.timing;
  if (timing.mode == timing::Mode::kReport)
    return fail(ErrorKind::kUsage,
                "report mode leaves the clock alone: there is nothing to calibrate");
  if (!svg.empty()) TC_TRY(check_writable(svg, "the picture"));
  std::string probe;
  o.spec.doing = "measuring";
  o.spec.output = [&probe](std::string_view text) { probe += text; };
  // The kernel's work after boot is over when the idle seconds, which cost nothing, have passed.
  o.spec.command = {"sh", "-c", "sleep 3; exec taskset 1 timing_probe \"$@\"", "probe"};
  for (std::string& node : probe_nodes(timing.model, machine.memory))
    o.spec.command.push_back(std::move(node));
  TC_ASSIGN(const int code, lab::run_guest(o.spec));
  if (code != 0) {
    print_line(probe);
    return code;
  }
  TC_ASSIGN(const Calibration calibration,
            read_calibration(probe, timing.model, timing.mode, o.kernel));
  print_line(json ? calibration_json(calibration, timing.model).dump(2)
                  : calibration_text(calibration, timing.model));
  if (!svg.empty()) TC_TRY(write_whole(svg, calibration_svg(calibration)));
  return 0;
}

/// This machine, or a guest when one is described: then this same command runs inside it.
Result<int> capture(GuestOptions& o, const std::string& dir, bool guest, bool quiet) {
  if (!guest) {
    TC_ASSIGN(const lab::CaptureCount count, lab::capture_machine("", dir));
    if (!quiet)
      print_line(fmt::format("{} files and {} links of this machine are in {}", count.files,
                             count.links, dir));
    return 0;
  }
  std::error_code ec;
  if (std::filesystem::exists(dir, ec) && !std::filesystem::is_empty(dir, ec))
    return fail(ErrorKind::kUsage, "{} is not empty; give a new folder for the capture", dir);
  // One archive instead of hundreds of small files: each costs milliseconds through the emulated
  // share.
  o.spec.out_dir = dir;
  o.spec.command = {"sh", "-c",
                    "thermocline lab capture --quiet /tmp/capture && tar -C /tmp/capture -cf "
                    "\"$TC_OUT/capture.tar\" ."};
  TC_ASSIGN(const int code, run(o));
  const std::string archive = dir + "/capture.tar";
  if (code != 0) return code;
  TC_ASSIGN(const lab::ProgramOutput tar, lab::run_program({"tar", "-C", dir, "-xf", archive}));
  std::filesystem::remove(archive, ec);
  if (tar.exit_code != 0)
    return fail(ErrorKind::kFailure, "can't unpack the capture in {}: {}", dir, tar.text);
  print_line(fmt::format("the guest's topology is in {}", dir));
  return 0;
}

}  // namespace

void register_lab(CLI::App& app, Context& context) {
  CLI::App* lab =
      app.add_subcommand("lab", "guests with a fast and a slow memory node, under QEMU");
  lab->require_subcommand(1);

  auto run_options = std::make_shared<GuestOptions>();
  CLI::App* run_verb =
      lab->add_subcommand("run", "run a command in a guest and return its exit code");
  add_guest_options(*run_verb, *run_options);
  add_out_option(*run_verb, *run_options);
  add_timing_options(*run_verb, *run_options);
  run_verb->add_option("--timeout", run_options->timeout, "seconds until the guest counts as hung")
      ->type_name("SECONDS")
      ->capture_default_str();
  run_verb
      ->add_option("command", run_options->spec.command, "after --: the command and its arguments")
      ->type_name("COMMAND");
  run_verb->callback(
      [&context, run_options] { context.action = [run_options] { return run(*run_options); }; });

  auto shell_options = std::make_shared<GuestOptions>();
  CLI::App* shell_verb = lab->add_subcommand("shell", "a prompt in a guest; `exit` ends it");
  add_guest_options(*shell_verb, *shell_options);
  add_out_option(*shell_verb, *shell_options);
  // Reference mode skips idle time: while somebody thinks at the prompt, hours would pass.
  shell_options->timing_mode = "parallel";
  add_timing_options(*shell_verb, *shell_options);
  shell_verb->callback([&context, shell_options] {
    context.action = [shell_options] {
      shell_options->spec.interactive = true;
      shell_options->spec.command = {"sh", "-l"};
      return run(*shell_options);
    };
  });

  auto calibrate_options = std::make_shared<GuestOptions>();
  auto calibrate_json = std::make_shared<bool>(false);
  auto svg = std::make_shared<std::string>();
  CLI::App* calibrate_verb =
      lab->add_subcommand("calibrate", "measure a timing model from inside a guest");
  add_guest_options(*calibrate_verb, *calibrate_options);
  add_timing_options(*calibrate_verb, *calibrate_options);
  calibrate_options->timeout = "600";
  calibrate_verb->add_flag("--json", *calibrate_json, "print JSON with stable keys");
  calibrate_verb->add_option("--svg", *svg, "also draw the load sweep into this file")
      ->type_name("FILE");
  calibrate_verb->callback([&context, calibrate_options, calibrate_json, svg] {
    context.action = [calibrate_options, calibrate_json, svg] {
      return calibrate(*calibrate_options, *calibrate_json, *svg);
    };
  });

  auto json = std::make_shared<bool>(false);
  CLI::App* doctor_verb =
      lab->add_subcommand("doctor", "what the lab has here and what is missing");
  doctor_verb->add_flag("--json", *json, "print JSON with stable keys");
  doctor_verb->callback([&context, json] { context.action = [json] { return doctor(*json); }; });

  auto capture_options = std::make_shared<GuestOptions>();
  auto dir = std::make_shared<std::string>();
  auto quiet = std::make_shared<bool>(false);
  CLI::App* capture_verb = lab->add_subcommand("capture",
                                               "save this machine's topology as a tree, or a "
                                               "guest's when any option describes one");
  add_guest_options(*capture_verb, *capture_options);
  const std::vector<CLI::Option*> of_guest = capture_verb->get_options();
  capture_verb->add_option("dir", *dir, "new folder for the tree; usable as --sysroot")
      ->type_name("DIR")
      ->required();
  capture_verb->add_flag("--quiet", *quiet, "say nothing when it worked");
  capture_verb->callback([&context, capture_options, of_guest, dir, quiet] {
    const bool guest = std::any_of(of_guest.begin(), of_guest.end(),
                                   [](const CLI::Option* option) { return option->count() != 0; });
    context.action = [capture_options, dir, guest, quiet] {
      return capture(*capture_options, *dir, guest, *quiet);
    };
  });
}

}  // namespace thermocline::cli

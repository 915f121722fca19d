// SPDX-License-Identifier: Apache-2.0
// `thermoclined`: parse the command line, run the daemon, map errors to exit codes 0, 1, 2, 77.
#include <fmt/core.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "base/output.h"
#include "base/text.h"
#include "daemon/daemon.h"

namespace {

thermocline::Status run_daemon(const std::string& config_path) {
  using namespace thermocline;
  TC_ASSIGN(auto config, load_config(config_path));
  const auto system = make_real_system();
  TC_ASSIGN(const auto daemon, Daemon::create(*system, std::move(config), config_path));
  return daemon->run();
}

int finish(const thermocline::Status& status) {
  if (status) return static_cast<int>(thermocline::ExitCode::kOk);
  fmt::print(stderr, "thermoclined: {}\n", status.error().message);
  return static_cast<int>(status.error().exit_code());
}

}  // namespace

int main(int argc, char** argv) {
  using namespace thermocline;
  CLI::App app{
      "The Thermocline daemon: watches how hot pages are and keeps the hot ones on the fast tier.\n"
      "Runs in the foreground. SIGHUP reloads the configuration, all or nothing; SIGTERM stops."};
  app.name("thermoclined");
  app.set_help_flag("-h,--help", "show this");
  app.set_version_flag("--version", std::string("thermoclined ") + THERMOCLINE_VERSION,
                       "show the version");
  std::string config_path = kDefaultConfigPath;
  app.add_option("-c,--config", config_path, "configuration file; FILE.d/*.toml are read after it")
      ->capture_default_str()
      ->type_name("FILE");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    app.exit(e);
    return finish(finish_stdout());
  } catch (const CLI::ParseError& e) {
    return finish(fail(ErrorKind::kUsage, "{}", usage_sentence(e.what(), "thermoclined")));
  }
  return finish(run_daemon(config_path));
}

// SPDX-License-Identifier: Apache-2.0
// The verbs around the daemon: status, config show, check-config, policies.
#include <nlohmann/json.hpp>

#include "base/system.h"
#include "cli/command.h"
#include "cli/table.h"
#include "control/config.h"
#include "control/control_socket.h"
#include "control/status.h"
#include "policies/plugin/plugin_policy.h"
#include "policies/policy.h"

namespace thermocline::cli {

namespace {

using nlohmann::json;

struct Options {
  bool as_json = false;
  std::string socket = Config{}.socket;
  std::string config;
  std::string plugin_dir;
};

CLI::App* read_verb(CLI::App& parent, Options& options, const std::string& name,
                    const std::string& help) {
  CLI::App* verb = parent.add_subcommand(name, help);
  verb->add_flag("--json", options.as_json, "print JSON with stable keys");
  return verb;
}

Result<int> show_status(const Options& options) {
  TC_ASSIGN(const auto status, ask_daemon(options.socket, {{"command", "status"}}));
  if (options.as_json) {
    print_line(json_text(status));
    return 0;
  }
  TC_ASSIGN(const std::string text, status_text(status));
  print_line(text);
  return 0;
}

json keys_json() {
  json keys = json::array();
  for (const ConfigKey& key : config_keys())
    keys.push_back({{"table", key.table},
                    {"key", key.key},
                    {"help", key.help},
                    {"default_toml", key.default_text},
                    {"list", key.list}});
  return keys;
}

Result<int> show_config(const Options& options) {
  std::string toml;
  if (options.config.empty()) {
    TC_ASSIGN(const auto answer, ask_daemon(options.socket, {{"command", "config"}}));
    if (!answer.is_object() || !answer.contains("toml") || !answer["toml"].is_string())
      return fail(ErrorKind::kFailure,
                  "the daemon on {} sent no configuration; is it of another version?",
                  options.socket);
    toml = answer["toml"];
  } else {
    TC_ASSIGN(const auto config, load_config(options.config));
    toml = config_to_toml(config);
  }
  if (!toml.empty() && toml.back() == '\n') toml.pop_back();
  print_line(options.as_json ? json_text(json{{"toml", toml}}) : toml);
  return 0;
}

Result<int> show_keys(const Options& options) {
  if (options.as_json) {
    print_line(json_text(keys_json()));
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const ConfigKey& key : config_keys())
    rows.push_back({fmt::format(fmt::runtime(key.list ? "[[{}]] {}" : "{}.{}"), key.table, key.key),
                    key.default_text.empty() ? "-" : key.default_text, key.help});
  print_line(format_table({{"KEY"}, {"DEFAULT"}, {"MEANING"}}, rows, kLineWidth));
  return 0;
}

Result<int> check_config(const Options& options) {
  TC_ASSIGN(const auto config, load_config(options.config));
  TC_TRY(require_targets(config, options.config));
  if (options.as_json) {
    print_line(json_text(json{{"file", options.config},
                              {"valid", true},
                              {"targets", config.targets.size()},
                              {"tiers", config.tiers.size()}}));
  } else {
    print_line(fmt::format("{}: valid; policy {}, {} target{}", options.config, config.policy,
                           config.targets.size(), config.targets.size() == 1 ? "" : "s"));
    for (const auto& [name, given] : config.policy_options)
      if (name != config.policy && !given.empty())
        print_line(fmt::format("{}: [policy.{}] is not used: the policy is {}", options.config,
                               name, config.policy));
  }
  return 0;
}

Result<int> list_policies(const Options& options) {
  PolicyRegistry registry;
  register_builtin_policies(registry);
  std::vector<PolicyFactory> policies = registry.factories();
  json list = json::array();
  std::vector<std::vector<std::string>> rows;
  std::vector<PluginFile> plugins;
  if (!options.plugin_dir.empty()) {
    TC_ASSIGN(plugins, find_plugins(options.plugin_dir));
  }
  // One that can't be used doesn't hide the others.
  std::vector<std::pair<std::string, Error>> unusable;
  for (const PluginFile& plugin : plugins) {
    auto described = describe_plugin(plugin, {});
    if (described)
      policies.push_back(std::move(*described));
    else
      unusable.emplace_back(plugin.name, described.error());
  }
  for (const PolicyFactory& policy : policies) {
    std::vector<std::string> help;
    for (const PolicyOptionHelp& option : policy.option_help)
      help.push_back(
          fmt::format("{}: {}. Default {}.", option.key, option.meaning, option.default_text));
    list.push_back({{"name", policy.name},
                    {"summary", policy.summary},
                    {"source", policy.source},
                    {"options", help}});
    rows.push_back({policy.name, policy.summary});
    rows.push_back({"", "  source: " + policy.source});
    for (const std::string& option : help) rows.push_back({"", "  option " + option});
  }
  for (const auto& [name, why] : unusable) {
    list.push_back({{"name", name}, {"error", why.message}});
    rows.push_back({name, "can't be used: " + why.message});
  }
  print_line(options.as_json ? json_text(list)
                             : format_table({{"POLICY"}, {"WHAT IT DOES"}}, rows, kLineWidth));
  return 0;
}

}  // namespace

void register_daemon_verbs(CLI::App& app, Context& context) {
  const auto options = std::make_shared<Options>();
  const auto run = [&context, options](CLI::App* verb, Result<int> (*action)(const Options&)) {
    verb->callback([&context, options, action] {
      context.action = [options, action] { return action(*options); };
    });
  };

  CLI::App* status =
      read_verb(app, *options, "status", "what the running daemon does and has done");
  status->add_option("--socket", options->socket, "the daemon's control socket")
      ->type_name("PATH")
      ->capture_default_str();
  run(status, show_status);

  CLI::App* policies = read_verb(app, *options, "policies", "the policies that there are");
  policies
      ->add_option("--plugin-dir", options->plugin_dir, "also the policy plug-ins in DIR, NAME.so")
      ->type_name("DIR");
  run(policies, list_policies);

  CLI::App* config = app.add_subcommand("config", "the configuration");
  config->require_subcommand(1);
  CLI::App* show = read_verb(*config, *options, "show",
                             "the effective configuration: of the daemon, or of --config FILE");
  show->add_option("--socket", options->socket, "the daemon's control socket")
      ->type_name("PATH")
      ->capture_default_str();
  show->add_option("-c,--config", options->config, "read FILE and its drop-ins instead")
      ->type_name("FILE");
  run(show, show_config);
  run(read_verb(*config, *options, "keys", "every key with its default and meaning"), show_keys);

  CLI::App* check = read_verb(app, *options, "check-config",
                              "check a configuration file and its drop-ins; needs no root");
  check->add_option("FILE", options->config, "file to check")
      ->type_name("")
      ->default_str(kDefaultConfigPath);
  options->config.clear();
  check->callback([&context, options] {
    if (options->config.empty()) options->config = kDefaultConfigPath;
    context.action = [options] { return check_config(*options); };
  });
}

}  // namespace thermocline::cli

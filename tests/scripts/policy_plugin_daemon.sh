#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The daemon with a policy plug-in that stops answering: it goes on with another policy, says so in its log and in its
# status, and takes another plug-in at SIGHUP. It only observes, so any machine will do.
set -euo pipefail
daemon=$2/userspace/daemon/thermoclined thermocline=$2/userspace/cli/thermocline
folder=$(mktemp -d)
pids=()
trap '[[ ${#pids[@]} == 0 ]] || kill "${pids[@]}" 2>/dev/null; wait; rm -rf "$folder"' EXIT
chmod 755 "$folder"
mkdir -m 755 "$folder/plugins"
install -m 755 "$2/tests/policy_plugin/plugins/odd.so" "$2/tests/policy_plugin/plugins/hottest.so" "$folder/plugins"
sleep 600 &
pids+=($!)
configure() { # POLICY OPTIONS
  printf '[engine]\nmode = "observe"\nepoch = "200ms"\ncpu_budget = 1.0\nwindows_per_epoch = 2\n[tracker]\nname = "refs"
[control]\nsocket = "%s/socket"\n[policy]\nname = "%s"\nplugin_dir = "%s/plugins"\nplugin_timeout = "500ms"
[policy.odd]\nmode = "%s"\nafter = 3\n[[target]]\npid = %s\n' "$folder" "$1" "$folder" "$2" "${pids[0]}" >"$folder/c.toml"
}
# A mistake in the options of a plug-in ends the start.
configure odd refuse
code=0
said=$("$daemon" --config "$folder/c.toml" 2>&1) || code=$?
[[ $code == 2 && $said == *"policy odd: the mode is refuse"* ]] || { echo "$code $said"; exit 1; }

configure odd hang
"$daemon" --config "$folder/c.toml" 2>"$folder/log" &
pids+=($!)
wait_for() { # TEXT COMMAND...
  local text=$1 said=""
  shift
  for ((i = 0; i < 300; i++)); do
    said=$("$@" 2>&1) || true
    [[ $said == *"$text"* ]] && return
    sleep 0.1
  done
  echo "no '$text' in: $said"
  cat "$folder/log"
  exit 1
}
status=("$thermocline" status --socket "$folder/socket")
wait_for "policy plug-in odd didn't answer in time; auto decides, and it is started again in 1 epoch" cat "$folder/log"
wait_for "last failure: policy plug-in odd didn't answer in time" "${status[@]}"
wait_for "policy plug-in odd decides again" cat "$folder/log"
wait_for "policy odd" "${status[@]}"

configure hottest ""
kill -HUP "${pids[1]}"
wait_for "plug-in   hottest decides; " "${status[@]}"
# Each epoch is one more decision, and nothing is left of the other one.
"${status[@]}" --json | python3 -c '
import json, sys
plugin = json.load(sys.stdin)["plugin"]
assert plugin["failures"] == 0 and plugin["last_failure"] == "", plugin'
[[ $(pgrep -c -P "${pids[1]}") == 1 ]] || { pgrep -a -P "${pids[1]}"; exit 1; }
host=$(pgrep -P "${pids[1]}")
kill "${pids[1]}"
wait "${pids[1]}"
! kill -0 "$host" 2>/dev/null || { echo "the plug-in's process is still there"; exit 1; }

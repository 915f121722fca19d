#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tests/lab/run in a tree of its own: what it picks, and that a name or a kernel which picks nothing is an error that names
# what there is.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
lab=$work/tests/lab
mkdir -p "$lab" "$work/emulation/lab" "$work/build/dev/userspace/cli"
cp "$1"/tests/lab/run "$lab"
cp "$1"/emulation/lab/progress.sh "$work/emulation/lab"
printf '#!/bin/sh\n' >"$work/build/dev/userspace/cli/thermocline"
chmod +x "$work/build/dev/userspace/cli/thermocline"
# shellcheck disable=SC2016 # for the test to expand
printf '# kernels: 6.12 6.1\n[ "$TC_KERNEL" = 6.12 ]\n' >"$lab/one.host"
printf '# kernels: 6.12 debug-6.1\ntrue\n' >"$lab/two.host"

run() { # CODE TEXT ARGUMENT...
  local code=0 expected=$1 text=$2
  shift 2
  XDG_CACHE_HOME=$work/cache "$lab/run" "$@" >"$work/said" 2>&1 || code=$?
  [[ $code == "$expected" ]] || { echo "run $*: exit code $code, not $expected"; cat "$work/said"; exit 1; }
  grep -qF -- "$text" "$work/said" || { echo "run $*: no '$text' in:"; cat "$work/said"; exit 1; }
}
run 0 "2 passed, 0 failed" --kernel 6.12
run 1 "1 passed, 1 failed" --only one
run 0 "1 passed, 0 failed" --only two
run 0 "0 passed, 0 failed, 1 skipped" --kernel debug-6.1 # not built here
run 1 "0 passed, 1 failed" --kernel debug-6.1 --no-skip
for wrong in "--only tow" "--kernel debug-6.12" "--kernel 6.1 --only two" "--only two@debug" "--list --only tow"; do
  # shellcheck disable=SC2086 # words
  run 2 "two@debug-6.1" $wrong
  # shellcheck disable=SC2086
  run 2 "kernels: 6.1 6.12 debug-6.1" $wrong
done
run 0 "two@debug-6.1" --list --kernel debug-6.1

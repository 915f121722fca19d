#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ./demo keeps away from the user's files and exits with what it documents.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir -p "$tree/emulation/lab" "$tree/build/dev/userspace/cli" "$tree/build/dev/bench/demo" "$work/bin" "$work/user"
cp "$1/demo" "$tree/demo"
cp "$1/emulation/lab/progress.sh" "$tree/emulation/lab/"
stub() { # FILE SCRIPT
  printf '#!/bin/sh\n%s\n' "$2" >"$1"
  chmod +x "$1"
}
stub "$tree/emulation/lab/setup.sh" ':'
stub "$work/bin/cmake" ':'
# shellcheck disable=SC2016 # the stub expands them
stub "$tree/build/dev/userspace/cli/thermocline" '[ "$1" != lab ] || exit "${LAB_CODE:-0}"; echo "$1"'
# shellcheck disable=SC2016
stub "$tree/build/dev/bench/demo/demo_verdict" 'exit "${VERDICT:-0}"'
cd "$work/user"

expect() { # CODE PART-OF-OUTPUT ARGUMENTS...
  local wanted=$1 part=$2 code=0 text
  shift 2
  text=$(PATH=$work/bin:$PATH "$tree/demo" "$@" 2>&1) || code=$?
  [[ $code == "$wanted" && $text == *"$part"* ]] || {
    echo "demo $*: wanted exit code $wanted and '$part', got $code: $text"
    exit 1
  }
}

# Relative to where the user is, and what is there already stays.
expect 0 "The hot set ended up" --out results
[[ -f results/build.log && ! -e $tree/results ]] || { echo "--out is not relative to the caller"; exit 1; }
touch results/mine results/redis.records
mkdir results/folder
expect 0 "The hot set ended up" --out results
[[ -f results/mine && -d results/folder ]] || { echo "the demo deleted what it didn't make"; exit 1; }
[[ ! -e results/redis.records ]] || { echo "results of an earlier demo stayed"; exit 1; }
mkdir home empty
echo precious >home/file
expect 2 "not empty" --out home
expect 2 "not empty" --out "$work/user/home"
[[ $(cat home/file) == precious && $(ls -A home) == file ]] || { echo "the demo touched a folder of the user's"; exit 1; }
expect 2 "not a folder" --out home/file
expect 0 "The hot set ended up" --out empty

# Exit codes: 2 and 77 are the lab's own, everything else of the guest is a failure.
for code in 1 3 137 255; do LAB_CODE=$code expect 1 "exit code $code" --out results; done
LAB_CODE=2 expect 2 "no guest was started" --out results
LAB_CODE=77 expect 77 "no guest was started" --out results
VERDICT=1 expect 1 "did not show" --out results
VERDICT=5 expect 1 "could not be judged" --out results
expect 2 "unknown argument" --nonsense
expect 2 "wants a value" --out

# Set-up that fails: where to look.
stub "$tree/emulation/lab/setup.sh" 'echo "setup: no network" >&2; exit 1'
expect 1 "$work/user/results" --out results
stub "$tree/emulation/lab/setup.sh" ':'

# A long build is not silent.
stub "$work/bin/cmake" 'echo "[7/99] Building a.o"; sleep 0.5'
THERMOCLINE_PROGRESS_SECONDS=0.1 expect 0 " s): [7/99] Building a.o" --out results

# Ctrl-C. A shell without job control starts what is in the background with SIGINT ignored, hence env.
stub "$work/bin/cmake" "echo \$\$ >$work/cmake.pid; exec sleep 1000"
PATH=$work/bin:$PATH env --default-signal=INT "$tree/demo" --out results >"$work/text" 2>&1 &
demo=$!
until [[ -s $work/cmake.pid ]]; do sleep 0.05; done
kill -INT "$demo"
code=0
wait "$demo" || code=$?
[[ $code == 130 && $(tail -n 1 "$work/text") == "demo: interrupted" ]] || {
  echo "Ctrl-C: wanted 130 and one line, got $code: $(cat "$work/text")"
  exit 1
}
if grep -qsE '^State:\s+[^Z[:space:]]' "/proc/$(cat "$work/cmake.pid")/status"; then echo "Ctrl-C left the build running"; exit 1; fi

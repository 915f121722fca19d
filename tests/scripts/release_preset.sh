#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The preset for installing builds the programs, and neither tests nor benchmarks nor warnings as errors.
set -euo pipefail
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cmake -S "$1" --preset release -B "$build" >"$build/log" || { cat "$build/log"; exit 1; }
targets=$(ninja -C "$build" -t targets all | sed 's/: .*//')
for program in thermocline thermoclined timing_probe; do
  grep -qx "$program" <<<"$targets" || { echo "$program is not built"; exit 1; }
done
if grep -E '_tests?$|hotset|micro' <<<"$targets"; then echo "an installer's build has these"; exit 1; fi
if grep -m 1 -e -Werror "$build/build.ninja"; then echo "a warning ends an installer's build"; exit 1; fi

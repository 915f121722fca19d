#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What is installed under any prefix finds its own parts there: the lab its timing plug-in.
set -euo pipefail
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
cmake --install "$2" --prefix "$prefix" >"$prefix/log" 2>&1 || { cat "$prefix/log"; exit 1; }
for part in sbin/thermoclined bin/timing_mark include/thermocline/mark.h lib/thermocline/thermocline-timing.so; do
  [[ -e $prefix/$part ]] || { echo "$part is not installed"; exit 1; }
done
# The lab is looked at, nothing is booted; doctor's exit code tells of QEMU, which may not be here.
said=$("$prefix/bin/thermocline" lab doctor 2>&1) || true
if grep "plug-in.*is not there" <<<"$said"; then exit 1; fi
# Without the file the lab asks for it where it was installed, not in another folder.
rm "$prefix/lib/thermocline/thermocline-timing.so"
said=$("$prefix/bin/thermocline" lab doctor 2>&1) || true
grep -q "^ok *QEMU" <<<"$said" || exit 0
grep -qF "the timing model's plug-in $prefix/lib/thermocline/thermocline-timing.so is not there" <<<"$said" ||
  { echo "$said"; exit 1; }

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What is installed under any prefix finds its own parts there: the lab its timing plug-in, policies that are plug-ins
# the program that they run in.
set -euo pipefail
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
cmake --install "$2" --prefix "$prefix" >"$prefix/log" 2>&1 || { cat "$prefix/log"; exit 1; }
for part in sbin/thermoclined bin/timing_mark include/thermocline/mark.h lib/thermocline/thermocline-timing.so \
  include/thermocline/policy_abi.h lib/thermocline/thermocline-policy-host; do
  [[ -e $prefix/$part ]] || { echo "$part is not installed"; exit 1; }
done
umask 022
mkdir "$prefix/policies"
make -s -C "$1/docs/examples/policy-plugin" INCLUDE="$prefix/include/thermocline" OUT="$prefix/policies"
said=$("$prefix/bin/thermocline" policies --plugin-dir "$prefix/policies")
grep -q "^hottest  *the hottest pages" <<<"$said" || { echo "$said"; exit 1; }
rm "$prefix/lib/thermocline/thermocline-policy-host"
said=$("$prefix/bin/thermocline" policies --plugin-dir "$prefix/policies" | tr -s ' \n' ' ')
grep -qF "$prefix/lib/thermocline/thermocline-policy-host, in which policy plug-ins run, is not there" <<<"$said" ||
  { echo "$said"; exit 1; }
# The lab is looked at, nothing is booted; doctor's exit code tells of QEMU, which may not be here.
said=$("$prefix/bin/thermocline" lab doctor 2>&1) || true
if grep "plug-in.*is not there" <<<"$said"; then exit 1; fi
# Without the file the lab asks for it where it was installed, not in another folder.
rm "$prefix/lib/thermocline/thermocline-timing.so"
said=$("$prefix/bin/thermocline" lab doctor 2>&1) || true
grep -q "^ok *QEMU" <<<"$said" || exit 0
grep -qF "the timing model's plug-in $prefix/lib/thermocline/thermocline-timing.so is not there" <<<"$said" ||
  { echo "$said"; exit 1; }

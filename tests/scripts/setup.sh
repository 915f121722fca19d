#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# emulation/lab/setup.sh, when a step of unpacking a kernel fails in its own words: a sentence at the end, nothing half-done.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/cache"
stub() { # NAME SCRIPT
  printf '#!/bin/sh\n%s\n' "$2" >"$work/bin/$1"
  chmod +x "$work/bin/$1"
}
# shellcheck disable=SC2016 # the stubs expand them
{
  stub apt-get 'case "$*" in
    *indextargets*) echo "http://archive.invalid|bookworm|main|/dev/null:1" ;;
    *download*) : >kernel.deb ;;
  esac'
  stub apt-cache 'case "$*" in *pkgnames*) echo linux-image-6.12.1+deb12-amd64; echo linux-image-6.1.1-amd64 ;; esac'
  stub dpkg-deb 'mkdir -p "$3/lib/modules/6.12.1+deb12-amd64" "$3/usr/src"; echo /usr/src/linux-headers- >"$3/usr/src/Makefile"'
  stub depmod 'echo "depmod: ERROR: write: No space left on device" >&2; exit 1'
  stub qemu-system-x86_64 'echo "QEMU emulator version 10.0.0"'
  stub df 'printf "Filesystem blocks Used Available\nx 1 1 9999999\n"'
  stub id 'echo 0'
}
code=0
text=$(XDG_CACHE_HOME=$work/cache PATH=$work/bin:$PATH "$1/emulation/lab/setup.sh" 2>&1) || code=$?
[[ $code == 1 && $(tail -n 1 <<<"$text") == "setup: a step failed, see above; "*"free some space"* ]] || {
  echo "wanted exit code 1 and a sentence at the end, got $code: $text"
  exit 1
}
[[ $(find "$work/cache/thermocline/kernels" -mindepth 1) == "" ]] || { echo "something half-done stayed"; exit 1; }

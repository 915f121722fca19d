#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# emulation/lab/debug-kernel.sh with everything it calls replaced: an option that the kernel drops is named, a build that was cut off goes
# on, what is ready is not made again until the configuration changes, and the tests are run when asked for.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
lab=$work/tree/emulation/lab
kernel=$work/cache/thermocline/kernels/debug-6.12
mkdir -p "$lab" "$work/tree/tests/lab" "$work/bin" "$work/source/linux-source-6.12/"{scripts,include,arch/x86/include,arch/arm/{mm,crypto},tools/objtool}
cp "$1"/emulation/lab/{debug-kernel.sh,progress.sh,archive.sh} "$lab"
printf '# a comment\nCONFIG_A=y\nCONFIG_B="b"\n' >"$lab/debug-kernel.config"
for file in Makefile arch/x86/Makefile arch/arm/mm/init.c arch/arm/crypto/Kconfig scripts/a.o tools/objtool/objtool; do
  : >"$work/source/linux-source-6.12/$file"
done
tar -cJf "$work/source.tar.xz" -C "$work/source" linux-source-6.12
stub() { # FILE SCRIPT
  printf '#!/bin/sh\nwork=%s\n%s\n' "$work" "$2" >"$1"
  chmod +x "$1"
}
# shellcheck disable=SC2016 # the stubs expand them
{
  stub "$lab/setup.sh" 'mkdir -p "$work/cache/thermocline/kernels" "$work/cache/thermocline/apt"'
  stub "$work/tree/tests/lab/run" 'echo "run: $*"'
  stub "$work/bin/apt-get" 'case "$*" in
    *indextargets*) echo "http://archive.invalid|bookworm|main|/dev/null:1" ;;
    *download*) echo "$*" >>"$work/fetched"; : >source.deb ;;
  esac'
  stub "$work/bin/dpkg-deb" 'mkdir -p "$3/usr/src" && cp "$work/source.tar.xz" "$3/usr/src/linux-source-6.12.tar.xz"'
  stub "$work/bin/make" 'cd "$2" || exit 1
  case "$*" in
    *allnoconfig*) grep -v "$(cat "$work/dropped")" "$(echo "$*" | sed "s/.*ALLCONFIG=//")" >.config || : ;;
    *kernelrelease*) echo 6.12.1-debug ;;
    *vmlinux*) echo built >>"$work/builds"; [ ! -e "$work/fail" ] || exit 2
      for f in vmlinux Module.symvers modules.builtin; do echo "$f" >"$f"; done ;;
  esac'
  stub "$work/bin/cmake" 'echo "$*" >>"$work/cmakes"'
  stub "$work/bin/depmod" ':'
  stub "$work/bin/df" 'printf "Filesystem blocks Used Available\nx 1 1 9999999\n"'
}
run() { # EXIT-CODE TEXT ARGUMENTS...
  local wanted=$1 piece=$2 code=0 text
  shift 2
  text=$(XDG_CACHE_HOME=$work/cache PATH=$work/bin:$PATH "$lab/debug-kernel.sh" "$@" 2>&1) || code=$?
  [[ $code == "$wanted" && $text == *"$piece"* ]] || {
    echo "debug-kernel.sh $*: wanted exit code $wanted and '$piece', got $code: $text"
    exit 1
  }
}
lines() { wc -l 2>/dev/null <"$1" || echo 0; } # FILE

run 2 "unknown argument '7.0'" 7.0
echo CONFIG_B >"$work/dropped"
run 1 "CONFIG_B (not there)"
[[ ! -e $work/builds ]] || { echo "built with an option missing"; exit 1; }
echo CONFIG_NONE >"$work/dropped"
touch "$work/fail"
run 1 "it goes on"
[[ ! -e $kernel ]] || { echo "a kernel that could not be built is in place"; exit 1; }
[[ ! -e $work/cache/thermocline/debug/6.12/linux/arch/arm/mm/init.c ]] || { echo "the sources of other processors were unpacked"; exit 1; }
[[ -e $work/cache/thermocline/debug/6.12/linux/arch/arm/crypto/Kconfig ]] || { echo "the options of other processors, which Kconfig reads, were not unpacked"; exit 1; }
rm "$work/fail"
run 0 "is ready as 'debug-6.12'"
[[ $(lines "$work/fetched") == 1 && $(lines "$work/builds") == 2 ]] || { echo "the source was fetched again"; exit 1; }
[[ $(cat "$kernel/release") == 6.12.1-debug && -s $kernel/vmlinux && -e $kernel/lib/modules/6.12.1-debug/build/Module.symvers ]] || {
  echo "not in place:" && find "$kernel"
  exit 1
}
run 0 "is in place"
[[ $(lines "$work/builds") == 2 && $(tail -n 1 "$work/cmakes") == *"--target kmod" ]] || { echo "the kernel was built again"; exit 1; }
run 0 "run: --build build/dev --kernel debug-6.12 --soak" --soak
run 0 "run: --build build/dev --kernel debug-6.12" --test 6.12
echo CONFIG_C=y >>"$lab/debug-kernel.config"
run 0 "is ready as 'debug-6.12'"
[[ $(lines "$work/builds") == 3 ]] || { echo "another configuration was not built"; exit 1; }

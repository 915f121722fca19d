#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds a guest kernel that checks itself (KASAN, lockdep, kmemleak, ...: debug-kernel.config beside this file) from Debian's
# linux-source package, and thermocline.ko for it. The lab knows it as debug-6.12 then: thermocline lab run --kernel debug-6.12.
#
#   debug-kernel.sh [--test | --soak] [6.12 | 6.1]      default: 6.12
#
#   --test   then builds the tree and runs the module's tests there
#   --soak   the same in their long form
#
# The kernel is built once and kept in the cache beside the others (setup.sh), until its configuration
# changes. A build that was cut off goes on. Logs: debug/SERIES/*.log in the cache.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=emulation/lab/progress.sh
. "$here/progress.sh"
# shellcheck source=emulation/lab/archive.sh
. "$here/archive.sh" debug-kernel

readonly FORMAT=1 # of what is put in the cache; a higher number makes it be built again
readonly PRESET=dev

series=6.12 tests=0
tests_args=()
while [[ $# -gt 0 ]]; do
  case "$1" in
  6.12 | 6.1) series=$1 ;;
  --test) tests=1 ;;
  --soak) tests=1 tests_args=(--soak) ;;
  -h | --help)
    sed -n '3,13s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
  *)
    echo "debug-kernel: unknown argument '$1'; use --test or --soak, and 6.12 or 6.1" >&2
    exit 2
    ;;
  esac
  shift
done
name=debug-$series
config=$here/debug-kernel.config
target=$cache/kernels/$name
work=$cache/debug/$series
tree=$work/linux
stamp="$FORMAT $(sha256sum "$config" | cut -c 1-16)"

kernel_is_good() { [[ $(cat "$target/format" 2>/dev/null) == "$stamp" && -s $target/vmlinux ]]; }

show_end() { # LOG
  tail -n 15 "$1" | sed 's/^/  | /' >&2
}

# Of the sources of 1.6 GB, those of other processors and of devices that no guest has stay packed.
unpack_source() {
  local start archive top=linux-source-$series
  start=$(now)
  rm -rf "$work"
  mkdir -p "$work/deb"
  exec 8>"$cache/.setup.lock" # the package lists are set-up's as well
  flock 8
  update_lists
  say "fetching the source of Linux $series ..."
  download "linux-source-$series" "$work/deb" "linux-source-$series"
  exec 8>&-
  say "unpacking it ..."
  run_logged "unpacking" "$work/unpack.log" dpkg-deb -x "$work"/deb/*.deb "$work/deb" || {
    show_end "$work/unpack.log"
    die "can't unpack the package of the source; is $cache full?"
  }
  archive=$work/deb/usr/src/$top.tar.xz
  mkdir "$work/half"
  # Of other architectures only what describes their options: crypto/Kconfig names those files.
  run_logged "unpacking" "$work/unpack.log" tar -xf "$archive" -C "$work/half" --strip-components=1 --anchored --wildcards \
    --exclude="$top/arch/[!x]*.[chS]" --exclude="$top/arch/[!x]*/boot/*" --exclude="$top/arch/[!x]*/configs/*" \
    --exclude="$top/arch/xtensa/*.[chS]" --exclude="$top/Documentation/*/*" --exclude="$top/tools/testing" \
    --exclude="$top/drivers/gpu/*.[ch]" --exclude="$top/drivers/net/*.[ch]" --exclude="$top/drivers/media/*.[ch]" \
    --exclude="$top/drivers/staging/*.[ch]" --exclude="$top/sound/*.[ch]" || {
    show_end "$work/unpack.log"
    die "can't unpack the source; is $cache full?"
  }
  mv "$work/half" "$tree"
  rm -rf "$work/deb"
  say "the source is there, $(since "$start")"
}

in_tree() { env -u MAKEFLAGS -u MFLAGS make -C "$tree" KBUILD_BUILD_USER=thermocline KBUILD_BUILD_HOST=lab "$@"; }

# Whatever the options need is set by Kconfig; what it did not take is an error.
configure() {
  local line option missing=()
  run_logged "configuring" "$work/configure.log" in_tree allnoconfig KCONFIG_ALLCONFIG="$config" || {
    show_end "$work/configure.log"
    die "the kernel can't be configured (log: $work/configure.log)"
  }
  while read -r line; do
    option=${line%%=*}
    grep -qxF -- "$line" "$tree/.config" || missing+=("$option ($(grep -E "^$option=|^# $option " "$tree/.config" || echo "not there"))")
  done < <(grep '^CONFIG_' "$config")
  [[ ${#missing[@]} == 0 ]] || {
    printf '  %s\n' "${missing[@]}" >&2
    die "Linux $series does not take ${#missing[@]} of the options in $config, see above"
  }
}

compile() {
  local start
  start=$(now)
  say "building the kernel ..."
  run_logged "building" "$work/build.log" in_tree -j "$(nproc)" vmlinux modules || {
    show_end "$work/build.log"
    die "the kernel can't be built (log: $work/build.log); when that is mended, run again: it goes on"
  }
  say "the kernel is built, $(since "$start")"
}

# What a guest and a module for it need, laid out as setup.sh lays out Debian's: the image, lib/modules/RELEASE and the headers.
put_in_place() {
  local release headers new=$work/new
  release=$(in_tree -s kernelrelease)
  headers=$new/usr/src/linux-headers-$release
  rm -rf "$new"
  mkdir -p "$headers/arch/x86" "$headers/tools/objtool" "$new/lib/modules/$release"
  cp "$tree/vmlinux" "$new/vmlinux"
  cp -r "$tree"/{Makefile,.config,Module.symvers,scripts,include} "$headers"
  cp -r "$tree"/arch/x86/{include,Makefile*} "$headers/arch/x86"
  cp "$tree/tools/objtool/objtool" "$headers/tools/objtool"
  find "$headers" -name '*.o' -delete
  ln -s "../../../usr/src/${headers##*/}" "$new/lib/modules/$release/build"
  cp "$tree"/modules.builtin* "$new/lib/modules/$release"
  : >"$new/lib/modules/$release/modules.order"
  depmod -b "$new" "$release"
  echo "$release" >"$new/release"
  echo "$stamp" >"$new/format"
  rm -rf "$target"
  mv "$new" "$target"
}

# Whatever ends the script early: the last line says what to do. The work folder stays, a second run goes on from there.
at_exit() {
  local code=$?
  [[ $code == 0 || $code -gt 128 || $said == 1 ]] ||
    printf 'debug-kernel: a step failed, see above; %s has %s MiB free: if that is little, free some space, then run again\n' \
      "$cache" "$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')" >&2
}

begin=$(now)
end_on_signals debug-kernel
trap at_exit EXIT
if kernel_is_good; then
  say "the kernel $name is in place"
else
  run_apart "$here/setup.sh" || die "the set-up failed, see above"
  exec 9>"$cache/.debug-kernel.lock"
  flock -n 9 || { say "another build is running; waiting for it ..." && flock 9; }
fi
if ! kernel_is_good; then
  free_kib=$(df -Pk "$cache" | awk 'NR == 2 { print $4 }')
  [[ $free_kib -ge $((4 * 1024 * 1024)) ]] ||
    die "$cache has only $((free_kib / 1024)) MiB free; building the kernel needs 4 GiB: free some space or point XDG_CACHE_HOME elsewhere"
  [[ -d $tree ]] || unpack_source
  configure
  compile
  put_in_place
  rm -rf "$tree"
  say "kernel $(cat "$target/release") is ready as '$name' ($(du -sh "$target" | cut -f 1)), $(since "$begin")"
fi
exec 9>&-

step() { # NAME COMMAND...
  run_logged "$1" "$work/$1.log" "${@:2}" || {
    show_end "$work/$1.log"
    die "$1 failed (log: $work/$1.log)"
  }
}
cd "$root"
what=(--target kmod)
[[ $tests == 0 ]] || what=()
mkdir -p "$work"
step configure cmake --preset "$PRESET"
step build cmake --build --preset "$PRESET" -j "$(nproc)" "${what[@]}"
say "thermocline.ko is built for it"
[[ $tests == 0 ]] || run_apart tests/lab/run --build "build/$PRESET" --kernel "$name" "${tests_args[@]}"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets a Debian 12 machine up for building, testing and the lab. Called by ./test and ./demo; run by hand too.
#
#   setup.sh            do what is missing, say what each step does and how long it took
#   setup.sh --check    only say what is missing; exit 1 if anything is
#
# 1. packages   build tools, libraries, QEMU (from the backports suite): apt installs those that are missing
# 2. kernels    6.12 (backports) and 6.1 (stable) with headers, *unpacked into the cache*, never installed:
#               the machine's own boot set-up isn't touched
#
# The archive is the one this machine's apt already uses, plus its backports suite; both are read through
# lists of our own in the cache, so the machine's apt configuration stays as it is.
# A second run finds everything in place, does nothing and needs no network.
#
# The cache is ${XDG_CACHE_HOME:-$HOME/.cache}/thermocline:
#   kernels/NAME/          release (text), vmlinux, lib/modules/RELEASE (with "build" -> usr/src/...), usr/
#   programs/              programs for guests: redis-server, memcached, sqlite3
#   apt/                   our own package lists and downloads
set -euo pipefail
# shellcheck source=emulation/lab/progress.sh
. "$(dirname "$0")/progress.sh"
# shellcheck source=emulation/lab/archive.sh
. "$(dirname "$0")/archive.sh" setup

readonly KERNELS=(6.12 6.1)
readonly PROGRAMS=(redis-server memcached sqlite3)
readonly FORMAT=3 # of a kernels/NAME folder; a higher number makes old ones be unpacked again

PACKAGES=(
  build-essential gcc-12 cmake ninja-build ccache pkg-config git
  libnuma-dev liburing-dev libhwloc-dev libzstd-dev libxxhash-dev libgtest-dev libgmock-dev libbenchmark-dev
  libexpected-dev libfmt-dev libcli11-dev libtomlplusplus-dev nlohmann-json3-dev
  clang libclang-rt-14-dev clang-format clang-tidy sparse shellcheck codespell mandoc scdoc
  busybox-static procps kmod xz-utils zstd lz4 numactl
  redis-tools sqlite3 libevent-2.1-7 libsasl2-2
  libelf-dev libbpf-dev bc flex bison libssl-dev file python3
)
readonly PACKAGES
readonly QEMU_PACKAGE=qemu-system-x86 QEMU_MIN=9

check_only=0
case "${1-}" in
"") ;;
--check) check_only=1 ;;
-h | --help)
  sed -n '3,21s/^# \{0,1\}//p' "$0"
  exit 0
  ;;
*)
  echo "setup: unknown argument '$1'; use --check or nothing" >&2
  exit 2
  ;;
esac

# --- what is missing ---------------------------------------------------------------------------------

missing_packages() {
  local name
  declare -A have=()
  while read -r name; do have["${name%%:*}"]=1; done < <(
    dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | awk '$1 == "ii" { print $2 }')
  for name in "${PACKAGES[@]}"; do
    [[ -n ${have[$name]-} ]] || echo "$name"
  done
}

qemu_is_good() {
  local version
  version=$(qemu-system-x86_64 --version 2>/dev/null | sed -n '1s/.*version \([0-9]*\)\..*/\1/p')
  [[ -n $version && $version -ge $QEMU_MIN ]]
}

kernel_is_good() { # NAME
  [[ $(cat "$cache/kernels/$1/format" 2>/dev/null) == "$FORMAT" && -s $cache/kernels/$1/vmlinux ]]
}

program_is_good() { [[ -x $cache/programs/$1 ]]; } # NAME

# --- the steps ----------------------------------------------------------------------------------------

need_root() {
  [[ $(id -u) == 0 ]] || die "$1 must be installed, which needs root; run this once as root (sudo $0)"
}

install_packages() { # what apt target...
  local what=$1 start log
  shift
  start=$(now)
  log="$apt_dir/install.log"
  say "installing $what ..."
  export DEBIAN_FRONTEND=noninteractive
  run_logged "$what" "$log" apt-get "${APT[@]}" install -y --no-install-recommends "$@" || {
    tail -n 15 "$log" >&2
    die "apt could not install $what; the lines above say why (log: $log); mend that and run again"
  }
  say "$what installed in $(since "$start")"
}

# Debian's vmlinuz is a bzImage around a compressed ELF image. QEMU boots that ELF image directly (PVH),
# which saves the emulated decompression. Offsets: Documentation/arch/x86/boot.rst, protocol 2.08.
extract_vmlinux() { # VMLINUZ OUT
  local sectors offset length magic
  sectors=$(od -An -tu1 -j 497 -N 1 "$1" | tr -d ' ')
  offset=$(od -An -tu4 -j 584 -N 4 "$1" | tr -d ' ')
  length=$(od -An -tu4 -j 588 -N 4 "$1" | tr -d ' ')
  offset=$((offset + (sectors + 1) * 512))
  magic=$(od -An -tx1 -j "$offset" -N 4 "$1" | tr -d ' ')
  # The last 4 bytes of the payload are its uncompressed size, not part of the stream.
  length=$((length - 4))
  payload() { dd if="$1" bs=1M iflag=skip_bytes,count_bytes skip="$offset" count="$length" status=none; }
  case "$magic" in
  fd377a58) payload "$1" | xz -dc >"$2" ;;
  28b52ffd) payload "$1" | zstd -dcq >"$2" ;;
  1f8b*) payload "$1" | gzip -dc >"$2" ;;
  02214c18) payload "$1" | lz4 -dcq >"$2" ;;
  *) die "the kernel image $1 is compressed in a way this script doesn't know (magic $magic)" ;;
  esac
  [[ $(head -c 4 "$2" | od -An -tx1 | tr -d ' ') == 7f454c46 ]] ||
    die "what was found in $1 is not an ELF image"
}

# Newest image package of a kernel series, e.g. 6.12 -> linux-image-6.12.95+deb12-amd64.
newest_image() { # SERIES
  apt-cache "${APT[@]}" pkgnames "linux-image-$1." 2>"$apt_dir/cache.log" |
    grep -E "^linux-image-${1//./\\.}\.[0-9.]+([-+][0-9a-z.+]+)?-amd64\$" | sort -V | tail -n 1
}

unpack_kernel() { # SERIES
  local series=$1 start image release headers work deb target
  local -a wanted debs
  start=$(now)
  image=$(newest_image "$series") || true
  [[ -n $image ]] || die "the archive has no kernel $series; is its backports suite complete?"
  release=${image#linux-image-}
  headers=linux-headers-$release
  mapfile -t wanted < <(apt-cache "${APT[@]}" depends "$headers" 2>"$apt_dir/cache.log" |
    sed -n 's/^ *Depends: \(linux-\(headers\|kbuild\)-.*\)$/\1/p')
  say "fetching kernel $release and its headers ..."
  work="$cache/kernels/.work-$series"
  rm -rf "$work"
  mkdir -p "$work/tree"
  download "kernel $release" "$work/debs" "$image" "$headers" "${wanted[@]}"
  say "unpacking kernel $release ..."
  debs=("$work"/debs/*.deb)
  for deb in "${debs[@]}"; do
    dpkg-deb -x "$deb" "$work/tree" || {
      rm -rf "$work"
      die "can't unpack $(basename "$deb"); is $cache full?"
    }
  done
  rm -rf "$work/debs" "$work/tree/usr/share"
  # On a machine with merged /usr the image's modules may come as usr/lib/modules.
  [[ -d $work/tree/lib/modules ]] || { mkdir -p "$work/tree/lib" && mv "$work/tree/usr/lib/modules" "$work/tree/lib/modules"; }
  # The headers name each other by absolute path; here they live in the cache.
  target="$cache/kernels/$series"
  grep -rlI --include=Makefile --include='*.mk' "/usr/src/linux-headers-" "$work/tree/usr/src" |
    xargs -r sed -i "s#/usr/src/linux-headers-#$target/usr/src/linux-headers-#g"
  find "$work/tree/usr/src" "$work/tree/lib/modules" -type l | while read -r link; do
    local to
    to=$(readlink "$link")
    if [[ $to == /* ]]; then ln -sfn "$target$to" "$link"; fi
  done
  rm -f "$work/tree/lib/modules/$release/build" "$work/tree/lib/modules/$release/source"
  ln -s "../../../usr/src/$headers" "$work/tree/lib/modules/$release/build"
  depmod -b "$work/tree" "$release"
  extract_vmlinux "$work/tree/boot/vmlinuz-$release" "$work/tree/vmlinux"
  echo "$release" >"$work/tree/release"
  echo "$FORMAT" >"$work/tree/format"
  rm -rf "$target"
  mv "$work/tree" "$target"
  rm -rf "$work"
  say "kernel $release is ready as '$series' ($(du -sh "$target" | cut -f 1)), $(since "$start")"
}

link_program() { # NAME PROGRAM PACKAGE
  [[ -x $2 ]] || die "$3 is installed but $2 is missing"
  mkdir -p "$cache/programs"
  ln -sfn "$2" "$cache/programs/$1"
}

# Debian's redis-server package starts a service when it is installed. The same program is part of
# redis-tools, which does not: it acts as the server unless it is called by another name.
link_redis() { link_program redis-server /usr/bin/redis-check-rdb redis-tools; }

# memcached's package starts a service as well, and no other package has the program: it is unpacked, not installed. Its
# libraries are among PACKAGES.
unpack_memcached() {
  local work="$cache/programs/.work"
  rm -rf "$work"
  say "fetching memcached ..."
  download memcached "$work" memcached
  dpkg-deb -x "$work"/memcached_*.deb "$work" || die "can't unpack memcached; is $cache full?"
  mv "$work/usr/bin/memcached" "$cache/programs/memcached"
  rm -rf "$work"
}

# --- main ---------------------------------------------------------------------------------------------

mapfile -t absent < <(missing_packages)
todo=()
[[ ${#absent[@]} == 0 ]] || todo+=("packages: ${absent[*]}")
qemu_is_good || todo+=("QEMU $QEMU_MIN or later")
for series in "${KERNELS[@]}"; do
  kernel_is_good "$series" || todo+=("guest kernel $series")
done
for program in "${PROGRAMS[@]}"; do
  program_is_good "$program" || todo+=("$program for guests")
done

if [[ $check_only == 1 ]]; then
  [[ ${#todo[@]} == 0 ]] && say "nothing is missing" && exit 0
  for item in "${todo[@]}"; do say "missing: $item"; done
  exit 1
fi
if [[ ${#todo[@]} == 0 ]]; then
  say "everything is in place"
  exit 0
fi

# Whatever ends the script early: no half-unpacked kernel stays behind, and the last line says what to do. Most commands
# report a full disk each in their own words.
at_exit() {
  local code=$?
  rm -rf "$cache"/kernels/.work-* "$cache/programs/.work"
  [[ $code == 0 || $code -gt 128 || $said == 1 ]] ||
    printf 'setup: a step failed, see above; %s has %s MiB free: if that is little, free some space, then run again\n' \
      "$cache" "$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')" >&2
}

begin=$(now)
end_on_signals setup
mkdir -p "$apt_dir" "$cache/kernels" 2>/dev/null ||
  die "can't write to $cache; set XDG_CACHE_HOME to a folder that can be written"
exec 9>"$cache/.setup.lock"
flock -n 9 || { say "another set-up is running; waiting for it ..." && flock 9; }
trap at_exit EXIT # only now: before, the half-done work may be another set-up's
free_kib=$(df -Pk "$cache" | awk 'NR == 2 { print $4 }')
[[ $free_kib -ge $((3 * 1024 * 1024)) ]] ||
  die "$cache has only $((free_kib / 1024)) MiB free; set-up needs 3 GiB: free some space or point XDG_CACHE_HOME elsewhere"

mapfile -t absent < <(missing_packages)
if [[ ${#absent[@]} != 0 ]]; then
  need_root "${#absent[@]} packages (${absent[*]})"
  update_lists
  install_packages "${#absent[@]} packages" "${absent[@]}"
fi
if ! qemu_is_good; then
  need_root "QEMU"
  update_lists
  install_packages QEMU -t bookworm-backports "$QEMU_PACKAGE"
  qemu_is_good || die "QEMU is installed, but is older than $QEMU_MIN; the backports suite should have version 10"
fi
for series in "${KERNELS[@]}"; do
  kernel_is_good "$series" && continue
  update_lists
  unpack_kernel "$series"
done
program_is_good redis-server || link_redis
program_is_good sqlite3 || link_program sqlite3 /usr/bin/sqlite3 sqlite3
if ! program_is_good memcached; then
  update_lists
  unpack_memcached
fi
rm -rf "$apt_dir/cache"
say "set-up finished in $(since "$begin")"

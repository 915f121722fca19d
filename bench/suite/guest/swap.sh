# SPDX-License-Identifier: Apache-2.0
# A cell of the benchmark suite with swap below both nodes, run in a guest (busybox sh):
#   sh swap.sh SLOW-KIB ARGUMENTS-OF-CELL.SH...
# Programs find SLOW-KIB KiB on the slow node: what is more goes into a pool of huge pages that nobody uses. Swap is a
# block device of persistent memory: as fast as the slow node, so what swapping costs is the kernel's work and a copy.
# shellcheck shell=dash
set -eu
fail() {
  echo "swap: $*" >&2
  exit 1
}
wanted=$1
shift
pool=/sys/devices/system/node/node$TC_SLOW_NODE/hugepages/hugepages-2048kB/nr_hugepages
[ -b /dev/pmem0 ] || fail "there is no persistent memory to swap to"
mkswap /dev/pmem0 >/dev/null
swapon /dev/pmem0
sleep 1 # the kernel's work after boot
echo 1 >/proc/sys/vm/compact_memory
free=$(awk '$3 == "MemFree:" { print $4 }' "/sys/devices/system/node/node$TC_SLOW_NODE/meminfo")
[ "$free" -ge "$wanted" ] || fail "the slow node has $free KiB free, less than the $wanted wanted"
pages=$(((free - wanted) / 2048))
echo "$pages" >"$pool"
[ "$(cat "$pool")" -eq "$pages" ] || fail "$pages huge pages wanted, $(cat "$pool") made"
. "$(dirname "$0")/cell.sh" "$@"

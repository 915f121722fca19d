# SPDX-License-Identifier: Apache-2.0
# A cell of the benchmark suite, run in a guest (busybox sh): one workload under one tiering system.
#   sh cell.sh SYSTEM POLICY DELAY-MS FAST-KIB WORKLOAD ARGUMENTS...
# SYSTEM is a file SYSTEM.sh beside this one, which defines system_start and system_stop (and may define system_prepare, for
# before the workload is there, and system_before, for right before the run), or one that needs none:
# first-touch, all-fast (the fast node has room for all), all-slow, interleave. "probe" only tells how much fast memory
# there is. DELAY-MS passes between the start of the system and the run. Of the fast node just FAST-KIB are left free ("-":
# as much as there is): two boots of one node differ by up to 3 MiB.
# What was found out goes to standard output between lines "=== NAME" and the next such line.
# shellcheck shell=dash
set -eu
here=$(dirname "$0")
system=$1
POLICY=$2
delay_ms=$3
fast_kib=$4
shift 4

fail() {
  echo "cell: $*" >&2
  exit 1
}
await() { # SECONDS WHAT COMMAND...
  await_left=$(($1 * 50)) await_what=$2
  shift 2
  until "$@"; do
    [ "$((await_left -= 1))" -gt 0 ] || fail "waited too long for $await_what"
    usleep 20000
  done
}
free_bytes() { # what a program gets of the fast node before the kernel looks elsewhere, and what lies on the lists of CPUs
  awk -v node="$TC_FAST_NODE" '
    /^Node/ { here = ($2 == node ",") }
    here && $1 == "pages" && $2 == "free" { free = $3 }
    here && $1 == "low" { if (free > $2) sum += free - $2; free = 0 }
    here && $1 == "count:" { sum += $2 }
    END { printf "%.0f\n", sum * 4096 }' /proc/zoneinfo
}
# What is too much of the fast node goes into pipes: memory of the kernel, which reclaim never looks at and which leaves
# watermarks as they are.
leave_fast() { # KIB
  held() { [ -e /tmp/held ]; }
  cell_pages launch --bind "$TC_SLOW_NODE" -- cell_pages hold --node "$TC_FAST_NODE" --leave "$1" --ready-file /tmp/held &
  await 30 "memory to be held" held
  read -r fast_bytes </tmp/held # awk has memory itself
  surplus=$((fast_bytes / 1024 - $1))
  [ "$surplus" -le 64 ] || fail "$surplus KiB too much of the fast node stay free"
  [ "$surplus" -ge -64 ] || {
    echo "cell: after this boot the fast node has $((-surplus)) KiB too little free" >&2
    exit 75 # a larger node may do
  }
}
counters() {
  grep -E '^(pgpromote|pgdemote|pgmigrate|numa_|pgscan_kswapd|pgsteal_kswapd|thp_split_page |thp_migration)' /proc/vmstat
}
begin() { echo "=== $1"; }

system_prepare() { :; }
system_start() { :; }
system_before() { :; }
system_stop() { :; }
launcher=
case $system in
first-touch | all-fast | probe) ;;
all-slow) launcher="cell_pages launch --bind $TC_SLOW_NODE --" ;;
interleave) launcher="cell_pages launch --interleave $TC_FAST_NODE,$TC_SLOW_NODE --" ;;
*)
  [ -f "$here/$system.sh" ] || fail "there is no system $system"
  . "$here/$system.sh"
  ;;
esac

# The kernel's own tiering is off until a system switches it on. No huge pages but for a workload that asks: with them
# on, the kernel keeps 5 % of a small machine free.
echo madvise >/sys/kernel/mm/transparent_hugepage/enabled
echo 0 >/sys/kernel/mm/transparent_hugepage/khugepaged/defrag
echo 0 >/proc/sys/kernel/numa_balancing
echo 0 >/sys/kernel/mm/numa/demotion_enabled
echo 2048 >/proc/sys/vm/min_free_kbytes
echo 0 >/proc/sys/vm/watermark_boost_factor
sleep 3 # the kernel's work after boot
fast_bytes=$(free_bytes)
[ "$fast_kib" = - ] || leave_fast "$fast_kib"
begin start
echo "fast_bytes $fast_bytes"
[ "$system" != probe ] || exit 0
# With a processor to spare, it is the system's: the workload, and a server with its client, stay on the first.
[ "$(nproc)" -eq 1 ] || launcher="taskset 1 $launcher"

system_prepare
# shellcheck disable=SC2086 # the launcher is words
$launcher workload run "$@" --json /tmp/workload.json --ready-file /tmp/ready --wait-file /tmp/go >/tmp/workload.log 2>&1 &
workload=$!
filled() { [ -e /tmp/ready ] || ! kill -0 "$workload" 2>/dev/null; }
await 600 "the workload to fill its memory" filled
[ -e /tmp/ready ] || {
  cat /tmp/workload.log
  fail "the workload ended before it was ready"
}
# The process whose memory it is: the workload itself, or the server that it drives.
read -r TARGET _ </tmp/ready || TARGET=$workload
[ -n "$TARGET" ] || TARGET=$workload
echo "target $TARGET"
system_start
usleep "$((delay_ms * 1000))"
begin system-before
system_before
begin before
counters
begin run
touch /tmp/go
code=0
wait "$workload" || code=$?
begin after
echo "code $code"
counters
begin workload
cat /tmp/workload.json 2>/dev/null || cat /tmp/workload.log
begin system
system_stop
begin end
exit "$code"

# SPDX-License-Identifier: Apache-2.0
# What every lab test has at hand in the guest (busybox sh). The body runs under `set -eu`.
# shellcheck shell=sh

fail() {
  echo "FAIL: $*"
  exit 1
}

# Ends the test as skipped; the reason is shown in the summary.
skip() {
  echo "SKIP: $*"
  exit 77
}

equal() { # WHAT WANTED GOT
  [ "$2" = "$3" ] || fail "$1: wanted '$2', got '$3'"
}

at_least() { # WHAT LIMIT GOT (whole numbers)
  [ "$3" -ge "$2" ] || fail "$1: wanted at least $2, got $3"
}

# Runs a command every 0.2 s until it succeeds; fails after SECONDS.
wait_until() { # SECONDS WHAT COMMAND...
  wait_left=$(($1 * 5))
  wait_what=$2
  shift 2
  until "$@"; do
    wait_left=$((wait_left - 1))
    [ "$wait_left" -gt 0 ] || fail "$wait_what did not happen in time"
    usleep 200000
  done
}

# The kernel's memory tiers, fastest first, as node lists with blanks between: "0 1".
tiers() {
  for tier in $(cd /sys/devices/virtual/memory_tiering && echo memory_tier* | tr ' ' '\n' |
    sed 's/memory_tier//' | sort -n); do
    cat "/sys/devices/virtual/memory_tiering/memory_tier$tier/nodelist"
  done | tr '\n' ' ' | sed 's/ $//'
}

# In the debug kernel: nothing was allocated since mark_leaks that nobody knows of any more (an object has to be 5 s old), and
# lockdep has not given up meanwhile.
mark_leaks() {
  [ -e /sys/kernel/debug/kmemleak ] || return 0
  echo scan=off >/sys/kernel/debug/kmemleak # what it does by itself only takes time
  echo clear >/sys/kernel/debug/kmemleak
}
no_leaks() {
  [ -e /sys/kernel/debug/kmemleak ] || return 0
  grep -Eq '^ *debug_locks: *1$' /proc/lockdep_stats || fail "lockdep has given up"
  for _ in 1 2; do
    sleep 6
    echo scan >/sys/kernel/debug/kmemleak || fail "kmemleak has given up"
  done
  leaks=$(cat /sys/kernel/debug/kmemleak)
  [ -z "$leaks" ] || fail "leaked: $leaks"
}

load_module() { insmod /lib/thermocline/thermocline.ko "$@"; }

# A counter of /proc/vmstat.
vmstat() { awk -v name="$1" '$1 == name { print $2 }' /proc/vmstat; }

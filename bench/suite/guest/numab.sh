# SPDX-License-Identifier: Apache-2.0
# The kernel's own tiering: NUMA balancing's hint faults promote, reclaim demotes.
# default: the kernel's settings. tuned: for a small and therefore hot guest: a page counts as hot when it is touched within 50 ms of its
# scan (default 1 s), all of memory is scanned every 20 to 200 ms (default 1 to 60 s), at most 256 MB/s are promoted (default: no limit).
# Tried on chase, gups-moving and ycsb-b at 1:4: thresholds of 20 ms (2 % faster on ycsb-b, 15 and 3 % slower on the others) and 100 ms (slower on
# all); periods of 100 to 1000 ms (slower on chase). The defaults can beat this set; whichever is faster counts.
# shellcheck shell=dash
# A process takes its first scan period when it is made, so the periods are set before.
system_prepare() {
  if [ "$POLICY" = tuned ]; then
    debug=/sys/kernel/debug/sched/numa_balancing
    echo 50 >$debug/hot_threshold_ms
    echo 20 >$debug/scan_delay_ms
    echo 20 >$debug/scan_period_min_ms
    echo 200 >$debug/scan_period_max_ms
    echo 256 >/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps
  fi
}
system_start() {
  echo 1 >/sys/kernel/mm/numa/demotion_enabled
  echo 2 >/proc/sys/kernel/numa_balancing
}
system_stop() {
  echo 0 >/proc/sys/kernel/numa_balancing
  echo 0 >/sys/kernel/mm/numa/demotion_enabled
}

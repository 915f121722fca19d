# SPDX-License-Identifier: Apache-2.0
# The kernel's own tiering: NUMA balancing's hint faults promote, reclaim demotes.
# default: the kernel's settings. tuned: for a small and therefore hot guest: a page counts as hot when it is touched within 50 ms of its
# scan (default 1 s), all of memory is scanned every 20 to 200 ms (default 1 to 60 s), at most 256 MB/s are promoted (default: no limit).
# roomy: so, but hot when touched within 20 ms, and with watermarks of 1 % of the node (watermark_scale_factor 100; default 0.1 %), so that kswapd makes room for
# promotions sooner: beside tuned 67 % faster on scan-then-loop, 2 % on ycsb-b, 17 and 20 % slower on chase and gups-moving, as less memory is used.
# Tried on chase, gups-moving, ycsb-b and scan-then-loop at 1:4, in per cent of the speed of tuned, in this order: a threshold of 10 ms 64, 82, 100, 124;
# with periods of 100 to 1000 ms as well 63, 81, 100, 116; 50 ms and watermarks of 0.3 % 97, 85, 100, 116; of 2 % 88, 81, 98, 156. Without the fourth: thresholds of
# 20 ms (2 % faster on ycsb-b, 15 and 3 % slower on the others) and 100 ms (slower on all). The defaults can beat these sets; whichever is faster counts.
# shellcheck shell=dash
# A process takes its first scan period when it is made, so the periods are set before.
system_prepare() {
  if [ "$POLICY" != default ]; then
    hot_ms=50
    if [ "$POLICY" = roomy ]; then
      hot_ms=20
      echo 100 >/proc/sys/vm/watermark_scale_factor
    fi
    debug=/sys/kernel/debug/sched/numa_balancing
    echo "$hot_ms" >$debug/hot_threshold_ms
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

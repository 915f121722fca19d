# SPDX-License-Identifier: Apache-2.0
# DAMON's two-kdamond recipe, after HMSDK's capacity expansion: one watches the slow node and migrates what is hot to the fast
# one, the other watches the fast node and migrates what is cold to the slow one. Physical addresses.
# default: DAMON's intervals (5 ms, 100 ms, 1 s), 10 to 1000 regions, no demotion by reclaim.
# tuned: each way at most 16 MB/s, what is accessed most (or least) first; reclaim demotes, with watermarks of 3 % of the node:
# without it a full fast node lets nothing in, as migrate_cold finds few regions without any access.
# young: so, but as HMSDK's and damo's own recipes filter: of a hot region only pages whose accessed bit is set are promoted, of a cold one only
# others are demoted; each way at most 64 MB/s, at least 100 regions.
# Tried on chase, gups-moving and ycsb-b at 1:4: 64 MB/s with at least 100 regions (5 % faster on chase, 11 and 9 % slower on the others), 256 MB/s
# (slower on all), 16 MB/s with at least 100 regions (slower on all); on chase alone no quota (it moves without end), intervals of 1 and
# 2 ms (they find more, but cost more than that brings), smaller watermarks. With filters, and scan-then-loop beside those, in per cent of the speed of tuned, in
# this order: 16 MB/s and 10 regions 69, 97, 104, 108; 64 MB/s and 10 regions 75, 89, 95, 123; young as it is here 85, 86, 95, 126; intervals of
# 1, 20 and 200 ms with the first 77, 77, 97, 96.
# shellcheck shell=dash
DAMON=/sys/kernel/mm/damon/admin/kdamonds
node_range() { # NODE: first and last address of its memory
  awk -v node="$1" '
    /^Node/ { here = ($2 == node ","); zone = $4 }
    here && $1 == "spanned" { spanned = $2 }
    here && $1 == "present" { present = $2 }
    here && $1 == "start_pfn:" && present > 0 {
      if (!any || $2 < first) first = $2
      if ($2 + spanned > last) last = $2 + spanned
      any = 1
      present = 0
    }
    END { printf "%.0f %.0f\n", first * 4096, last * 4096 }' /proc/zoneinfo
}
kdamond() { # INDEX NODE ACTION TARGET-NODE LEAST-ACCESSES MOST-ACCESSES LEAST-AGE
  dir=$DAMON/$1/contexts
  echo 1 >"$dir/nr_contexts"
  dir=$dir/0
  echo paddr >"$dir/operations"
  echo 5000 >"$dir/monitoring_attrs/intervals/sample_us"
  echo 100000 >"$dir/monitoring_attrs/intervals/aggr_us"
  echo 1000000 >"$dir/monitoring_attrs/intervals/update_us"
  echo "$regions" >"$dir/monitoring_attrs/nr_regions/min"
  echo 1000 >"$dir/monitoring_attrs/nr_regions/max"
  echo 1 >"$dir/targets/nr_targets"
  echo 1 >"$dir/targets/0/regions/nr_regions"
  # shellcheck disable=SC2046 # two words
  set -- "$@" $(node_range "$2")
  echo "$8" >"$dir/targets/0/regions/0/start"
  echo "$9" >"$dir/targets/0/regions/0/end"
  echo 1 >"$dir/schemes/nr_schemes"
  dir=$dir/schemes/0
  echo "$3" >"$dir/action"
  echo "$4" >"$dir/target_nid"
  if [ -n "$quota" ]; then
    echo "$quota" >"$dir/quotas/bytes"
    echo 100 >"$dir/quotas/reset_interval_ms"
    echo 0 >"$dir/quotas/weights/sz_permil"
    echo 700 >"$dir/quotas/weights/nr_accesses_permil"
    echo 300 >"$dir/quotas/weights/age_permil"
  fi
  # What matches is left out: pages that are not young, or those that are.
  if [ "$POLICY" = young ]; then
    echo 1 >"$dir/filters/nr_filters"
    echo young >"$dir/filters/0/type"
    matching=N
    [ "$3" = migrate_hot ] || matching=Y
    echo "$matching" >"$dir/filters/0/matching"
  fi
  pattern=$dir/access_pattern
  echo 4096 >"$pattern/sz/min"
  echo 18446744073709551615 >"$pattern/sz/max"
  echo "$5" >"$pattern/nr_accesses/min"
  echo "$6" >"$pattern/nr_accesses/max"
  echo "$7" >"$pattern/age/min"
  echo 4294967295 >"$pattern/age/max"
}
system_start() {
  quota=
  regions=10
  if [ "$POLICY" != default ]; then
    quota=1677721
    [ "$POLICY" = tuned ] || quota=6710886 regions=100
    echo 300 >/proc/sys/vm/watermark_scale_factor
    echo 1 >/sys/kernel/mm/numa/demotion_enabled
  fi
  echo 2 >$DAMON/nr_kdamonds
  kdamond 0 "$TC_SLOW_NODE" migrate_hot "$TC_FAST_NODE" 1 4294967295 0
  kdamond 1 "$TC_FAST_NODE" migrate_cold "$TC_SLOW_NODE" 0 0 1
  for k in 0 1; do
    echo on >$DAMON/$k/state
  done
}
system_stop() {
  for k in 0 1; do
    echo update_schemes_stats >$DAMON/$k/state
    stats=$DAMON/$k/contexts/0/schemes/0/stats
    for f in nr_tried sz_tried nr_applied sz_applied; do
      echo "damos$k $f $(cat $stats/$f)"
    done
    echo off >$DAMON/$k/state
  done
  echo 0 >/sys/kernel/mm/numa/demotion_enabled
}

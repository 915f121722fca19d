# SPDX-License-Identifier: Apache-2.0
# A tracker alone, which watches the workload of a cell and moves nothing (bench/suite/guest/cell.sh sources this). The
# argument POLICY is the tracker's name, "none" for the program by itself; WATCH holds more arguments of tracker_watch.
# Where the tracker doesn't work, a section "not there" says why.
# It lives on the other node, so that its memory is not among what is watched.
# shellcheck shell=dash
system_prepare() {
  case +$POLICY+ in *+kmod+*) insmod /lib/thermocline/thermocline.ko ;; esac
  code=0
  reason=$(tracker_watch --tracker "$POLICY" --probe 2>&1) || code=$?
  [ "$code" -ne 77 ] || begin "not there"
  [ "$code" -eq 0 ] || { echo "$reason"; fail "the tracker can't watch"; }
}
system_start() {
  # shellcheck disable=SC2086 # arguments are words
  cell_pages launch --bind "$TC_SLOW_NODE" -- tracker_watch --tracker "$POLICY" --pid "$TARGET" \
    --out "$TC_OUT/watch.json" --ready-file /tmp/watching $WATCH >/tmp/watch.log 2>&1 &
  WATCHER=$!
  await 120 "the tracker" watches
  [ -e /tmp/watching ] || { cat /tmp/watch.log; fail "the tracker can't watch"; }
}
watches() { [ -e /tmp/watching ] || ! kill -0 "$WATCHER" 2>/dev/null; }
system_stop() {
  kill "$WATCHER"
  wait "$WATCHER" || { cat /tmp/watch.log; fail "the tracker did not last"; }
  cat /tmp/watch.log
}

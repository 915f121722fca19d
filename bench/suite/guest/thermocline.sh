# SPDX-License-Identifier: Apache-2.0
# Thermocline: the module and the daemon, which lives on the slow node: in a guest whose fast tier is some 50 MiB, its few
# MiB would weigh as they never do on a server.
# default: the daemon's own settings. Otherwise those for a small and therefore hot guest (see numab.sh): epochs of 200 ms, four windows of
# 2 ms in each, a CPU budget that is saved up for 2 s. Tried on chase, gups-moving, ycsb-b and llm-decode at 1:4: eight windows (2 % faster on
# gups-moving, 2 % slower on chase and ycsb-b), a budget saved up for 10 s (10 % slower on gups-moving), epochs of 100 ms (5 % slower there).
# shellcheck shell=dash
SOCKET=/tmp/thermocline.sock
answers() { thermocline status --json --socket "$SOCKET" >/tmp/status.json 2>/dev/null; }
system_start() {
  insmod /lib/thermocline/thermocline.ko
  {
    echo "[control]"
    echo "socket = \"$SOCKET\""
    echo "[tracker]"
    echo "name = \"kmod\""
    echo "[policy]"
    echo "name = \"${POLICY%@*}\""
    case $POLICY in
    *@default) ;;
    *)
      echo "[engine]"
      echo "epoch = \"200ms\""
      echo "window = \"2ms\""
      echo "windows_per_epoch = 4"
      echo "cpu_burst = \"2s\""
      echo "headroom = \"512K\""
      ;;
    esac
    echo "[[target]]"
    echo "pid = $TARGET"
  } >/tmp/thermocline.toml
  cell_pages launch --bind "$TC_SLOW_NODE" -- thermoclined --config /tmp/thermocline.toml >/tmp/daemon.log 2>&1 &
  DAEMON=$!
  await 30 "the daemon" answers
}
system_before() {
  answers || fail "the daemon does not answer"
  cat /tmp/status.json
}
system_stop() {
  answers || { cat /tmp/daemon.log; fail "the daemon does not answer"; }
  kill "$DAEMON"
  wait "$DAEMON" || true
  rmmod thermocline
  cat /tmp/status.json
}

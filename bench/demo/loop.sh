# SPDX-License-Identifier: Apache-2.0
# Sourced in a guest (busybox sh, `set -eu`) by the demo and by lab tests: a fast node of a chosen size and a daemon.
# shellcheck shell=sh disable=SC2034 # variables are for the script that sources this

RUN=/tmp/loop
SOCKET=$RUN/thermocline.sock
mkdir -p "$RUN"

# Runs a command every 0.1 s until it succeeds; ends the script after SECONDS.
await() { # SECONDS WHAT COMMAND...
  await_left=$(($1 * 10))
  await_what=$2
  shift 2
  until "$@"; do
    await_left=$((await_left - 1))
    if [ "$await_left" -le 0 ]; then
      echo "FAIL: waited too long for $await_what"
      exit 1
    fi
    usleep 100000
  done
}

# A guest with huge pages on keeps 5 % of its memory free, more than the fast tier of a small test; the kernel's own
# tiering would move the pages that we want to see moved; and a handful of huge pages would outweigh thousands of small
# ones in a small program (hotset asks for huge pages when a test wants them).
prepare_guest() {
  echo madvise >/sys/kernel/mm/transparent_hugepage/enabled
  echo 4096 >/proc/sys/vm/min_free_kbytes
  # Plugged-in memory takes no kernel data: what the kernel itself needs comes from between the fast node's watermarks,
  # or the OOM killer ends the ballast. With 50, half a percent, the ring of the module did not always fit.
  echo 80 >/proc/sys/vm/watermark_scale_factor
  # A boost of the watermarks after fragmentation comes and goes, and takes MiBs of a small node with it.
  echo 0 >/proc/sys/vm/watermark_boost_factor
  echo 0 >/proc/sys/kernel/numa_balancing
  insmod /lib/thermocline/thermocline.ko
}

# The kernel's watermarks, small: for a fast tier of some 20 MiB the usual ones weigh too much. The slow node must take
# kernel data then (profile hmat), see above.
small_watermarks() {
  echo 10 >/proc/sys/vm/watermark_scale_factor
  echo 1024 >/proc/sys/vm/min_free_kbytes
}

# Leaves BYTES of the fast node for programs; sets BALLAST_PID.
limit_fast_node() { # BYTES
  rm -f "$RUN/ballast-ready"
  ballast --node "$TC_FAST_NODE" --leave "$1" --ready-file "$RUN/ballast-ready" &
  BALLAST_PID=$!
  await 60 "the ballast" test -e "$RUN/ballast-ready"
}

# Stops a process that this script started and waits until it is gone.
stop() { # PID
  kill "$1" 2>/dev/null || true
  wait "$1" || true
}

# Writes the daemon's configuration. SETTINGS are lines of [engine]; MORE is whatever else, e.g. "[history] ...".
configure() { # MODE COMMAND SETTINGS MORE
  cat >"$RUN/thermocline.toml" <<TOML
[engine]
mode = "$1"
$3
[tracker]
name = "kmod"
flush = true   # the emulated TLB would hide accesses for longer than a processor's does
[control]
socket = "$SOCKET"
[[target]]
command = "$2"
$4
TOML
}

status() { thermocline status --json --socket "$SOCKET"; }
status_answers() { status >/dev/null 2>&1; }

# Starts the daemon with what configure() wrote; sets DAEMON_PID.
start_daemon() {
  thermoclined --config "$RUN/thermocline.toml" &
  DAEMON_PID=$!
  await 30 "the daemon" status_answers
}

# From watching to moving; what was recorded while it watched is complete then.
let_it_move() {
  sed -i -e 's/^mode = .*/mode = "manage"/' -e '/^\[record\]/,/^file/d' "$RUN/thermocline.toml"
  kill -HUP "$DAEMON_PID"
}

kernel_moves() { awk '$1 == "pgmigrate_success" { print $2 }' /proc/vmstat; }

# A counter or figure of JSON that has one number a key: figure KEY <FILE
figure() { sed 's/[,{}]/\n/g' | sed -n "s/^ *\"$1\": *//p" | head -n 1; }

# Of a status in JSON: how many targets there are, how many pages of all of them the tiers hold, and the most that one of
# them shares with others.
target_figures() { tr -d ' \n' | sed 's/"asid"/\n&/g'; }
targets() { target_figures | grep -c '^"asid"'; }
pages_on_tiers() { target_figures | sed -n 's/.*"tier_pages":\[\([0-9,]*\)\].*/\1/p' | tr ',' '\n' | awk '{ s += $1 } END { print s + 0 }'; }
most_shared_pages() { target_figures | sed -n 's/.*"shared_pages":\([0-9]*\).*/\1/p' | sort -n | tail -n 1; }

# The closed loop on hotset, which judges it: at least 95 % of its hot pages end on the fast node, and 90 % of a hot set
# that moved is there within WITHIN seconds. The daemon starts first, while the fast node has room for it, and watches
# only until the fast node is full of cold pages.
hotset_loop() { # LEAVE ENGINE-SETTINGS RATE-LIMIT WITHIN HOTSET-OPTIONS...
  loop_leave=$1 loop_engine=$2 loop_rate=$3 loop_within=$4
  shift 4
  prepare_guest
  limit_fast_node "$loop_leave"
  configure observe hotset "$loop_engine" "[mover]
rate_limit = \"$loop_rate\""
  start_daemon
  rm -f "$RUN/ready" "$RUN/go"
  hotset "$@" --fast-node "$TC_FAST_NODE" --json "$RUN/hotset.json" --ready-file "$RUN/ready" --wait-file "$RUN/go" \
    --require-share 0.95 --require-move "$loop_within" &
  loop_hotset=$!
  await 120 "hotset to fill its memory" test -e "$RUN/ready"
  let_it_move
  touch "$RUN/go"
  loop_code=0
  wait "$loop_hotset" || loop_code=$?
  kill -0 "$BALLAST_PID" || {
    echo "FAIL: the kernel ended the ballast for want of memory, so the fast node had room for everything"
    return 1
  }
  status >"$RUN/status.json"
  stop "$DAEMON_PID"
  stop "$BALLAST_PID"
  rmmod thermocline
  echo "promoted $(figure promoted_pages <"$RUN/status.json") pages, demoted $(figure demoted_pages <"$RUN/status.json")," \
    "abandoned $(figure abandoned_pages <"$RUN/status.json"); fast node at the end: $(figure free_bytes <"$RUN/status.json")" \
    "bytes free, reserve $(figure reserve_bytes <"$RUN/status.json"), daemon $(figure uptime_s <"$RUN/status.json") s up"
  return "$loop_code"
}

# redis under a Zipf load: the fast tier, about a third of its memory, is full of unpopular keys at first. Thermocline
# watches and records, then moves. Leaves in DIR: redis.records, redis-watched.json, redis-settled.json,
# redis-status.json (status at the beginning of moving, when it has settled, at the end), redis-without.json,
# redis-with.json (what the client says), redis-history.jsonl. SET-SHARE is that of the client's operations; each SET
# puts the value on another page.
redis_loop() { # DIR SET-SHARE
  loop_dir=$1 loop_sets=$2
  loop_redis="--socket $RUN/redis.sock --keys 12000 --value-size 4000 --theta 0.99 --pipeline 32 --seed 1"
  rm -f "$loop_dir"/redis*
  limit_fast_node 14M
  redis-server --port 0 --unixsocket "$RUN/redis.sock" --save "" --appendonly no --dir "$RUN" >"$RUN/redis.log" &
  REDIS_PID=$!
  await 30 "redis" test -S "$RUN/redis.sock"
  # shellcheck disable=SC2086 # a list of words
  zipf_client $loop_redis --step load --cold-first --hot-fraction 0.35
  # A popular page is touched many times a second, one at the edge of the tier once in several seconds: many windows.
  configure observe redis-server 'epoch = "2s"
window = "100ms"
windows_per_epoch = 18
headroom = "512K"
cpu_budget = 1.0' "[mover]
rate_limit = \"32M\"
[record]
file = \"$loop_dir/redis.records\"
[history]
file = \"$loop_dir/redis-history.jsonl\""
  # shellcheck disable=SC2086
  zipf_client $loop_redis --step run --set-share "$loop_sets" --duration 48 --json "$loop_dir/redis-without.json" &
  loop_client=$!
  sleep 1
  start_daemon
  wait "$loop_client"
  # shellcheck disable=SC2086
  zipf_client $loop_redis --step run --set-share "$loop_sets" --duration 38 --json "$loop_dir/redis-with.json" &
  loop_client=$!
  loop_moves=$(kernel_moves)
  status >"$loop_dir/redis-watched.json"
  let_it_move
  sleep 16
  status >"$loop_dir/redis-settled.json"
  sleep 20
  status >"$loop_dir/redis-status.json"
  echo $(($(kernel_moves) - loop_moves)) >"$loop_dir/redis-kernel-moves"
  wait "$loop_client"
  stop "$DAEMON_PID"
  stop "$REDIS_PID"
  kill -0 "$BALLAST_PID" || { echo "FAIL: the ballast is gone: the fast tier was larger than it should be"; return 1; }
  stop "$BALLAST_PID"
}

#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The demo inside the guest: hotset and redis, each first without and then with Thermocline. Results go to $TC_OUT.
set -eu
# shellcheck source=/dev/null
. /lab/loop.sh

say() { echo "  $(cut -d ' ' -f 1 /proc/uptime) s  $*"; }
ready() { test -e "$RUN/ready"; }

HOTSET="--footprint 192M --hot-fraction 0.285 --hot-share 0.9 --layout clustered --threads 2 --rate 2000000 --seed 1
  --fast-node $TC_FAST_NODE"

prepare_guest

# --- hotset: fast tier a third of the footprint, full of cold pages; the hot set moves half-way ---------------
say "hotset without Thermocline"
limit_fast_node 64M
# shellcheck disable=SC2086 # HOTSET is a list of words
hotset $HOTSET --duration 5 --json "$TC_OUT/hotset-without.json" >"$RUN/hotset.log"

say "hotset with Thermocline: it watches for 2 s, then moves pages; after 14 s the hot set moves"
rm -f "$RUN/ready"
# shellcheck disable=SC2086
hotset $HOTSET --duration 30 --move-hot-at 14 --sample-every 250 --json "$TC_OUT/hotset-with.json" \
  --ready-file "$RUN/ready" --wait-file "$RUN/go" >"$RUN/hotset.log" &
hotset=$!
await 60 "hotset" ready
configure observe hotset 'epoch = "500ms"
window = "10ms"
windows_per_epoch = 8
headroom = "512K"
cpu_budget = 1.0' '[mover]
rate_limit = "16M"
[history]
file = "'"$TC_OUT/hotset-history.jsonl"'"'
moves=$(kernel_moves)
start_daemon
touch "$RUN/go"
sleep 2
let_it_move
sleep 27
status >"$TC_OUT/hotset-status.json"
echo $(($(kernel_moves) - moves)) >"$TC_OUT/hotset-kernel-moves"
wait "$hotset" || { cat "$RUN/hotset.log"; exit 1; }
stop "$DAEMON_PID"
stop "$BALLAST_PID"

# --- redis: the same for an unmodified program -----------------------------------------------------------------
say "redis: loaded with the least popular keys first; Thermocline watches for 47 s and records, then moves pages"
small_watermarks
redis_loop "$TC_OUT" 0
rmmod thermocline
say "done"

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
REDIS="--socket $RUN/redis.sock --keys 12000 --value-size 4000 --theta 0.99 --set-share 0.05 --pipeline 32 --seed 1"

prepare_guest

# --- hotset: fast tier a third of the footprint, full of cold pages; the hot set moves half-way ---------------
say "hotset without Thermocline"
limit_fast_node 66M
# shellcheck disable=SC2086 # HOTSET and REDIS are lists of words
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
windows_per_epoch = 4
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
say "redis: loading, least popular keys first"
limit_fast_node 22M
redis-server --port 0 --unixsocket "$RUN/redis.sock" --save "" --appendonly no --dir "$RUN" >"$RUN/redis.log" &
redis=$!
await 30 "redis" test -S "$RUN/redis.sock"
# shellcheck disable=SC2086
zipf_client $REDIS --step load --cold-first --hot-fraction 0.35

REDIS_ENGINE='epoch = "500ms"
window = "10ms"
windows_per_epoch = 16
cpu_budget = 1.0'
say "redis without Thermocline: it only watches, and records what is accessed"
configure observe redis-server "$REDIS_ENGINE" '[record]
file = "'"$TC_OUT/redis.records"'"'
# shellcheck disable=SC2086
zipf_client $REDIS --step run --duration 12 --json "$TC_OUT/redis-without.json" &
client=$!
sleep 1
start_daemon
sleep 10
stop "$DAEMON_PID"
wait "$client"

say "redis with Thermocline"
configure observe redis-server "$REDIS_ENGINE" '[mover]
rate_limit = "32M"
[history]
file = "'"$TC_OUT/redis-history.jsonl"'"'
# shellcheck disable=SC2086
zipf_client $REDIS --step run --duration 26 --json "$TC_OUT/redis-with.json" &
client=$!
moves=$(kernel_moves)
start_daemon
sleep 2
let_it_move
sleep 12
status >"$TC_OUT/redis-settled.json"
sleep 10
status >"$TC_OUT/redis-status.json"
echo $(($(kernel_moves) - moves)) >"$TC_OUT/redis-kernel-moves"
wait "$client"
stop "$DAEMON_PID"
stop "$redis"
stop "$BALLAST_PID"
rmmod thermocline
say "done"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `thermocline record` on this machine, with the tracker that needs neither root nor the module: what it says was touched
# is what the program touched, and the trace is whole, continued, and readable after a recorder was killed.
set -euo pipefail
thermocline=$2/userspace/cli/thermocline
folder=$(mktemp -d)
pids=()
trap '[[ ${#pids[@]} == 0 ]] || kill "${pids[@]}" 2>/dev/null; wait; cd /; rm -rf "$folder"' EXIT
cd "$folder"

# One mapping that is touched again and again, and one that is only filled; a flag keeps them two for the kernel.
# Memory that is given back makes the CPU forget its translations, through which a touch would not be seen. Says where the
# two are; ends with 7 when it is told to.
cat >touches.py <<'PY'
import ctypes, mmap, os, sys, time
def mapping(size):
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
def touch(m):
    m[::4096] = b"x" * (len(m) // 4096)
hot = mapping(8 << 20)
idle = mapping(4 << 20)
given_back = mapping(1 << 20)
idle.madvise(mmap.MADV_DONTDUMP)
for m in hot, idle:
    m.madvise(mmap.MADV_NOHUGEPAGE)
    touch(m)
pages = [(ctypes.addressof(ctypes.c_char.from_buffer(m)) >> 12, len(m) >> 12) for m in (hot, idle)]
with open("where", "w") as out:
    print(*(n for place in pages for n in place), file=out)
end = time.monotonic() + 300
while not os.path.exists("stop") and time.monotonic() < end:
    touch(hot)
    touch(given_back)
    given_back.madvise(mmap.MADV_DONTNEED)
    time.sleep(0.002)
sys.exit(7)
PY
# What reports say is checked by Python on standard input, after these helpers.
judge() {
  { cat <<'PY'; cat; } | python3 -
import json, sys
hot_first, hot_pages, idle_first, idle_pages = map(int, open("where").read().split())
load = lambda name: json.load(open(name))
# Ranges of a report are not cut where mappings end: they may be a few pages off. All is touched once, when it is filled; and
# a window in which the program had no time to touch all of its mapping tells nothing.
def check_touched(report):
    overlap = lambda r, first, pages: max(0, min(first + pages, r["first_page"] + r["pages"]) - max(first, r["first_page"]))
    busy = [r for r in report["ranges"] if r["touched_share"] > 0.1]
    assert sum(overlap(r, hot_first, hot_pages) for r in busy) > hot_pages - 64, report["ranges"]
    assert sum(overlap(r, idle_first, idle_pages) for r in busy) < 64, report["ranges"]
    assert sum(r["share_of_touches"] for r in busy if overlap(r, hot_first, hot_pages)) > 0.9, report["ranges"]
PY
}
reports() { # TRACE NAME
  "$thermocline" report hot "$1" --json >"$2-hot.json"
  "$thermocline" report wss "$1" --json >"$2-wss.json"
  "$thermocline" replay "$1" --policy heat --ratio 1:1 --json >"$2-replay.json"
}
windows() { "$thermocline" report wss "$1" --json 2>/dev/null | sed -n 's/^  "windows": \([0-9]*\).*/\1/p'; }
# Records into TRACE, until it holds as many windows as asked for; sets RECORDER. A trace is readable while it grows.
record_until() { # WINDOWS TRACE OPTIONS...
  local wanted=$1 trace=$2
  shift 2
  "$thermocline" record --tracker refs --window 50ms -o "$trace" "$@" 2>said &
  RECORDER=$!
  pids+=("$RECORDER")
  await_windows "$wanted" "$trace"
}
await_windows() { # WANTED TRACE
  for ((i = 0; i < 600; i++)); do
    [[ $(windows "$2") -lt $1 ]] || return 0
    sleep 0.1
  done
  echo "no $1 windows in $2: $(cat said)"
  exit 1
}
interrupt() { kill "$RECORDER" && wait "$RECORDER"; }

# A command: its exit code is passed on, and the trace tells what it touched.
record_until 1 a.tct -- sh -c 'python3 touches.py; exit $?'
for ((i = 0; i < 300; i++)); do [[ ! -s where ]] || break; sleep 0.1; done
await_windows $(($(windows a.tct) + 40)) a.tct
touch stop
code=0
wait "$RECORDER" || code=$?
rm stop
if [[ $code != 7 ]] || ! grep -q "windows, .* records, .* in a.tct" said; then
  echo "exit code $code"
  cat said
  exit 1
fi
reports a.tct a
judge <<'PY'
check_touched(load("a-hot.json"))
replay = load("a-replay.json")
assert replay["trace"]["footprint_pages"] >= hot_pages + idle_pages, replay["trace"]
heat, = (p for p in replay["policies"] if p["policy"] == "heat")
assert heat["accessed_page_windows"] >= hot_pages * 10, heat
# Which pages fill the fast tier first hangs on how long the program took to start.
assert replay["best_static_hit_ratio"] > 0.9, replay["best_static_hit_ratio"]
sets = load("a-wss.json")["working_set"]
assert max(s["touched_pages"] for s in sets) >= hot_pages, sets
PY

# A process that is there; a file that is there is refused, and continued when that is asked for.
rm where
python3 touches.py &
target=$!
pids+=("$target")
for ((i = 0; i < 300; i++)); do [[ ! -s where ]] || break; sleep 0.1; done
record_until 20 b.tct --pid "$target"
interrupt
reports b.tct b
! "$thermocline" record --tracker refs -o b.tct --duration 1s --pid "$target" 2>said || exit 1
grep -q "record --append continues a trace" said || { cat said; exit 1; }
record_until $(($(windows b.tct) + 20)) b.tct --append --pid "$target"
interrupt
reports b.tct more
judge <<'PY'
check_touched(load("b-hot.json"))
check_touched(load("more-hot.json"))
assert load("b-replay.json")["trace"]["windows"] < load("more-replay.json")["trace"]["windows"]
PY

# A recorder that is killed: what it had written can be read.
record_until 60 c.tct --pid "$target"
kill -KILL "$RECORDER"
wait "$RECORDER" || true
reports c.tct c
# As if it had been killed within a write: the last frame is lost, and only that. It is cut off when the trace is continued.
size=$(wc -c <c.tct)
last=$(grep -abo TCTF c.tct | tail -n 1 | cut -d: -f1)
head -c $(((last + size) / 2)) c.tct >torn.tct
head -c "$last" c.tct >before.tct
reports torn.tct torn
reports before.tct before
record_until $(($(windows torn.tct) + 20)) torn.tct --append --pid "$target"
interrupt
grep -q "torn.tct: cut off $(((last + size) / 2 - last)) bytes" said || { cat said; exit 1; }
reports torn.tct continued
judge <<'PY'
windows = {n: load(n + "-replay.json")["trace"]["windows"] for n in ("c", "torn", "before", "continued")}
print(windows)
for name in "c", "torn", "continued":
    check_touched(load(name + "-hot.json"))
assert windows["c"] >= windows["torn"] == windows["before"] > 0, windows
PY
touch stop
wait "$target" || true
pids=()

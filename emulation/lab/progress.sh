# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by ./test, ./demo, setup.sh and tests/lab/run: long steps with their output in a log and a sign of life meanwhile,
# and an end in order on Ctrl-C.

# Seconds between signs of life: on a terminal each overwrites the one before, elsewhere each is a line.
if [[ -t 1 ]]; then readonly PROGRESS_SECONDS=2; else readonly PROGRESS_SECONDS=${THERMOCLINE_PROGRESS_SECONDS:-20}; fi

# What a step does now is the last line of its log: ninja's [n/m], the test that ctest has ended, what apt fetches.
sign_of_life() { # NAME LOG
  local begin=$SECONDS text width
  width=$(tput cols 2>/dev/null || echo 80)
  # A pipe that nobody writes to: a sleep that leaves no process behind when this one is ended.
  while read -rt "$PROGRESS_SECONDS" _ <> <(:) || [[ $? -gt 128 ]]; do
    text="  ...   $1 ($((SECONDS - begin)) s): $(tail -n 1 "$2" | tr -d '\r\t')"
    if [[ -t 1 ]]; then printf '\r\033[K%s' "${text:0:width-1}"; else printf '%s\n' "${text:0:150}"; fi
  done
}

# Runs a command or function with its output in a log. It is waited for in a way that a signal interrupts.
run_logged() { # NAME LOG COMMAND...
  local name=$1 log=$2 job ticker code=0
  shift 2
  "$@" >"$log" 2>&1 </dev/null &
  job=$!
  sign_of_life "$name" "$log" &
  ticker=$!
  wait "$job" || code=$?
  { kill "$ticker" && wait "$ticker"; } 2>/dev/null || true
  if [[ -t 1 ]]; then printf '\r\033[K'; fi
  return "$code"
}

# Runs a program with its output where ours goes. Ctrl-C reaches this script alone, which then ends the program.
run_apart() { # COMMAND...
  setsid "$@" </dev/null &
  wait $!
}

descendants() { # PID
  local self=$BASHPID
  cat /proc/[0-9]*/stat 2>/dev/null | awk -v root="$1" -v self="$self" '
    { pid = $1; sub(/.*\) /, ""); if ($1 != "Z") parent[pid] = $2 }
    END {
      for (pid in parent) {
        for (p = pid; p > 1 && p != root && p != self; p = parent[p]) { }
        if (p == root && pid != root) print pid
      }
    }'
}

end_all() { # NAME EXIT-CODE
  local left try
  set +e # processes end while we look at them
  trap '' INT TERM HUP
  exec 3>&2 2>/dev/null # bash tells of each process that ends so
  for ((try = 0; try < 200; try++)); do
    left=$(descendants $$)
    [[ -n $left ]] || break
    # shellcheck disable=SC2086 # a list of numbers
    kill -s "$([[ $try -lt 100 ]] && echo TERM || echo KILL)" $left
    sleep 0.1
  done
  if [[ -t 1 ]]; then printf '\r\033[K'; fi
  [[ $2 != 130 ]] || echo "$1: interrupted" >&3
  exit "$2"
}

# From here on Ctrl-C and signals of that kind end this script and all that it started.
end_on_signals() { # NAME
  local signal
  for signal in HUP INT TERM; do
    # shellcheck disable=SC2064 # now is when
    trap "end_all '$1' $((128 + $(kill -l "$signal")))" "$signal"
  done
}

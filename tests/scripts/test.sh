#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ./test can fail: a test that fails, and a name that no test has.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir -p "$tree/emulation/lab" "$tree/tests/lab" "$work/bin"
cp "$1/test" "$tree/test"
stub() { # FILE SCRIPT
  printf '#!/bin/sh\n%s\n' "$2" >"$1"
  chmod +x "$1"
}
stub "$tree/emulation/lab/setup.sh" ':'
stub "$work/bin/cmake" ':'
# A ctest that has one test, engine.steps.
# shellcheck disable=SC2016 # the stub expands them
stub "$work/bin/ctest" '
filter=.
while [ $# -gt 0 ]; do
  case $1 in --output-junit) shift; junit=$1 ;; -R) shift; filter=$1 ;; esac
  shift
done
echo engine.steps | grep -q -e "$filter" && test="<testcase name=\"engine.steps\" time=\"0\" status=\"${CTEST:-run}\"/>"
echo "<testsuite>$test</testsuite>" >"$junit"'
# A lab that has one test, tiers@6.12.
# shellcheck disable=SC2016
stub "$tree/tests/lab/run" '
while [ $# -gt 0 ]; do
  case $1 in --results) shift; results=$1 ;; --only) shift; only=$1 ;; esac
  shift
done
case tiers@6.12 in *"${only-}"*) printf "pass\ttiers@6.12\t0.0\t\n" >>"$results" ;; esac'

expect() { # CODE LAST-LINE ARGUMENTS...
  local wanted=$1 part=$2 code=0 text
  shift 2
  text=$(PATH=$work/bin:$PATH "$tree/test" "$@" 2>&1) || code=$?
  [[ $code == "$wanted" && $text == *"$part"* ]] || {
    echo "test $*: wanted exit code $wanted and '$part', got $code: $text"
    exit 1
  }
}
expect 1 "no test has that in its name" --only typo
expect 0 "0 failed" --only tiers
expect 0 "0 failed" --only engine
expect 0 "0 failed" --only ctest
expect 0 "0 failed" --only build
CTEST=fail expect 1 "1 failed" --only engine
expect 2 "unknown argument" --typo

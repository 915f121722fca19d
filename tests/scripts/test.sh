#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ./test can fail: a test that fails, and a name that no test has. It builds what is asked for and no more.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir -p "$tree"/{emulation/lab,tests/{lab,fuzz,golden,scripts}} "$tree/build/dev" "$work/bin"
: >"$tree/build/dev/CTestTestfile.cmake"
git -C "$tree" init -q
echo build >"$tree/.gitignore"
cp "$1/test" "$tree/test"
cp "$1/emulation/lab/progress.sh" "$tree/emulation/lab/"
stub() { # FILE SCRIPT
  printf '#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n%s\n' "$2" >"$1"
  chmod +x "$1"
}
stub "$tree/emulation/lab/setup.sh" ':'
stub "$work/bin/cmake" "echo >>$work/built"
# A ctest that has one test, engine.steps.
# shellcheck disable=SC2016 # the stub expands them
stub "$work/bin/ctest" '
filter=.
while [ $# -gt 0 ]; do
  case $1 in --output-junit) shift; junit=$1 ;; -R) shift; filter=$1 ;; -N) echo "  Test #1: engine.steps"; exit ;; esac
  shift
done
echo engine.steps | grep -q -e "$filter" && test="<testcase name=\"engine.steps\" time=\"0\" status=\"${CTEST:-run}\"/>"
echo "<testsuite>$test</testsuite>" >"$junit"'
# A lab that has one test, tiers@6.12.
# shellcheck disable=SC2016
stub "$tree/tests/lab/run" '
while [ $# -gt 0 ]; do
  case $1 in --results) shift; results=$1 ;; --only) shift; only=$1 ;; --list) echo "tiers@6.12  about"; exit ;; esac
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
expect 2 "nothing has 'typo' in its name" --only typo
expect 2 "engine" --only typo
expect 0 "0 failed" --only licence
[[ ! -e $work/built ]] || { echo "lint built the tree"; exit 1; }
expect 0 "0 failed" --only tiers
[[ -e $work/built ]] || { echo "a lab test was run without a build"; exit 1; }
expect 0 "0 failed" --only engine
expect 0 "0 failed" --only ctest
expect 0 "0 failed" --only build
CTEST=fail expect 1 "1 failed" --only engine
expect 2 "unknown argument" --typo

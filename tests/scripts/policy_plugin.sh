#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The example of docs/writing-a-policy.md as its reader would use it: built by the system's compiler from the one
# header, listed, simulated and refused. The page shows the same code.
set -euo pipefail
thermocline=$2/userspace/cli/thermocline
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
umask 022
# Out of the tree, with nothing but the header.
mkdir "$folder/src" "$folder/include" "$folder/plugins"
cp "$1"/docs/examples/policy-plugin/* "$folder/src"
cp "$1/policies/plugin/policy_abi.h" "$folder/include"
make -s -C "$folder/src" INCLUDE="$folder/include" OUT="$folder/plugins" CFLAGS="-O2 -Wall -Wextra -Wpedantic -Werror"

listed=$("$thermocline" policies --plugin-dir "$folder/plugins")
grep -q "^hottest  *the hottest pages take the place of colder ones" <<<"$listed" || { echo "$listed"; exit 1; }
grep -q "option margin: heat by which" <<<"$listed" || { echo "$listed"; exit 1; }

sim=("$thermocline" sim --plugin-dir "$folder/plugins" --policies "hottest,static" --policy-options 'hottest:margin=255'
  --workload zipf --footprint 64M --seconds 20 --baselines none --quiet --json)
"${sim[@]}" >"$folder/first"
"${sim[@]}" >"$folder/second"
cmp "$folder/first" "$folder/second"
# It serves more from the fast tier than first touch does, and its option is heard.
python3 - "$folder/first" <<'PY'
import json, sys
hits = {case["system"]: case["hit_ratio"] for case in json.load(open(sys.argv[1]))["cases"]}
print(hits)
assert hits["hottest"] > hits["static"] + 0.05, hits
assert hits["hottest:margin=255"] < hits["hottest"], hits
PY

# The second example: collect, learn, and use what was learned. The weights foretell better than the mean does.
learned=("$thermocline" sim --plugin-dir "$folder/plugins" --policies "learned,static" --workload hotset --workload zipf
  --footprint 32M --seconds 40 --baselines none --quiet --json)
"${learned[@]}" --policy-options 'learned:sample=16' 2>"$folder/lines" >/dev/null
"$folder/src/train.py" "$folder/lines" >"$folder/weights" 2>"$folder/judged" || { cat "$folder/judged"; exit 1; }
chmod 644 "$folder/weights"
"${learned[@]}" --policy-options "learned:weights=$folder/weights" >"$folder/learned"
python3 - "$folder/learned" "$folder/judged" <<'PY'
import json, re, sys
ours, mean = map(float, re.search(r"ones ([\d.]+) bits, by the mean alone ([\d.]+)", open(sys.argv[2]).read()).groups())
print(ours, mean)
assert ours < mean
hits = {}
for case in json.load(open(sys.argv[1]))["cases"]:
    hits.setdefault(case["workload"], {})[case["system"].split("=")[0]] = case["hit_ratio"]
print(hits)
assert len(hits) == 2
for of in hits.values():
    assert of["learned:weights"] > of["static"] + 0.05, of
PY

# What is wrong is said, and ends the command.
refused() { # SENTENCE COMMAND...
  local sentence=$1 said code=0
  shift
  said=$("$@" 2>&1) || code=$?
  [[ $code == 2 || $code == 1 ]] && grep -qF "$sentence" <<<"$said" && return
  echo "exit code $code, wanted '$sentence', got: $said"
  exit 1
}
refused 'policy hottest: margin is "no"' "${sim[@]}" --policy-options 'hottest:margin=no'
refused 'has no option "margim"' "${sim[@]}" --policy-options 'hottest:margim=1'
# A crash ends it: figures of a stand-in would be those of another policy.
install -m 755 "$2/tests/policy_plugin/plugins/odd.so" "$folder/plugins"
refused 'policy plug-in odd crashed (Aborted)' "$thermocline" sim --plugin-dir "$folder/plugins" --policies odd \
  --policy-options 'odd:mode=abort;after=3' --workload zipf --footprint 64M --seconds 20 --baselines none --quiet
rm "$folder/plugins/odd.so"
printf 'text' >"$folder/plugins/text.so"
refused 'text.so is not a shared object' "$thermocline" sim --plugin-dir "$folder/plugins" --policies text --workload zipf --footprint 64M --quiet
"$thermocline" policies --plugin-dir "$folder/plugins" | grep -q "^text  *can't be used: "
chmod o+w "$folder/plugins"
refused 'can be written by others' "$thermocline" policies --plugin-dir "$folder/plugins"
chmod o-w "$folder/plugins"

# A configuration with it is checked without running it.
printf '[policy]\nname = "hottest"\nplugin_dir = "%s"\n[policy.hottest]\nmargin = 9\n[[target]]\ncommand = "x"\n' \
  "$folder/plugins" >"$folder/c.toml"
"$thermocline" check-config "$folder/c.toml" | grep -q "valid; policy hottest"
sed -i 's/"hottest"/"hotest"/' "$folder/c.toml"
refused 'did you mean hottest?' "$thermocline" check-config "$folder/c.toml"

# Every block of C on the page is code of the example.
python3 - "$1" <<'PY'
import re, sys
page = open(sys.argv[1] + "/docs/writing-a-policy.md").read()
code = open(sys.argv[1] + "/docs/examples/policy-plugin/hottest.c").read()
blocks = re.findall(r"```c\n(.*?)```", page, re.S)
assert len(blocks) >= 5
for block in blocks:
    for part in block.strip().split("\n\n"):
        assert part in code, part
PY

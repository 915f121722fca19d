# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by setup.sh and debug-kernel.sh with the name of the script: the cache, what a script says, and Debian's archive, which is
# the one that this machine's apt uses plus its backports suite, read through package lists of our own in the cache.
# Uses progress.sh.

readonly speaker=$1
cache="${XDG_CACHE_HOME:-$HOME/.cache}/thermocline"
apt_dir="$cache/apt"

said=0
say() { printf '%s: %s\n' "$speaker" "$*"; }
die() {
  # shellcheck disable=SC2034 # for what a script does at its end: it says no more then
  said=1
  printf '%s: %s\n' "$speaker" "$*" >&2
  exit 1
}
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }

apt_options() {
  # APT::Sandbox::User: the cache may lie where the user _apt can't write.
  printf '%s\n' -q \
    -o "Dir::State::lists=$apt_dir/lists" -o "Dir::Cache=$apt_dir/cache" \
    -o "Dir::Etc::sourcelist=$apt_dir/sources.list" -o "Dir::Etc::sourceparts=-" \
    -o "APT::Sandbox::User=root" -o "APT::Get::List-Cleanup=1" \
    -o "Acquire::Retries=3" -o "Acquire::http::Timeout=60" -o "Acquire::https::Timeout=60" \
    -o "Dpkg::Use-Pty=0" -o "Dpkg::Options::=--force-confold"
}

# The Debian entries of this machine's apt, as one-line entries, plus the backports suite beside the
# entry of the release itself.
derive_sources() {
  local codename uri release component origin options signed found=0
  # shellcheck disable=SC2016 # the $(...) are apt's
  local format='$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SOURCESENTRY)'
  # shellcheck source=/dev/null
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
  [[ $codename == bookworm ]] ||
    die "this is '${codename:-not Debian}', but the lab's packages are those of Debian 12 (bookworm); use a Debian 12 machine or container"
  while IFS='|' read -r uri release component origin; do
    case "$release" in
    stable | oldstable | oldoldstable) release=$codename ;;
    esac
    case "$release" in
    "$codename" | "$codename-updates" | "$codename-security") ;;
    *) continue ;;
    esac
    # apt does not tell the key of an entry; the file that holds the entry does.
    signed=$(sed -n 's/^Signed-By: *\(\/.*\)$/\1/Ip; s/^.*[[ ]signed-by=\([^] ]*\).*$/\1/p' \
      "${origin%:*}" 2>/dev/null | head -n 1)
    options="[arch=amd64${signed:+ signed-by=$signed}]"
    echo "deb $options $uri $release $component"
    if [[ $release == "$codename" ]]; then
      echo "deb $options $uri $codename-backports $component"
      found=1
    fi
  done < <(apt-get indextargets --format "$format" \
    'Created-By: Packages' 'Architecture: amd64' 2>"$apt_dir/sources.log" | sort -u)
  [[ $found == 1 ]] ||
    die "apt has no source for $codename on this machine; add the Debian archive to /etc/apt/sources.list and run again"
}

lists_ready=0
update_lists() {
  [[ $lists_ready == 0 ]] || return 0
  local start log
  start=$(now)
  log="$apt_dir/update.log"
  mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial"
  derive_sources >"$apt_dir/sources.list.new"
  mv "$apt_dir/sources.list.new" "$apt_dir/sources.list"
  mapfile -t APT < <(apt_options)
  say "reading the package lists (this machine's archive and its backports suite) ..."
  # A mirror that can't be reached is only a warning for apt-get update, unless told otherwise.
  run_logged "package lists" "$log" apt-get "${APT[@]}" -o APT::Update::Error-Mode=any update || {
    tail -n 5 "$log" >&2
    die "the package lists can't be fetched; check the network and the machine's apt sources, then run again (log: $log)"
  }
  lists_ready=1
  say "package lists read in $(since "$start")"
}

# Debian packages, without installing them.
download() { # WHAT FOLDER PACKAGE...
  local what=$1 folder=$2
  shift 2
  mkdir -p "$folder"
  run_logged "$what" "$apt_dir/download.log" env -C "$folder" apt-get "${APT[@]}" download "$@" || {
    tail -n 5 "$apt_dir/download.log" >&2
    die "$what can't be fetched; check the network and the free space in $cache, then run again"
  }
}

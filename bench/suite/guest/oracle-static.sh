# SPDX-License-Identifier: Apache-2.0
# The best static placement: which pages the run will miss most is known from one with all memory on the fast node; as many
# of them as the fast node held of the target are exchanged for the others before the run, and nothing moves after that.
# shellcheck shell=dash
system_start() {
  cell_pages place --pid "$TARGET" --counts /lab/page-counts --fast "$TC_FAST_NODE" --slow "$TC_SLOW_NODE"
}

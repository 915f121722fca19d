// SPDX-License-Identifier: Apache-2.0
// Built in the place of bpf_page_table_reader.cc where clang or libbpf is missing.
#include "tracking/page_table_reader.h"

namespace thermocline {

Result<std::unique_ptr<PageTableReader>> make_bpf_page_table_reader(System&, Bytes) {
  return fail(
      ErrorKind::kUnsupported,
      "this program was built without BPF: install clang and libbpf-dev and build it again");
}

}  // namespace thermocline

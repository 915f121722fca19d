// SPDX-License-Identifier: GPL-2.0
// The part of QEMU's plug-in interface that the timing model uses, declared by ourselves: no Debian
// package ships a header for it. Versions 2 to 4 of the interface are known to match (QEMU 10.0);
// the symbols are in the emulator, nothing is linked.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

using qemu_plugin_id_t = std::uint64_t;
using qemu_plugin_meminfo_t = std::uint32_t;

struct qemu_info_t {
  const char* target_name;
  struct {
    int min;
    int cur;
  } version;
  bool system_emulation;
  struct {
    int smp_vcpus;
    int max_vcpus;
  } system;
};

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_hwaddr;
struct qemu_plugin_scoreboard;
struct qemu_plugin_register;

struct qemu_plugin_u64 {
  qemu_plugin_scoreboard* score;
  std::size_t offset;
};

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_CB_R_REGS };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_R = 1, QEMU_PLUGIN_MEM_W, QEMU_PLUGIN_MEM_RW };
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64, QEMU_PLUGIN_INLINE_STORE_U64 };
enum qemu_plugin_cond {
  QEMU_PLUGIN_COND_NEVER,
  QEMU_PLUGIN_COND_ALWAYS,
  QEMU_PLUGIN_COND_EQ,
  QEMU_PLUGIN_COND_NE,
  QEMU_PLUGIN_COND_LT,
  QEMU_PLUGIN_COND_LE,
  QEMU_PLUGIN_COND_GT,
  QEMU_PLUGIN_COND_GE,
};

enum qemu_plugin_mem_value_type {
  QEMU_PLUGIN_MEM_VALUE_U8,
  QEMU_PLUGIN_MEM_VALUE_U16,
  QEMU_PLUGIN_MEM_VALUE_U32,
  QEMU_PLUGIN_MEM_VALUE_U64,
  QEMU_PLUGIN_MEM_VALUE_U128,
};
struct qemu_plugin_mem_value {
  qemu_plugin_mem_value_type type;
  union {
    std::uint8_t u8;
    std::uint16_t u16;
    std::uint32_t u32;
    std::uint64_t u64;
    struct {
      std::uint64_t low;
      std::uint64_t high;
    } u128;
  } data;
};

struct qemu_plugin_reg_descriptor {
  qemu_plugin_register* handle;
  const char* name;
  const char* feature;
};

// What QEMU hands over are GLib arrays; these are the public members.
struct GArray {
  char* data;
  unsigned len;
};
struct GByteArray {
  std::uint8_t* data;
  unsigned len;
};

using qemu_vcpu_cb = void (*)(qemu_plugin_id_t, unsigned);
using qemu_vcpu_udata_cb = void (*)(unsigned, void*);
using qemu_mem_cb = void (*)(unsigned, qemu_plugin_meminfo_t, std::uint64_t, void*);
using qemu_tb_cb = void (*)(qemu_plugin_id_t, qemu_plugin_tb*);
using qemu_exit_cb = void (*)(qemu_plugin_id_t, void*);

void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t, qemu_vcpu_cb);
void qemu_plugin_register_vcpu_idle_cb(qemu_plugin_id_t, qemu_vcpu_cb);
void qemu_plugin_register_vcpu_resume_cb(qemu_plugin_id_t, qemu_vcpu_cb);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, qemu_tb_cb);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, qemu_exit_cb, void*);

void qemu_plugin_register_vcpu_tb_exec_cond_cb(qemu_plugin_tb*, qemu_vcpu_udata_cb,
                                               qemu_plugin_cb_flags, qemu_plugin_cond,
                                               qemu_plugin_u64, std::uint64_t, void*);
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(qemu_plugin_tb*, qemu_plugin_op,
                                                       qemu_plugin_u64, std::uint64_t);
void qemu_plugin_register_vcpu_insn_exec_cb(qemu_plugin_insn*, qemu_vcpu_udata_cb,
                                            qemu_plugin_cb_flags, void*);
void qemu_plugin_register_vcpu_mem_cb(qemu_plugin_insn*, qemu_mem_cb, qemu_plugin_cb_flags,
                                      qemu_plugin_mem_rw, void*);

std::size_t qemu_plugin_tb_n_insns(const qemu_plugin_tb*);
std::uint64_t qemu_plugin_tb_vaddr(const qemu_plugin_tb*);
qemu_plugin_insn* qemu_plugin_tb_get_insn(const qemu_plugin_tb*, std::size_t);
std::size_t qemu_plugin_insn_data(const qemu_plugin_insn*, void*, std::size_t);
std::size_t qemu_plugin_insn_size(const qemu_plugin_insn*);

bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);
qemu_plugin_mem_value qemu_plugin_mem_get_value(qemu_plugin_meminfo_t);
qemu_plugin_hwaddr* qemu_plugin_get_hwaddr(qemu_plugin_meminfo_t, std::uint64_t);
bool qemu_plugin_hwaddr_is_io(const qemu_plugin_hwaddr*);
std::uint64_t qemu_plugin_hwaddr_phys_addr(const qemu_plugin_hwaddr*);

qemu_plugin_scoreboard* qemu_plugin_scoreboard_new(std::size_t);
void* qemu_plugin_scoreboard_find(qemu_plugin_scoreboard*, unsigned);

GArray* qemu_plugin_get_registers();
int qemu_plugin_read_register(qemu_plugin_register*, GByteArray*);
bool qemu_plugin_read_memory_vaddr(std::uint64_t, GByteArray*, std::size_t);

const void* qemu_plugin_request_time_control();
void qemu_plugin_update_ns(const void*, std::int64_t);
}

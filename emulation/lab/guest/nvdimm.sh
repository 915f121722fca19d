# SPDX-License-Identifier: Apache-2.0
# Sourced by init: an NVDIMM becomes a DAX device, and that becomes memory of a CPU-less node, all through sysfs.
nd=/sys/bus/nd
wait_for() { # PATH: up to a minute, for a slow machine
  for _ in $(seq 1200); do
    [ -e "$1" ] && return 0
    usleep 50000
  done
  give_up "$1 did not appear"
}
# A namespace with its bytes becomes a DAX device through the region's seed; the kernel writes the metadata,
# and keeps the page structures in normal memory (mode ram).
nd_to_dax() { # REGION NAMESPACE
  echo "$2" >$nd/drivers/nd_pmem/unbind 2>/dev/null
  seed=$(cat "$nd/devices/$1/dax_seed")
  echo 2097152 >"$nd/devices/$seed/align"
  echo ram >"$nd/devices/$seed/mode"
  cat /proc/sys/kernel/random/uuid >"$nd/devices/$seed/uuid"
  echo "$2" >"$nd/devices/$seed/namespace" || give_up "the namespace $2 could not be given to $seed"
  echo "$seed" >$nd/drivers/dax_pmem/bind || give_up "$seed could not be bound to dax_pmem"
}
dax_to_memory() { # DAX-DEVICE
  wait_for "/sys/bus/dax/devices/$1"
  TC_SLOW_NODE=$(cat "/sys/bus/dax/devices/$1/target_node")
  if [ "$(basename "$(readlink "/sys/bus/dax/devices/$1/driver")")" != kmem ]; then
    echo "$1" >/sys/bus/dax/drivers/device_dax/unbind 2>/dev/null
    echo "$1" >/sys/bus/dax/drivers/kmem/new_id || give_up "$1 could not be bound to kmem"
  fi
  wait_for "/sys/devices/system/node/node$TC_SLOW_NODE"
}

if [ "$TC_PROFILE" = nvdimm ]; then
  wait_for $nd/devices/namespace0.0
  nd_to_dax region0 namespace0.0
  dax_to_memory dax0.0
fi

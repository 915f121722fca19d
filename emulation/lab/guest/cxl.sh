# SPDX-License-Identifier: Apache-2.0
# Sourced by init: makes a region of each CXL type-3 device and turns it into memory of a CPU-less node, all through sysfs
# (Documentation/ABI/testing/sysfs-bus-cxl). Volatile devices where the kernel can (6.12), persistent ones on 6.1.
. /opt/thermocline/lab/nvdimm.sh
cxl=/sys/bus/cxl/devices

wait_for $cxl/decoder0.0
# Endpoint decoders map device memory; the first of each device, in the order of the ports, is taken.
for _ in $(seq 1200); do
  endpoints=""
  for decoder in "$cxl"/decoder*.0; do
    [ -e "$decoder/dpa_size" ] && endpoints="$endpoints $(basename "$decoder")"
  done
  [ "$(echo "$endpoints" | wc -w)" -ge "$TC_CXL_DEVICES" ] && break
  usleep 50000
done
[ "$(echo "$endpoints" | wc -w)" -ge "$TC_CXL_DEVICES" ] || give_up "the kernel found no CXL memory device"

put() { # VALUE FILE
  echo "$1" >"$2" || give_up "could not write $1 to $2"
}
window=0
for endpoint in $endpoints; do
  root=$cxl/decoder0.$window
  region=$(cat "$root/create_${TC_CXL_KIND}_region")
  put "$region" "$root/create_${TC_CXL_KIND}_region"
  [ "$TC_CXL_KIND" = ram ] || put "$(cat /proc/sys/kernel/random/uuid)" "$cxl/$region/uuid"
  put 1 "$cxl/$region/interleave_ways"
  put 256 "$cxl/$region/interleave_granularity"
  put "$TC_CXL_BYTES" "$cxl/$region/size"
  put "$TC_CXL_KIND" "$cxl/$endpoint/mode"
  put "$TC_CXL_BYTES" "$cxl/$endpoint/dpa_size"
  put "$endpoint" "$cxl/$region/target0"
  put 1 "$cxl/$region/commit"
  put "$region" /sys/bus/cxl/drivers/cxl_region/bind
  if [ "$TC_CXL_KIND" = ram ]; then
    dax_to_memory "dax$window.0"
  else
    # The persistent region is a libnvdimm region of the same number.
    wait_for "$nd/devices/region$window/available_size"
    space=$(cat "$nd/devices/region$window/namespace_seed")
    put "$(cat /proc/sys/kernel/random/uuid)" "$nd/devices/$space/uuid"
    put "$TC_NAMESPACE_BYTES" "$nd/devices/$space/size"
    nd_to_dax "region$window" "$space"
    dax_to_memory "dax$window.0"
  fi
  window=$((window + 1))
done

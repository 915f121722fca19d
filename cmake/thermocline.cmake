# SPDX-License-Identifier: Apache-2.0
# Dependencies, warning flags and the one helper every part of the tree uses.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(tl-expected QUIET)
find_package(PkgConfig REQUIRED)
pkg_check_modules(NUMA REQUIRED IMPORTED_TARGET numa)
pkg_check_modules(URING REQUIRED IMPORTED_TARGET liburing)
pkg_check_modules(HWLOC REQUIRED IMPORTED_TARGET hwloc)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)

add_library(thermocline_flags INTERFACE)
target_include_directories(thermocline_flags INTERFACE
  ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/userspace ${PROJECT_SOURCE_DIR}/kmod)
target_compile_options(thermocline_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wconversion;-Wshadow;-Wnon-virtual-dtor>)
if(THERMOCLINE_WERROR)
  target_compile_options(thermocline_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(THERMOCLINE_SANITIZE)
  target_compile_options(thermocline_flags INTERFACE
    -fsanitize=${THERMOCLINE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(thermocline_flags INTERFACE -fsanitize=${THERMOCLINE_SANITIZE})
endif()
if(THERMOCLINE_COVERAGE)
  target_compile_options(thermocline_flags INTERFACE --coverage)
  target_link_options(thermocline_flags INTERFACE --coverage)
endif()
target_compile_definitions(thermocline_flags INTERFACE
  THERMOCLINE_VERSION="${PROJECT_VERSION}")

# thermocline_layer(NAME SOURCES file... DEPENDS target...)
# One static library a layer. DEPENDS names only layers that stand before it (docs/architecture.md).
function(thermocline_layer name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(thermocline_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(thermocline_${name} PUBLIC thermocline_flags fmt::fmt ${ARG_DEPENDS})
endfunction()

# thermocline_texts(VARIABLE FOLDER file...)
# Texts that are compiled in: sets VARIABLE to lines {"NAME", R"(TEXT)"}, of an array of pairs of
# strings. A text that changes is read again.
function(thermocline_texts variable folder)
  set(lines "")
  foreach(name ${ARGN})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${folder}/${name})
    file(READ ${folder}/${name} text)
    string(APPEND lines "    {\"${name}\", R\"TCTEXT(${text})TCTEXT\"},\n")
  endforeach()
  set(${variable} "${lines}" PARENT_SCOPE)
endfunction()

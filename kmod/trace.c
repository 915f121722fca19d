// SPDX-License-Identifier: GPL-2.0
/* The code of the tracepoints. */
#include "module.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

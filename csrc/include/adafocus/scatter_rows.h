// scatter_rows: the way back of gather_rows, on any device.
#pragma once

#include "adafocus/gather_rows.h"

namespace adafocus {

// The row of `to` that entry j of the index names, if any, becomes row j of `from`. If two entries name one
// row, it becomes one of theirs, or on CUDA parts of several.

// CPU: all of the index, in one thread.
void scatter_rows_fwd_cpu(const RowCopy& p);

// CUDA: launches its kernel on a stream (a cudaStream_t) and returns an error text, or null.
const char* scatter_rows_fwd_cuda(const RowCopy& p, void* stream);

}  // namespace adafocus

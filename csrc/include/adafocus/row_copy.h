// gather_rows and scatter_rows: rows by number, as many of them as a count on the device says, on any device.
#pragma once

#include "adafocus/geometry.h"
#include "adafocus/strided_block.h"

namespace adafocus {

struct RowCopy {
  int64_t element_size;  // 1, 2, 4, 8 or 16 bytes
  StridedBlock row;
  const void* from;                        // gather: x [N, ...]; scatter: rows [M, ...]
  void* to;                                // gather: [M, ...]; scatter: out [N, ...]
  int64_t from_row_stride, to_row_stride;  // in elements
  int64_t num_rows;                        // N
  int64_t num_index;                       // M
  const void* index;                       // [M] int32 or int64, contiguous
  bool index_is_64;
  const int64_t* count;  // how many of the index count, one number on the device; null: all

  // The row that entry j of the index names, or -1.
  AF_HD int64_t named_row(int64_t j) const {
    if (count && j >= *count) return -1;
    const int64_t row =
        index_is_64 ? static_cast<const int64_t*>(index)[j] : static_cast<const int32_t*>(index)[j];
    return row >= 0 && row < num_rows ? row : -1;
  }
};

// gather: row j of `to` is the row of `from` that entry j of the index names, and zero if there is none.
// scatter: the row of `to` that entry j names, if any, becomes row j of `from`. If two entries name one row,
// it becomes one of theirs, or on CUDA parts of several.

// CPU: entries [begin, end) of the index, so that the caller chooses the threads (scatter: one).
void gather_rows_cpu(const RowCopy& p, int64_t begin, int64_t end);
void scatter_rows_cpu(const RowCopy& p);

// CUDA: each launches its kernel on a stream (a cudaStream_t) and returns what went wrong, or null.
const char* gather_rows_cuda(const RowCopy& p, void* stream);
const char* scatter_rows_cuda(const RowCopy& p, void* stream);

}  // namespace adafocus

// gather_rows: rows by number, as many of them as a count on the device says, on any device; and what it
// shares with scatter_rows.
#pragma once

#include "adafocus/dtype.h"
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
  IndexType index_type;
  const int64_t* count;  // how many of the index count, one number on the device; null: all

  const char* from_row(int64_t n) const {
    return static_cast<const char*>(from) + n * from_row_stride * element_size;
  }
  char* to_row(int64_t n) const { return static_cast<char*>(to) + n * to_row_stride * element_size; }

  // The row that entry j of the index names, or -1.
  AF_HD int64_t named_row(int64_t j) const {
    if (count && j >= *count) return -1;
    const int64_t row = load_index(index, index_type, j);
    return row >= 0 && row < num_rows ? row : -1;
  }
};

// Row j of `to` becomes the row of `from` that entry j of the index names, and zero if there is none.

// CPU: entries [begin, end) of the index, so that the caller chooses the threads.
void gather_rows_fwd_cpu(const RowCopy& p, int64_t begin, int64_t end);

// CUDA: launches its kernel on a stream (a cudaStream_t) and returns an error text, or null.
const char* gather_rows_fwd_cuda(const RowCopy& p, void* stream);

}  // namespace adafocus

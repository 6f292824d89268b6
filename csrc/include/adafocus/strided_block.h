// Elements of any strides that are copied to places of any strides.
#pragma once

#include <algorithm>
#include <cstdint>

#include "adafocus/macros.h"

namespace adafocus {

constexpr int kMaxBlockDims = 8;

// Elements in one dimension at least, innermost first; strides in elements.
struct StridedBlock {
  int dims;
  int64_t size[kMaxBlockDims];
  int64_t from_stride[kMaxBlockDims], to_stride[kMaxBlockDims];

  AF_HD int64_t count() const {
    int64_t count = 1;
    for (int d = 0; d < dims; ++d) count *= size[d];
    return count;
  }

  // True if both sides consist of runs of memory, of size[0] elements each, or of one run.
  AF_HD bool has_runs() const { return size[0] == 1 || (from_stride[0] == 1 && to_stride[0] == 1); }
  AF_HD bool is_run() const { return dims == 1 && has_runs(); }
};

struct StridedDim {
  int64_t size, from_stride, to_stride;
};

// The block of these dimensions, at most kMaxBlockDims, which it sorts: innermost first in the memory that is
// written, and merged where both sides go on without a gap.
inline StridedBlock merged_block(StridedDim* dims, int count) {
  std::stable_sort(dims, dims + count,
                   [](const StridedDim& a, const StridedDim& b) { return a.to_stride < b.to_stride; });
  StridedBlock block{};
  for (int d = 0; d < count; ++d) {
    const StridedDim& dim = dims[d];
    if (dim.size == 1) continue;
    const int last = block.dims - 1;
    if (last >= 0 && dim.from_stride == block.size[last] * block.from_stride[last] &&
        dim.to_stride == block.size[last] * block.to_stride[last]) {
      block.size[last] *= dim.size;
      continue;
    }
    block.size[block.dims] = dim.size;
    block.from_stride[block.dims] = dim.from_stride;
    block.to_stride[block.dims++] = dim.to_stride;
  }
  if (block.dims == 0) return {1, {1}, {1}, {1}};
  return block;
}

}  // namespace adafocus

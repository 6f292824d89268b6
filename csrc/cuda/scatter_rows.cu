// scatter_rows on CUDA.
#include "adafocus/scatter_rows.h"
#include "cuda/gather_rows.cuh"

namespace adafocus {
namespace {

template <int kBytes>
__launch_bounds__(kThreads) AF_KERNEL scatter_rows_fwd_kernel(const RowCopy p, uint32_t count) {
  const int64_t j = index_entry();
  if (j >= p.num_index) return;
  const int64_t row = p.named_row(j);
  if (row >= 0) copy_row<kBytes>(p, count, j, row);
}

}  // namespace

const char* scatter_rows_fwd_cuda(const RowCopy& p, void* stream) {
  return launch_row_copy(p, stream, [](auto bytes) { return scatter_rows_fwd_kernel<bytes>; });
}

}  // namespace adafocus

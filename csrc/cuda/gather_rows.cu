// gather_rows on CUDA.
#include "cuda/gather_rows.cuh"

namespace adafocus {
namespace {

template <int kBytes>
__launch_bounds__(kThreads) AF_KERNEL gather_rows_fwd_kernel(const RowCopy p, uint32_t count) {
  const int64_t j = index_entry();
  if (j < p.num_index) copy_row<kBytes>(p, count, p.named_row(j), j);
}

}  // namespace

const char* gather_rows_fwd_cuda(const RowCopy& p, void* stream) {
  return launch_row_copy(p, stream, [](auto bytes) { return gather_rows_fwd_kernel<bytes>; });
}

}  // namespace adafocus

// The raw op of gather_rows: checks and allocation for any device, and how each device runs its kernel.
#include "bindings/gather_rows.h"

namespace adafocus {
namespace {

struct Cpu {
  static void fwd(const RowCopy& p, const Tensor&) {
    parallel_over(p.num_index, p.row.count(),
                  [&](int64_t begin, int64_t end) { gather_rows_fwd_cpu(p, begin, end); });
  }
};

#ifdef USE_CUDA
struct Cuda {
  static void fwd(const RowCopy& p, const Tensor& out) {
    launch_on_device_of(out, [&](void* stream) { return gather_rows_fwd_cuda(p, stream); });
  }
};
#endif

template <class Device>
Tensor fwd(const Tensor& x, const Tensor& index, const OptionalTensor& count) {
  STD_TORCH_CHECK(x.dim() >= 1 && index.dim() == 1, "x must be [N, ...] and index [M]");
  std::vector<int64_t> size(x.sizes().begin(), x.sizes().end());
  size[0] = index.size(0);
  Tensor out = torch::stable::empty(size, x.scalar_type(), std::nullopt, x.device(), std::nullopt,
                                    memory_format_of(x));
  RowCopy p = row_copy_parameters(x, out, x, index, count);
  p.from = x.const_data_ptr();
  p.to = out.mutable_data_ptr();
  if (out.numel() > 0) Device::fwd(p, out);
  return out;
}

}  // namespace
}  // namespace adafocus

STABLE_TORCH_LIBRARY_IMPL(adafocus, CPU, m) {
  m.impl("_gather_rows_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cpu>));
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(adafocus, CUDA, m) {
  m.impl("_gather_rows_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cuda>));
}
#endif

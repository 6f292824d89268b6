// The raw op of scatter_rows: checks for any device, and how each device runs its kernel.
#include "adafocus/scatter_rows.h"

#include "bindings/gather_rows.h"

namespace adafocus {
namespace {

struct Cpu {
  static void fwd(const RowCopy& p, const Tensor&) { scatter_rows_fwd_cpu(p); }
};

#ifdef USE_CUDA
struct Cuda {
  static void fwd(const RowCopy& p, const Tensor& out) {
    launch_on_device_of(out, [&](void* stream) { return scatter_rows_fwd_cuda(p, stream); });
  }
};
#endif

template <class Device>
void fwd(Tensor out, const Tensor& index, const Tensor& rows, const OptionalTensor& count) {
  check_same_device("rows", rows, "out", out);
  RowCopy p = row_copy_parameters(rows, out, out, index, count);
  STD_TORCH_CHECK(rows.size(0) == index.size(0), "rows must be [M, ...] for an index of [M]");
  p.from = rows.const_data_ptr();
  p.to = out.mutable_data_ptr();
  if (rows.numel() > 0) Device::fwd(p, out);
}

}  // namespace
}  // namespace adafocus

STABLE_TORCH_LIBRARY_IMPL(adafocus, CPU, m) {
  m.impl("_scatter_rows_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cpu>));
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(adafocus, CUDA, m) {
  m.impl("_scatter_rows_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cuda>));
}
#endif

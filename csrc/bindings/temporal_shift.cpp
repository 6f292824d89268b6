// The raw op of temporal_shift: checks and allocation for any device, and how each device runs its kernel.
#include "adafocus/temporal_shift.h"

#include "bindings/tensor.h"

namespace adafocus {
namespace {

struct Cpu {
  static void fwd(const TemporalShift& p, const Tensor&) {
    parallel_over(p.to.count, p.to.channels * p.to.height * p.to.width,
                  [&](int64_t begin, int64_t end) { temporal_shift_fwd_cpu(p, begin, end); });
  }
};

#ifdef USE_CUDA
struct Cuda {
  static void fwd(const TemporalShift& p, const Tensor& out) {
    launch_on_device_of(out, [&](void* stream) { return temporal_shift_fwd_cuda(p, stream); });
  }
};
#endif

template <class Device>
Tensor fwd(const Tensor& x, int64_t num_frames, int64_t fold, bool inverse) {
  STD_TORCH_CHECK(x.dim() == 4 && x.scalar_type() != ScalarType::Byte,
                  "x must be a floating-point [B * num_frames, C, H, W]");
  STD_TORCH_CHECK(num_frames > 0 && x.size(0) % num_frames == 0,
                  "x must have a multiple of num_frames=", num_frames, " frames, got ", x.size(0));
  STD_TORCH_CHECK(fold >= 0 && fold <= x.size(1) / 2, "fold must be in [0, C / 2] with C=", x.size(1),
                  ", got ", fold);
  Tensor out = torch::stable::empty(x.sizes(), x.scalar_type(), std::nullopt, x.device(), std::nullopt,
                                    memory_format_of(x));
  const TemporalShift p{readable(x), writable(out), num_frames, fold, inverse};
  if (out.numel() > 0) Device::fwd(p, out);
  return out;
}

}  // namespace
}  // namespace adafocus

STABLE_TORCH_LIBRARY_IMPL(adafocus, CPU, m) {
  m.impl("_temporal_shift_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cpu>));
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(adafocus, CUDA, m) {
  m.impl("_temporal_shift_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cuda>));
}
#endif

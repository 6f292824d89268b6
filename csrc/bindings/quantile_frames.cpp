// The raw op of quantile_frames: checks and allocation for any device, and how each device runs its kernel.
#include "adafocus/quantile_frames.h"

#include "bindings/random.h"

namespace adafocus {
namespace {

struct Cpu {
  static void fwd(const QuantileFrames& p, const Tensor&) {
    parallel_over(p.weights.rows, p.weights.columns + p.k,
                  [&](int64_t begin, int64_t end) { quantile_frames_fwd_cpu(p, begin, end); });
  }
};

#ifdef USE_CUDA
struct Cuda {
  static void fwd(const QuantileFrames& p, const Tensor& out) {
    launch_on_device_of(out, [&](void* stream) { return quantile_frames_fwd_cuda(p, stream); });
  }
};
#endif

template <class Device>
Tensor fwd(const Tensor& weights, int64_t num_frames, int64_t k, const OptionalTensor& jitter,
           const OptionalTensor& seed, const OptionalTensor& row_id) {
  QuantileFrames p{};
  p.weights = matrix("weights", weights);
  STD_TORCH_CHECK(p.weights.columns >= 1, "weights must have a column");
  STD_TORCH_CHECK(1 <= k && k <= num_frames, "k must be from 1 to num_frames = ", num_frames, ", got ", k);
  STD_TORCH_CHECK(!(jitter && seed), "jitter and seed must not both be given");
  p.num_frames = num_frames;
  p.k = k;
  if (jitter) {
    check_same_device("jitter", *jitter, "weights", weights);
    p.jitter = matrix("jitter", *jitter);
    STD_TORCH_CHECK(p.jitter.rows == p.weights.rows && p.jitter.columns == k, "jitter must be [B, k]");
  }
  if (seed) p.random = row_random(*seed, row_id, weights);
  Tensor out = torch::stable::empty({p.weights.rows, k}, ScalarType::Long, std::nullopt, weights.device());
  p.out = static_cast<int64_t*>(out.mutable_data_ptr());
  if (out.numel() > 0) Device::fwd(p, out);
  return out;
}

}  // namespace
}  // namespace adafocus

STABLE_TORCH_LIBRARY_IMPL(adafocus, CPU, m) {
  m.impl("_quantile_frames_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cpu>));
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(adafocus, CUDA, m) {
  m.impl("_quantile_frames_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cuda>));
}
#endif

// The raw op of weighted_sample: checks and allocation for any device, and how each device runs its kernel.
#include "adafocus/weighted_sample.h"

#include "bindings/random.h"

namespace adafocus {
namespace {

struct Cpu {
  static void fwd(const WeightedSample& p, const Tensor&) {
    parallel_over(p.weights.rows * p.num_samples, p.weights.columns,
                  [&](int64_t begin, int64_t end) { weighted_sample_fwd_cpu(p, begin, end); });
  }
};

#ifdef USE_CUDA
struct Cuda {
  static void fwd(const WeightedSample& p, const Tensor& out) {
    launch_on_device_of(out, [&](void* stream) { return weighted_sample_fwd_cuda(p, stream); });
  }
};
#endif

template <class Device>
Tensor fwd(const Tensor& weights, int64_t k, int64_t num_samples, const Tensor& seed,
           const OptionalTensor& row_id) {
  WeightedSample p{};
  p.weights = matrix("weights", weights);
  check_draws(k, p.weights.columns);
  check_num_samples(num_samples);
  p.k = k;
  p.num_samples = num_samples;
  p.random = row_random(seed, row_id, weights);
  Tensor out = torch::stable::empty({p.weights.rows, num_samples, k}, ScalarType::Long, std::nullopt,
                                    weights.device());
  p.out = static_cast<int64_t*>(out.mutable_data_ptr());
  if (out.numel() > 0) Device::fwd(p, out);
  return out;
}

}  // namespace
}  // namespace adafocus

STABLE_TORCH_LIBRARY_IMPL(adafocus, CPU, m) {
  m.impl("_weighted_sample_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cpu>));
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(adafocus, CUDA, m) {
  m.impl("_weighted_sample_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cuda>));
}
#endif

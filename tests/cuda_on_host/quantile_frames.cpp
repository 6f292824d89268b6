// The launcher of quantile_frames for Python.
#include "adafocus/quantile_frames.h"

#include "random.h"

namespace adafocus {
namespace {

void quantile_frames_fwd(const Array& out, const Array& weights, int64_t num_frames, const Array* jitter,
                         const Array* seed, const Array* row_id) {
  QuantileFrames p{};
  p.weights = matrix(weights);
  p.num_frames = num_frames;
  p.k = out.sizes[1];
  if (jitter) p.jitter = matrix(*jitter);
  p.random = random_of(seed, row_id);
  p.out = static_cast<int64_t*>(out.data());
  raise_if(quantile_frames_fwd_cuda(p, nullptr));
}

const cuda_on_host::Bindings bindings([](pybind11::module_& module) {
  module.def("quantile_frames_fwd", &quantile_frames_fwd);
});

}  // namespace
}  // namespace adafocus

// The launcher of weighted_sample for Python.
#include "adafocus/weighted_sample.h"

#include "random.h"

namespace adafocus {
namespace {

void weighted_sample_fwd(const Array& out, const Array& weights, const Array& seed, const Array* row_id) {
  WeightedSample p{};
  p.weights = matrix(weights);
  p.num_samples = out.sizes[1];
  p.k = out.sizes[2];
  p.random = random_of(&seed, row_id);
  p.out = static_cast<int64_t*>(out.data());
  raise_if(weighted_sample_fwd_cuda(p, nullptr));
}

const cuda_on_host::Bindings bindings([](pybind11::module_& module) {
  module.def("weighted_sample_fwd", &weighted_sample_fwd);
});

}  // namespace
}  // namespace adafocus

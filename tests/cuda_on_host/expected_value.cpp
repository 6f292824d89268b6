// The launchers of expected_value for Python.
#include "adafocus/expected_value.h"

#include <algorithm>

#include "random.h"

namespace adafocus {
namespace {

ExpectedValue with_weights(const Array& weights, const Array& coefficients) {
  ExpectedValue p{};
  p.weights = matrix(weights);
  p.coefficients = coefficients.data();
  p.double_precision = coefficients.dtype == "float64";
  return p;
}

void set_draws(ExpectedValue& p, int64_t k, int64_t num_samples, const Array* seed, const Array* row_id) {
  p.k = k;
  p.num_samples = num_samples;
  p.random = random_of(seed, row_id);
}

void set_values(ExpectedValue& p, const Array& values) {
  p.values = values.data();
  p.values_dtype = dtype_of(values);
  p.depth = values.sizes[2];
  std::copy_n(values.strides.begin(), 3, p.value_strides);
}

void expected_value_fwd(const Array& out, const Array& coefficients, const Array& values,
                        const Array& weights, int64_t k, int64_t num_samples, const Array* seed,
                        const Array* row_id) {
  ExpectedValue p = with_weights(weights, coefficients);
  set_draws(p, k, num_samples, seed, row_id);
  set_values(p, values);
  raise_if(expected_value_fwd_cuda(p, matrix(out), nullptr));
}

void expected_value_bwd_values(const Array& d_values, const Array& grad, const Array& weights,
                               const Array& coefficients) {
  ExpectedValue p = with_weights(weights, coefficients);
  set_values(p, d_values);
  raise_if(expected_value_bwd_values_cuda(p, matrix(grad), d_values.data(), nullptr));
}

void expected_value_bwd_weights(const Array& d_weights, const Array& grad, const Array& values,
                                const Array& weights, const Array& coefficients, int64_t k,
                                int64_t num_samples, const Array* seed, const Array* row_id,
                                bool normaliser_grad) {
  ExpectedValue p = with_weights(weights, coefficients);
  set_draws(p, k, num_samples, seed, row_id);
  set_values(p, values);
  raise_if(expected_value_bwd_weights_cuda(p, matrix(grad), normaliser_grad, matrix(d_weights), nullptr));
}

const cuda_on_host::Bindings bindings([](pybind11::module_& module) {
  module.def("expected_value_fwd", &expected_value_fwd);
  module.def("expected_value_bwd_values", &expected_value_bwd_values);
  module.def("expected_value_bwd_weights", &expected_value_bwd_weights);
});

}  // namespace
}  // namespace adafocus

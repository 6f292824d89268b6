// The raw ops of expected_value: checks and allocation for any device, and how each device runs its kernels.
#include "adafocus/expected_value.h"

#include <tuple>

#include "bindings/random.h"

namespace adafocus {
namespace {

struct Cpu {
  static void fwd(const ExpectedValue& p, const Matrix& out, const Tensor&) {
    parallel_over(p.weights.rows, p.weights.columns * (p.num_samples + p.depth),
                  [&](int64_t begin, int64_t end) { expected_value_fwd_cpu(p, out, begin, end); });
  }
  static void bwd_values(const ExpectedValue& p, const Matrix& grad, Tensor& d_values) {
    void* const to = d_values.mutable_data_ptr();
    parallel_over(p.weights.rows, p.weights.columns * p.depth, [&](int64_t begin, int64_t end) {
      expected_value_bwd_values_cpu(p, grad, to, begin, end);
    });
  }
  static void bwd_weights(const ExpectedValue& p, const Matrix& grad, bool normaliser_grad,
                          const Matrix& d_weights, const Tensor&) {
    const int64_t samples = normaliser_grad ? p.num_samples : 0;
    parallel_over(p.weights.rows, p.weights.columns * (samples + p.depth), [&](int64_t begin, int64_t end) {
      expected_value_bwd_weights_cpu(p, grad, normaliser_grad, d_weights, begin, end);
    });
  }
};

#ifdef USE_CUDA
struct Cuda {
  static void fwd(const ExpectedValue& p, const Matrix& out, const Tensor& on) {
    launch_on_device_of(on, [&](void* stream) { return expected_value_fwd_cuda(p, out, stream); });
  }
  static void bwd_values(const ExpectedValue& p, const Matrix& grad, Tensor& d_values) {
    void* const to = d_values.mutable_data_ptr();
    launch_on_device_of(d_values,
                        [&](void* stream) { return expected_value_bwd_values_cuda(p, grad, to, stream); });
  }
  static void bwd_weights(const ExpectedValue& p, const Matrix& grad, bool normaliser_grad,
                          const Matrix& d_weights, const Tensor& on) {
    launch_on_device_of(on, [&](void* stream) {
      return expected_value_bwd_weights_cuda(p, grad, normaliser_grad, d_weights, stream);
    });
  }
};
#endif

void set_weights(ExpectedValue& p, const Tensor& weights) {
  p.weights = matrix("weights", weights);
  STD_TORCH_CHECK(p.weights.columns <= kMaxExpectedValueItems, "weights must have at most ",
                  kMaxExpectedValueItems, " items, got ", p.weights.columns);
}

// The draws; with num_samples = 0 there are none, and the expectation is computed itself.
void set_draws(ExpectedValue& p, const Tensor& weights, int64_t k, int64_t num_samples,
               const OptionalTensor& seed, const OptionalTensor& row_id) {
  check_draws(k, p.weights.columns);
  p.k = k;
  p.num_samples = num_samples;
  if (num_samples == 0) {
    STD_TORCH_CHECK(k <= 2, "k must be at most 2 for the expectation without samples, got ", k);
    return;
  }
  check_num_samples(num_samples);
  STD_TORCH_CHECK(seed, "seed must be given");
  p.random = row_random(*seed, row_id, weights);
}

void set_values(ExpectedValue& p, const Tensor& values, const Tensor& weights) {
  check_same_device("values", values, "weights", weights);
  STD_TORCH_CHECK(
      values.dim() == 3 && values.size(0) == p.weights.rows && values.size(1) == p.weights.columns,
      "values must be [B, T, D]");
  check_floating("values", values.scalar_type());
  p.values = values.const_data_ptr();
  p.values_dtype = dtype_of(values.scalar_type());
  p.depth = values.size(2);
  for (int d = 0; d < 3; ++d) p.value_strides[d] = values.stride(d);
}

// The compute type of all arithmetic but the race's.
ScalarType compute_type(const Tensor& values, const Tensor& weights) {
  const bool wide = values.scalar_type() == ScalarType::Double || weights.scalar_type() == ScalarType::Double;
  return wide ? ScalarType::Double : ScalarType::Float;
}

void set_coefficients(ExpectedValue& p, const Tensor& coefficients, const Tensor& weights) {
  check_same_device("coefficients", coefficients, "weights", weights);
  const ScalarType type = coefficients.scalar_type();
  STD_TORCH_CHECK(coefficients.dim() == 2 && coefficients.size(0) == p.weights.rows &&
                      coefficients.size(1) == p.weights.columns && coefficients.is_contiguous() &&
                      is_compute_type(type),
                  "coefficients must be a contiguous [B, T] of float32 or float64");
  p.coefficients = const_cast<void*>(coefficients.const_data_ptr());
  p.double_precision = type == ScalarType::Double;
}

Matrix gradient(const ExpectedValue& p, const Tensor& grad, const Tensor& weights) {
  check_same_device("grad", grad, "weights", weights);
  const Matrix m = matrix("grad", grad);
  STD_TORCH_CHECK(m.rows == p.weights.rows, "grad must be [B, D]");
  return m;
}

template <class Device>
std::tuple<Tensor, Tensor> fwd(const Tensor& values, const Tensor& weights, int64_t k, int64_t num_samples,
                               const OptionalTensor& seed, const OptionalTensor& row_id) {
  ExpectedValue p{};
  set_weights(p, weights);
  set_draws(p, weights, k, num_samples, seed, row_id);
  set_values(p, values, weights);
  Tensor coefficients = torch::stable::empty({p.weights.rows, p.weights.columns},
                                             compute_type(values, weights), std::nullopt, weights.device());
  set_coefficients(p, coefficients, weights);
  Tensor out =
      torch::stable::empty({p.weights.rows, p.depth}, values.scalar_type(), std::nullopt, weights.device());
  if (coefficients.numel() > 0) Device::fwd(p, matrix("out", out), out);
  return {out, coefficients};
}

template <class Device>
Tensor bwd_values(const Tensor& grad, const Tensor& weights, const Tensor& coefficients, ScalarType dtype) {
  ExpectedValue p{};
  set_weights(p, weights);
  set_coefficients(p, coefficients, weights);
  const Matrix g = gradient(p, grad, weights);
  check_floating("dtype", dtype);
  p.values_dtype = dtype_of(dtype);
  p.depth = g.columns;
  Tensor d_values = torch::stable::empty({p.weights.rows, p.weights.columns, p.depth}, dtype, std::nullopt,
                                         weights.device());
  if (d_values.numel() > 0) Device::bwd_values(p, g, d_values);
  return d_values;
}

template <class Device>
Tensor bwd_weights(const Tensor& grad, const Tensor& values, const Tensor& weights,
                   const Tensor& coefficients, int64_t k, int64_t num_samples, const OptionalTensor& seed,
                   const OptionalTensor& row_id, bool normaliser_grad) {
  ExpectedValue p{};
  set_weights(p, weights);
  set_draws(p, weights, k, num_samples, seed, row_id);
  set_values(p, values, weights);
  set_coefficients(p, coefficients, weights);
  const Matrix g = gradient(p, grad, weights);
  STD_TORCH_CHECK(g.columns == p.depth, "grad must be [B, D]");
  Tensor d_weights = torch::stable::empty({p.weights.rows, p.weights.columns}, weights.scalar_type(),
                                          std::nullopt, weights.device());
  if (d_weights.numel() > 0)
    Device::bwd_weights(p, g, normaliser_grad, matrix("d_weights", d_weights), d_weights);
  return d_weights;
}

}  // namespace
}  // namespace adafocus

STABLE_TORCH_LIBRARY_IMPL(adafocus, CPU, m) {
  m.impl("_expected_value_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cpu>));
  m.impl("_expected_value_bwd_values", TORCH_BOX(&adafocus::bwd_values<adafocus::Cpu>));
  m.impl("_expected_value_bwd_weights", TORCH_BOX(&adafocus::bwd_weights<adafocus::Cpu>));
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(adafocus, CUDA, m) {
  m.impl("_expected_value_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cuda>));
  m.impl("_expected_value_bwd_values", TORCH_BOX(&adafocus::bwd_values<adafocus::Cuda>));
  m.impl("_expected_value_bwd_weights", TORCH_BOX(&adafocus::bwd_weights<adafocus::Cuda>));
}
#endif

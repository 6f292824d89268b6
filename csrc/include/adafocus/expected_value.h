// expected_value: the mean value of weighted sampling without replacement, on any device.
//
// With q[b, t] = 1 / (k M) * sum over samples m and steps i = 1..k of [t not in prefix_{m,i}] / S_{m,i},
// where prefix_{m,i} are the first i - 1 draws of sample m and S_{m,i} = 1 - the sum of their weights,
//   out[b, d] = sum over t of q[b, t] w[b, t] v[b, t, d].
// The draws are those of weighted_sample for the same seed. A weight in a sum is the clean one (race.h).
#pragma once

#include "adafocus/weighted_sample.h"

namespace adafocus {

constexpr int64_t kMaxExpectedValueItems = 1024;  // T

// The least 1 - sum that is more than rounding. Of a step with less, S is the sum of the weights that are
// left, and where that is next to nothing the step adds nothing.
template <class C>
constexpr C kLeastRest = sizeof(C) == 8 ? C(0x1p-44) : C(0x1p-18);
constexpr float kNothing =
    0x1p-64f;  // S of no more is nothing, so that neither 1 / S nor a gradient overflows

// 1 / S of a step, and its derivative by the sum of the prefix's weights. `rest` is 1 - that sum, and `left`
// the sum of the weights that are left, which counts where the rest is rounding.
template <class C>
struct InverseRest {
  C value, slope;

  AF_HD InverseRest(C rest, C left) {
    const bool trusted = rest >= kLeastRest<C>;
    const C s = trusted ? rest : left;
    value = s > C(kNothing) ? C(1) / s : C(0);
    slope = trusted ? value * value : C(0);
  }
};

struct ExpectedValue {
  Matrix weights;  // [B, T]
  int64_t k;
  int64_t num_samples;  // M, or 0 for the expectation itself, in closed form (k <= 2)
  RowRandom random;     // null if M is 0
  const void* values;   // [B, T, D]
  DType values_dtype;
  int64_t depth;             // D
  int64_t value_strides[3];  // in elements
  bool double_precision;     // the compute type of all but the race is double, else float
  void* coefficients;  // q, [B, T] of the compute type, contiguous: written (forward) or read (backward)
};

// CPU: rows [begin, end). `out` and d_weights are contiguous; grad [B, D] has any strides.
void expected_value_fwd_cpu(const ExpectedValue& p, const Matrix& out, int64_t begin, int64_t end);
void expected_value_bwd_values_cpu(const ExpectedValue& p, const Matrix& grad, void* d_values, int64_t begin,
                                   int64_t end);
void expected_value_bwd_weights_cpu(const ExpectedValue& p, const Matrix& grad, bool normaliser_grad,
                                    const Matrix& d_weights, int64_t begin, int64_t end);

// CUDA: each launches its kernel on a stream (a cudaStream_t) and returns an error text, or null.
const char* expected_value_fwd_cuda(const ExpectedValue& p, const Matrix& out, void* stream);
const char* expected_value_bwd_values_cuda(const ExpectedValue& p, const Matrix& grad, void* d_values,
                                           void* stream);
const char* expected_value_bwd_weights_cuda(const ExpectedValue& p, const Matrix& grad, bool normaliser_grad,
                                            const Matrix& d_weights, void* stream);

}  // namespace adafocus

// expected_value on the CPU: from coefficients and values to the output and the gradients, row by row.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <type_traits>

#include "adafocus/expected_value.h"
#include "cpu/dispatch.h"
#include "cpu/expected_value_expectation.inl"
#include "cpu/isa.h"
#include "cpu/matrix.inl"
#include "cpu/scratch.h"

namespace adafocus {
namespace AF_ISA {
namespace {

// values [T, D] of row b
AF_HD Matrix values_of(const ExpectedValue& p, int64_t b) {
  Matrix values{};
  visit_float(p.values_dtype, [&](auto tag) {
    using V = typename decltype(tag)::type;
    values.data = static_cast<V*>(const_cast<void*>(p.values)) + b * p.value_strides[0];
  });
  values.dtype = p.values_dtype;
  values.rows = p.weights.columns;
  values.columns = p.depth;
  values.row_stride = p.value_strides[1];
  values.column_stride = p.value_strides[2];
  return values;
}

// sum [D] = the sum of rows, each times its q and its weight.
template <class C>
void sum_values(const Matrix& values, const C* q, const C* weight, C* __restrict__ sum) {
  memset(sum, 0, values.columns * sizeof(C));
  for (int64_t t = 0; t < values.rows; ++t) {
    const C scale = q[t] * weight[t];
    with_row(values, t, [&](const auto* value, auto stride) {
      for (int64_t d = 0; d < values.columns; ++d) sum[d] += scale * load_as<C>(value[d * stride]);
    });
  }
}

// The product of row t with g [D].
template <class C>
C dot_row(const Matrix& values, int64_t t, const C* __restrict__ g) {
  C sum = 0;
  with_row(values, t, [&](const auto* value, auto stride) {
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < values.columns; ++d) sum += load_as<C>(value[d * stride]) * g[d];
  });
  return sum;
}

// coefficients [T] of row b
template <class C>
C* coefficients_of(const ExpectedValue& p, int64_t b) {
  return static_cast<C*>(p.coefficients) + b * p.weights.columns;
}

template <class C>
void fwd_range(const ExpectedValue& p, const Matrix& out, int64_t begin, int64_t end) {
  Scratch scratch;
  C* const weight = scratch.take<C>(p.weights.columns);  // [T]
  C* const sum = scratch.take<C>(p.depth);               // [D]
  Expectation<C> expectation(scratch, p);
  for (int64_t b = begin; b < end; ++b) {
    C* const q = coefficients_of<C>(p, b);
    read_clean_weights(p.weights, b, weight);
    expectation.coefficients(b, weight, q);
    sum_values(values_of(p, b), q, weight, sum);
    write_row(sum, out, b);
  }
}

template <class C>
void bwd_values_range(const ExpectedValue& p, const Matrix& grad, void* d_values, int64_t begin,
                      int64_t end) {
  const int64_t T = p.weights.columns, D = p.depth;
  Scratch scratch;
  C* const weight = scratch.take<C>(T);  // [T]
  C* const g = scratch.take<C>(D);       // [D]
  for (int64_t b = begin; b < end; ++b) {
    const C* const q = coefficients_of<C>(p, b);
    read_clean_weights(p.weights, b, weight);
    read_row(grad, b, g);
    visit_float(p.values_dtype, [&](auto tag) {
      using V = typename decltype(tag)::type;
      for (int64_t t = 0; t < T; ++t) {
        V* __restrict__ const to = static_cast<V*>(d_values) + (b * T + t) * D;
        const C scale = q[t] * weight[t];
        for (int64_t d = 0; d < D; ++d) to[d] = Store<V>::from(scale * g[d]);
      }
    });
  }
}

template <class C>
void bwd_weights_range(const ExpectedValue& p, const Matrix& grad, bool normaliser_grad,
                       const Matrix& d_weights, int64_t begin, int64_t end) {
  const int64_t T = p.weights.columns;
  Scratch scratch;
  C* const weight = scratch.take<C>(T);    // [T]
  C* const g = scratch.take<C>(p.depth);   // [D]
  C* const by_item = scratch.take<C>(T);   // [T] <g, v>
  C* const weighted = scratch.take<C>(T);  // [T] w <g, v>
  C* const slope = scratch.take<C>(T);     // [T] gradient by way of the normalisers
  C* const gradient = scratch.take<C>(T);  // [T]
  std::optional<Expectation<C>> expectation;
  if (normaliser_grad) expectation.emplace(scratch, p);
  for (int64_t b = begin; b < end; ++b) {
    const C* const q = coefficients_of<C>(p, b);
    const Matrix values = values_of(p, b);
    read_row(grad, b, g);
    for (int64_t t = 0; t < T; ++t) by_item[t] = dot_row(values, t, g);
    if (expectation) {
      read_clean_weights(p.weights, b, weight);
      for (int64_t t = 0; t < T; ++t) weighted[t] = weight[t] * by_item[t];
      expectation->slopes(b, weight, weighted, slope);
    }
    read_row(p.weights, b, weight);
    for (int64_t t = 0; t < T; ++t) {
      const C by_weight = q[t] * by_item[t] + (expectation ? slope[t] : C(0));
      gradient[t] = weight[t] >= C(0) ? by_weight : C(0);
    }
    write_row(gradient, d_weights, b);
  }
}

}  // namespace
}  // namespace AF_ISA

void AF_ISA::expected_value_fwd(const ExpectedValue& p, const Matrix& out, int64_t begin, int64_t end) {
  visit_compute(p.double_precision,
                [&](auto tag) { fwd_range<typename decltype(tag)::type>(p, out, begin, end); });
}

void AF_ISA::expected_value_bwd_values(const ExpectedValue& p, const Matrix& grad, void* d_values,
                                       int64_t begin, int64_t end) {
  visit_compute(p.double_precision, [&](auto tag) {
    bwd_values_range<typename decltype(tag)::type>(p, grad, d_values, begin, end);
  });
}

void AF_ISA::expected_value_bwd_weights(const ExpectedValue& p, const Matrix& grad, bool normaliser_grad,
                                        const Matrix& d_weights, int64_t begin, int64_t end) {
  visit_compute(p.double_precision, [&](auto tag) {
    bwd_weights_range<typename decltype(tag)::type>(p, grad, normaliser_grad, d_weights, begin, end);
  });
}

}  // namespace adafocus

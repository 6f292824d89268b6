// Rows of floating-point matrices of any strides, read and written in the compute type.
#pragma once

#include <cstdint>
#include <type_traits>

#include "adafocus/matrix.h"
#include "adafocus/race.h"
#include "cpu/isa.h"

namespace adafocus {
namespace AF_ISA {
namespace {

// Calls f(stride), with a stride of 1 as a constant: loops over it are vectorised then.
template <class F>
AF_HD void with_stride(int64_t stride, const F& f) {
  stride == 1 ? f(std::integral_constant<int64_t, 1>{}) : f(stride);
}

// Calls f(pointer to the row, stride) with the row's own type and stride.
template <class F>
AF_HD void with_row(const Matrix& m, int64_t row, const F& f) {
  visit_float(m.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* const elements = static_cast<T*>(m.data) + m.offset(row, 0);
    with_stride(m.column_stride, [&](auto stride) { f(elements, stride); });
  });
}

// out [columns] = a row
template <class C>
void read_row(const Matrix& m, int64_t row, C* __restrict__ out) {
  with_row(m, row, [&](const auto* elements, auto stride) {
    for (int64_t t = 0; t < m.columns; ++t) out[t] = load_as<C>(elements[t * stride]);
  });
}

// out [columns] = the clean weights of a row, each cleaned in its own compute type
template <class C>
void read_clean_weights(const Matrix& weights, int64_t row, C* __restrict__ out) {
  with_row(weights, row, [&](const auto* elements, auto stride) {
    using Own = compute_t<std::decay_t<decltype(*elements)>>;
    for (int64_t t = 0; t < weights.columns; ++t) {
      out[t] = C(clean_weight(load_as<Own>(elements[t * stride])));
    }
  });
}

// a row = from [columns]
template <class C>
void write_row(const C* __restrict__ from, const Matrix& m, int64_t row) {
  with_row(m, row, [&](auto* elements, auto stride) {
    using T = std::remove_pointer_t<decltype(elements)>;
    for (int64_t t = 0; t < m.columns; ++t) elements[t * stride] = Store<T>::from(from[t]);
  });
}

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

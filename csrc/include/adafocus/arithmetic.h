// Arithmetic on numbers of any type.
#pragma once

#include <cmath>
#include <type_traits>

#include "adafocus/macros.h"

namespace adafocus {

// a b + c, rounded once. Written so where every backend must find the same number: compilers fuse a product
// with a sum, or don't, as they like.
template <class C>
AF_HD C fused_multiply_add(C a, C b, C c) {
  return std::fma(a, b, c);
}

// Comparisons without a branch and without a library call.

template <class C>
AF_HD bool is_finite(C x) {
  return x - x == C(0);
}

template <class C>
AF_HD C min_of(C a, C b) {
  return a < b ? a : b;
}

template <class C>
AF_HD C max_of(C a, C b) {
  return a > b ? a : b;
}

template <class C>
AF_HD C clamp_to(C x, C low, C high) {
  return min_of(max_of(x, low), high);
}

// Units that hold so many, the last of which may be less than full.
template <class I>
AF_HD constexpr I divide_up(I count, std::common_type_t<I> unit) {
  return (count + unit - 1) / unit;
}

}  // namespace adafocus

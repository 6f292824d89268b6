// Comparisons of numbers of any type, without a branch and without a library call.
#pragma once

#include "adafocus/macros.h"

namespace adafocus {

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

}  // namespace adafocus

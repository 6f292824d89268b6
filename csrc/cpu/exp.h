// The exponential function, which compilers vectorise.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafocus/dtype.h"

namespace adafocus {

// The numbers of a floating-point format that exp needs.
template <class C>
struct Exp;

template <>
struct Exp<float> {
  using Bits = uint32_t;
  static constexpr int kMantissa = 23, kBias = 127, kTerms = 7;
  static constexpr float kLeast = -87.0f;  // exp of less is no normal number
  // log 2 in two parts, of which the first has so few bits that it times n is exact.
  static constexpr double kLog2High = 0x1.62e4p-1, kLog2Low = 1.428606820309417232e-6;
};

template <>
struct Exp<double> {
  using Bits = uint64_t;
  static constexpr int kMantissa = 52, kBias = 1023, kTerms = 13;
  static constexpr double kLeast = -708.0;  // exp of less is no normal number
  static constexpr double kLog2High = 0x1.62e42feep-1, kLog2Low = 1.908214929270587700e-10;
};

constexpr double factorial(int n) { return n == 0 ? 1.0 : n * factorial(n - 1); }

// The sum over i >= 0 of r^i / (k + i)!, as far as its terms count.
template <class C, int k>
AF_HD C taylor_from(C r) {
  constexpr C coefficient = C(1 / factorial(k));
  if constexpr (k == Exp<C>::kTerms) {
    return coefficient;
  } else {
    return taylor_from<C, k + 1>(r) * r + coefficient;
  }
}

// exp x for kLeast <= x <= 0, where it is a normal number, to 2 units in the last place; NaN stays NaN.
// With n = x / log 2, rounded, and r = x - n log 2, it is 2^n times the Taylor series of exp r, |r| <= 0.35.
template <class C>
AF_HD C exp_of_nonpositive(C x) {
  using E = Exp<C>;
  // Adding this leaves n, rounded, and the bias of the exponent in the low bits.
  constexpr C kShift = C(1.5) * C(int64_t(1) << E::kMantissa) + C(E::kBias);
  const C shifted = x * C(1.442695040888963407) + kShift, n = shifted - kShift;
  const C r = x - n * C(E::kLog2High) - n * C(E::kLog2Low);
  typename E::Bits bits;
  memcpy(&bits, &shifted, sizeof(bits));
  bits <<= E::kMantissa;
  C power;  // 2^n
  memcpy(&power, &bits, sizeof(power));
  return taylor_from<C, 0>(r) * power;
}

}  // namespace adafocus

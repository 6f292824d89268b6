// Weighted sampling without replacement as a race: item t arrives at time E_t / w_t with E_t exponential, and
// the first k to arrive are the k draws, in their order: P(next is t) = w_t / sum of those left (docs/method,
// M10 and M11).
//
// Every backend must see the same order. So times are made of float32 operations that all of them round
// alike: fused multiply-adds that are written as such, single multiplications, and correctly rounded
// divisions.
#pragma once

#include "adafocus/arithmetic.h"
#include "adafocus/dtype.h"
#include "adafocus/philox.h"

namespace adafocus {

// log(1 + x) / x for x in [-1/4, 1/2), to 1e-7: a Chebyshev fit.
AF_HD float log1p_over_x(float x) {
  constexpr int kDegree = 8;
  constexpr float kCoefficient[kDegree + 1] = {0x1.p+0f,        -0x1.000018p-1f, 0x1.5555c8p-2f,
                                               -0x1.ffdadcp-3f, 0x1.992bacp-3f,  -0x1.58cb88p-3f,
                                               0x1.32a51ap-3f,  -0x1.e9c066p-4f, 0x1.b1c66ep-5f};
  float sum = kCoefficient[kDegree];
  AF_UNROLL
  for (int n = kDegree - 1; n >= 0; --n) sum = fused_multiply_add(sum, x, kCoefficient[n]);
  return sum;
}

// -log(u) for u = uniform(word) before its rounding: exact to 3e-7 of itself for the largest u, which
// win races, as for the smallest.
AF_HD float exponential(uint32_t word) {
  // u = 1 - word / 2^32 is near 1: log(1 + x) with x = u - 1, without the rounding of u.
  const bool near_one = word < 0x40000000u;
  // Else u = 2^(exponent - 32) (1 + x) with 1 + x in [3/4, 3/2).
  const uint32_t bits = bits_of(float(0u - word)) - 0x3f400000u;
  const float x = near_one ? -(float(word) * 0x1p-32f) : float_of((bits & 0x7fffffu) + 0x3f400000u) - 1.0f;
  const float halvings = near_one ? 0.0f : float(32 - int32_t(bits >> 23));
  return fused_multiply_add(-x, log1p_over_x(x), halvings * 0x1.62e43p-1f);
}

// Weight that counts: negative ones and NaN are zero, infinity is the largest number.
template <class C>
AF_HD C clean_weight(C w) {
  constexpr C kLargest = sizeof(C) == 8 ? C(0x1.fffffffffffffp1023) : C(0x1.fffffep127f);
  return w > C(0) ? (w < kLargest ? w : kLargest) : C(0);
}

// The power of two that brings the largest clean weight of a row to about 1.
AF_HD float race_scale(float largest) {
  const uint32_t exponent = bits_of(largest) >> 23;
  return float_of((exponent < 253 ? 254 - exponent : 1) << 23);
}

AF_HD double race_scale(double largest) {
  uint64_t bits;
  memcpy(&bits, &largest, sizeof(bits));
  const uint64_t exponent = bits >> 52;
  bits = (exponent < 2045 ? 2046 - exponent : 1) << 52;
  memcpy(&largest, &bits, sizeof(bits));
  return largest;
}

// The weight that takes part in the race: 0, or at least 2^-120 so that no time overflows.
template <class C>
AF_HD float race_weight(C w, C scale) {
  const float scaled = float(clean_weight(w) * scale);
  return !(w > C(0)) ? 0.0f : scaled < 0x1p-120f ? 0x1p-120f : scaled;
}

// Time of an item's arrival. Items of weight zero come last, at infinity; ties are won by the lower index.
AF_HD float arrival(uint32_t word, float race_weight) {
  return race_weight > 0.0f ? exponential(word) / race_weight : float_of(0x7f800000u);
}

// Arrivals as integers, in their order: earlier is less, and for equal times the lower index is.
AF_HD uint64_t race_key(float arrival, uint32_t index) { return uint64_t(bits_of(arrival)) << 32 | index; }

}  // namespace adafocus

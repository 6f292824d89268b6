// Where an output position samples an axis, and with which weights: once for every kernel.
#pragma once

#include <cstdint>

#include "adafocus/macros.h"

namespace adafocus {

// (i + 1/2) / P - 1/2: the derivative of the position by the box's extent.
template <class C>
AF_HD C sample_offset(int64_t i, int64_t positions) {
  return (C(i) + C(0.5)) / C(positions) - C(0.5);
}

// The two neighbours of a sample on an axis, `first` and `first` + 1, and their weights.
template <class C>
struct Tap {
  int64_t first;  // in [-2, size]: -2 and size read padding only
  C u0, u1;
};

// Splits the position of sample i, centre + extent * sample_offset(i) - 1/2 as a pixel index, into a tap.
// It is written so that a box of whole pixels and of the output's size has whole positions, without
// rounding. Positions two pixels outside read padding only, so clamping there changes nothing but keeps
// the conversion to an index defined for any finite box.
template <class C>
AF_HD Tap<C> sample_tap(C centre, C extent, int64_t i, int64_t positions, int64_t size) {
  const C begin = centre - extent / C(2), step = extent / C(positions);
  C position = begin + step * (C(i) + C(0.5)) - C(0.5);
  position = position > C(-2) ? position : C(-2);
  position = position < C(size) ? position : C(size);
  int64_t first = int64_t(position);
  first -= C(first) > position;  // floor
  first = first < size ? first : size;  // a size beyond 2^24 is no float
  const C u1 = position - C(first);
  return {first, C(1) - u1, u1};
}

template <class C>
AF_HD bool is_finite(C x) {
  return x - x == C(0);
}

// Four numbers of a box, (cy, cx, h, w).
template <class C>
struct Box {
  C cy, cx, h, w;
  AF_HD bool finite() const { return is_finite(cy) && is_finite(cx) && is_finite(h) && is_finite(w); }
};

}  // namespace adafocus

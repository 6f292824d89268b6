// A box, and what depends on its centre and its extent on an axis.
#pragma once

#include <cstdint>

#include "adafocus/arithmetic.h"

namespace adafocus {

// Four numbers of a box, (cy, cx, h, w), in pixels of the frame.
template <class C>
struct Box {
  C cy, cx, h, w;
  AF_HD bool finite() const { return is_finite(cy) && is_finite(cx) && is_finite(h) && is_finite(w); }
};

// A number that depends on a box's centre and extent on an axis, and its derivatives by them.
template <class C>
struct Dual {
  C value, by_centre, by_extent;
  AF_HD Dual& operator+=(const Dual& other) {
    value += other.value;
    by_centre += other.by_centre;
    by_extent += other.by_extent;
    return *this;
  }
};

// (i + 1/2) / P - 1/2: the derivative of output i's position by the box's extent, in (-1/2, 1/2).
template <class C>
AF_HD C sample_offset(int64_t i, int64_t positions) {
  return (C(i) + C(0.5)) / C(positions) - C(0.5);
}

}  // namespace adafocus

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

// Outputs are numbered by integers of any type I: 32 bits take a GPU a few instructions less.

// How many outputs output i of P is away from the middle of the box, i - (P - 1) / 2: exact.
template <class C, class I>
AF_HD C steps_from_middle(I i, I positions) {
  return C(i) - C(positions - 1) / C(2);
}

// (2 i + 1 - P) / (2 P): the derivative of output i's position by the box's extent, in (-1/2, 1/2).
template <class C, class I>
AF_HD C sample_offset(I i, I positions) {
  return steps_from_middle<C>(i, positions) / C(positions);
}

// The position of output i, centre + extent * sample_offset(i), where pixel r covers [r, r + 1). It is exact
// in the middle of a box of any size, and for a box of whole pixels and of the output's size.
template <class C, class I>
AF_HD C sample_position(C centre, C extent, I i, I positions) {
  return fused_multiply_add(extent / C(positions), steps_from_middle<C>(i, positions), centre);
}

}  // namespace adafocus

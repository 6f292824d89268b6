// The pixels that one output reads of an axis by bilinear interpolation: two neighbouring pixels.
#pragma once

#include "adafocus/box.h"

namespace adafocus {

// The two neighbours of a position on an axis, pixels `first` and `first` + 1, and their weights.
template <class C, class I = int64_t>
struct Tap {
  I first;   // in [-2, size]: -2 and size read padding only
  C u0, u1;  // 1 - u and u, with u the position's fraction
};

// Splits the position of output i into a tap. Positions two pixels outside read padding only, so clamping
// there changes nothing but keeps the conversion to an index defined for any finite box.
template <class C, class I>
AF_HD Tap<C, I> sample_tap(C centre, C extent, I i, I positions, I size) {
  C position = sample_position(centre, extent, i, positions) - C(0.5);  // as a pixel index
  position = position > C(-2) ? position : C(-2);
  position = position < C(size) ? position : C(size);
  I first = I(position);
  first -= C(first) > position;         // floor
  first = first < size ? first : size;  // a size beyond 2^24 is no float
  const C u1 = position - C(first);
  return {first, C(1) - u1, u1};
}

// A footprint (see geometry.h) of two taps, with pixels and outputs numbered by integers of type I.
template <class C, class I>
struct BilinearFootprintOf {
  I begin, end;  // the frame's pixels that are read, [begin, end)

  AF_HD BilinearFootprintOf(C centre, C extent, I i, I positions, I size, bool border)
      : tap_(sample_tap(centre, extent, i, positions, size)), offset_(sample_offset<C>(i, positions)) {
    first_ = tap_.first;
    second_ = tap_.first + 1;
    if (border) {
      first_ = clamp_to<I>(first_, 0, size - 1);
      second_ = clamp_to<I>(second_, 0, size - 1);
    }
    begin = max_of<I>(first_, 0);
    end = min_of<I>(second_ + 1, size);
  }

  // The two neighbours, each with the pixel whose value it has, and its weight; that may lie outside the
  // frame, and with copies of the edge both may have the same.
  struct Neighbours {
    I first, second;
    C u0, u1;
  };
  AF_HD Neighbours neighbours() const { return {first_, second_, tap_.u0, tap_.u1}; }

  AF_HD Dual<C> weight(I r) const {
    const C at_first = r == first_ ? C(1) : C(0), at_second = r == second_ ? C(1) : C(0);
    const C by_position = at_second - at_first;
    return {at_first * tap_.u0 + at_second * tap_.u1, by_position, by_position * offset_};
  }

 private:
  Tap<C, I> tap_;  // the two neighbours, in the frame or not
  C offset_;       // the derivative of the position by the extent
  I first_;        // the pixel whose value the first neighbour has: itself, or the nearest edge pixel
  I second_;       // the pixel whose value the second neighbour has
};

template <class C>
using BilinearFootprint = BilinearFootprintOf<C, int64_t>;

// For axes of at most kMost32 pixels and outputs.
constexpr int64_t kMost32 = int64_t(1) << 30;
template <class C>
using BilinearFootprint32 = BilinearFootprintOf<C, int32_t>;

}  // namespace adafocus

// The other direction of a footprint: which outputs read a pixel, and how much all of them read of it.
#pragma once

#include "adafocus/bilinear_footprint.h"

namespace adafocus {

// Outputs, or pixels, [begin, end) of an axis, numbered by integers of type I.
template <class I>
struct RangeOf {
  I begin, end;
};

using Range = RangeOf<int64_t>;

// The outputs of an axis in the order of position: the last comes first in a mirrored box.
template <class C, class I>
AF_HD I output_in_order(I m, C extent, I positions) {
  return extent < C(0) ? positions - 1 - m : m;
}

// The first output, in the order of position, that reads pixel r or lies past it. Positions are monotone in
// the output, so that a binary search over the footprints' own ranges finds it, whatever the rounding.
template <template <class> class Footprint, class C, class I>
AF_HD I first_reader(I r, C centre, C extent, I positions, I size, bool border) {
  I low = 0, high = positions;
  while (low < high) {
    const I middle = (low + high) / 2;
    const Footprint<C> footprint(centre, extent, output_in_order(middle, extent, positions), positions, size,
                                 border);
    if (footprint.end > r) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// The outputs that read pixel r: they are neighbours, and as few as whoever asks for them has to visit.
template <template <class> class Footprint, class C, class I>
AF_HD RangeOf<I> readers_of(I r, C centre, C extent, I positions, I size, bool border) {
  const I first = first_reader<Footprint>(r, centre, extent, positions, size, border);
  I last = first;  // and one
  while (
      last < positions &&
      Footprint<C>(centre, extent, output_in_order(last, extent, positions), positions, size, border).begin <=
          r) {
    ++last;
  }
  return extent < C(0) ? RangeOf<I>{positions - last, positions - first} : RangeOf<I>{first, last};
}

// The part of pixel r that the mean over all outputs reads, bilinearly. Without any output that reads it the
// weight and its derivative by the centre are zero; with one they are not both (see is_read).
template <class C>
AF_HD Dual<C> mean_weight(int64_t r, C centre, C extent, int64_t positions, int64_t size, bool border) {
  const Range readers = readers_of<BilinearFootprint>(r, centre, extent, positions, size, border);
  Dual<C> sum{C(0), C(0), C(0)};
  for (int64_t i = readers.begin; i < readers.end; ++i) {
    sum += BilinearFootprint<C>(centre, extent, i, positions, size, border).weight(r);
  }
  const C share = C(1) / C(positions);
  return {sum.value * share, sum.by_centre * share, sum.by_extent * share};
}

template <class C>
AF_HD bool is_read(const Dual<C>& mean_weight) {
  return mean_weight.value != C(0) || mean_weight.by_centre != C(0);
}

// Pixels [begin, end) of an axis: those that outputs read, and those between.
template <template <class> class Footprint, class C, class I>
AF_HD RangeOf<I> pixels_of(C centre, C extent, I positions, I size, bool border) {
  const Footprint<C> first(centre, extent, 0, positions, size, border);
  const Footprint<C> last(centre, extent, positions - 1, positions, size, border);
  return {min_of(first.begin, last.begin), max_of(first.end, last.end)};
}

}  // namespace adafocus

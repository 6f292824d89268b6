// The other direction of a footprint: which outputs read a pixel, and how much all of them read of it.
#pragma once

#include "adafocus/bilinear_footprint.h"

namespace adafocus {

// Outputs, or pixels, [begin, end) of an axis.
struct Range {
  int64_t begin, end;
};

// The outputs that read pixel r: positions are monotone in the output, so two binary searches over the
// footprints' own ranges find them, whatever the rounding.
template <template <class> class Footprint, class C>
AF_HD Range readers_of(int64_t r, C centre, C extent, int64_t positions, int64_t size, bool border) {
  const bool mirrored = extent < C(0);
  // The first output, in order of position, that reads r or lies past it.
  const auto search = [&](bool past) {
    int64_t low = 0, high = positions;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      const Footprint<C> footprint(centre, extent, mirrored ? positions - 1 - middle : middle, positions,
                                   size, border);
      if (past ? footprint.begin > r : footprint.end > r) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  };
  const int64_t begin = search(false), end = search(true);
  return mirrored ? Range{positions - end, positions - begin} : Range{begin, end};
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
template <template <class> class Footprint, class C>
AF_HD Range pixels_of(C centre, C extent, int64_t positions, int64_t size, bool border) {
  const Footprint<C> first(centre, extent, 0, positions, size, border);
  const Footprint<C> last(centre, extent, positions - 1, positions, size, border);
  return {min_of(first.begin, last.begin), max_of(first.end, last.end)};
}

}  // namespace adafocus

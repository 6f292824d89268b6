// Where an output position samples an axis, and with which weights: once for every kernel.
#pragma once

#include <cmath>
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
  first -= C(first) > position;         // floor
  first = first < size ? first : size;  // a size beyond 2^24 is no float
  const C u1 = position - C(first);
  return {first, C(1) - u1, u1};
}

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

// Four numbers of a box, (cy, cx, h, w).
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

// What one output position reads of an axis: the frame's pixels [begin, end), pixel r with weight(r).
// Both kinds have the same members, so that what must be right for every call is written once over them.

// The two taps of bilinear interpolation.
template <class C>
struct BilinearFootprint {
  int64_t begin, end;

  AF_HD BilinearFootprint(C centre, C extent, int64_t i, int64_t positions, int64_t size, bool border)
      : tap_(sample_tap(centre, extent, i, positions, size)), offset_(sample_offset<C>(i, positions)) {
    first_ = tap_.first;
    second_ = tap_.first + 1;
    if (border) {
      first_ = clamp_to<int64_t>(first_, 0, size - 1);
      second_ = clamp_to<int64_t>(second_, 0, size - 1);
    }
    begin = max_of<int64_t>(first_, 0);
    end = min_of<int64_t>(second_ + 1, size);
  }

  AF_HD Dual<C> weight(int64_t r) const {
    const C at_first = r == first_ ? C(1) : C(0), at_second = r == second_ ? C(1) : C(0);
    const C by_position = at_second - at_first;
    return {at_first * tap_.u0 + at_second * tap_.u1, by_position, by_position * offset_};
  }

 private:
  Tap<C> tap_;
  C offset_;
  int64_t first_, second_;
};

// Antialiasing: the axis of the box is cut out first and then resized, by a triangle filter that is as
// wide as the downscaling. Pixel r, which covers [r, r + 1), weighs
//
//   raw(r) = max(0, 1 - |r + 1/2 - q| / s) * |[r, r + 1) and [low, high)|
//   weight(r) = raw(r) / sum of raw
//
// at position q = centre + extent * sample_offset(i), with reach s = max(|extent| / P, 1), and the ends of
// the box, low and high = centre -+ max(|extent|, 1) / 2: a box thinner than a pixel is taken as one pixel.
// The sum runs over all pixels, those outside the frame too; they hold zero, or the nearest edge pixel.
// An end of the box that lies on a pixel's edge takes its derivative on the inner side.
// Pixel numbers are of type C here, since those outside the frame may be beyond any integer.
template <class C>
struct AntialiasedFootprint {
  int64_t begin, end;

  AF_HD AntialiasedFootprint(C centre, C extent, int64_t i, int64_t positions, int64_t size, bool border)
      : size_(size), border_(border) {
    // Larger boxes are all alike; the products below must not overflow.
    const C huge = C(int64_t(1) << 60);
    centre = clamp_to(centre, -huge, huge);
    extent = clamp_to(extent, -huge, huge);
    const C step = extent / C(positions), sign = extent < C(0) ? C(-1) : C(1);
    const C length = max_of(sign * extent, C(1));
    offset_ = sample_offset<C>(i, positions);
    position_ = centre - extent / C(2) + step * (C(i) + C(0.5));
    reach_ = max_of(sign * step, C(1));
    reach_by_extent_ = sign * step > C(1) ? sign / C(positions) : C(0);
    low_ = centre - length / C(2);
    high_ = centre + length / C(2);
    high_by_extent_ = sign * extent > C(1) ? sign / C(2) : C(0);
    first_ = max_of(std::floor(position_ - reach_ - C(0.5)) + C(1), std::floor(low_));
    last_ = min_of(std::ceil(position_ + reach_ - C(0.5)), std::ceil(high_)) - C(1);
    total_ = sum(first_, last_);
    const C last_pixel = C(size - 1), outermost = border ? last_pixel : C(size);
    // (A size beyond 2^24 is no float, hence the bounds after the conversion.)
    begin = min_of<int64_t>(int64_t(clamp_to(first_, C(0), outermost)), border ? size - 1 : size);
    end = min_of<int64_t>(int64_t(clamp_to(last_, border ? C(0) : C(-1), last_pixel)) + 1, size);
  }

  AF_HD Dual<C> weight(int64_t r) const {
    Dual<C> w = raw(C(r));
    if (border_ && r == 0) w += sum(first_, C(-1));
    if (border_ && r == size_ - 1) w += sum(C(size_), last_);
    const C scale = total_.value > C(0) ? C(1) / total_.value : C(0);
    const C value = w.value * scale;
    return {value, (w.by_centre - value * total_.by_centre) * scale,
            (w.by_extent - value * total_.by_extent) * scale};
  }

 private:
  // A number and its derivatives, from those by the position and the reach.
  AF_HD Dual<C> by_box(C value, C by_position, C by_reach) const {
    return {value, by_position, by_position * offset_ + by_reach * reach_by_extent_};
  }

  // 1 - |r + 1/2 - q| / s.
  AF_HD Dual<C> triangle(C r) const {
    const C distance = r + C(0.5) - position_, side = distance < C(0) ? C(-1) : C(1), away = side * distance;
    return by_box(C(1) - away / reach_, side / reach_, away / (reach_ * reach_));
  }

  AF_HD Dual<C> raw(C r) const {
    const Dual<C> height = triangle(r);
    if (!(height.value > C(0))) return {C(0), C(0), C(0)};
    const C cover = clamp_to(min_of(r + C(1), high_) - max_of(r, low_), C(0), C(1));
    const C cut_low = low_ >= r && low_ < r + C(1) ? C(1) : C(0);
    const C cut_high = high_ > r && high_ <= r + C(1) ? C(1) : C(0);
    return {height.value * cover, height.by_centre * cover + height.value * (cut_high - cut_low),
            height.by_extent * cover + height.value * (cut_high + cut_low) * high_by_extent_};
  }

  // The sum of raw over pixels from..to of those that have weight, in closed form: two arithmetic series
  // for the triangle's sides; what the ends of the box cut off their two pixels is put right after.
  AF_HD Dual<C> sum(C from, C to) const {
    from = max_of(from, first_);
    to = min_of(to, last_);
    if (!(from <= to)) return {C(0), C(0), C(0)};
    const C peak =
        clamp_to(std::floor(position_ - C(0.5)), from - C(1), to);  // last pixel of the rising side
    const C rising = peak - from + C(1), falling = to - peak;
    const C away = rising * (position_ - C(0.5) - (from + peak) / C(2)) +
                   falling * ((peak + C(1) + to) / C(2) + C(0.5) - position_);
    Dual<C> total =
        by_box(rising + falling - away / reach_, (falling - rising) / reach_, away / (reach_ * reach_));
    const C low_pixel = std::floor(low_), high_pixel = std::ceil(high_) - C(1);
    if (low_pixel >= from && low_pixel <= to) total += minus_whole(low_pixel);
    if (high_pixel >= from && high_pixel <= to && high_pixel > low_pixel) total += minus_whole(high_pixel);
    return total;
  }

  // raw(r) less what it would be if the box covered the whole pixel.
  AF_HD Dual<C> minus_whole(C r) const {
    const Dual<C> whole = triangle(r);
    Dual<C> part = raw(r);
    part.value -= whole.value;
    part.by_centre -= whole.by_centre;
    part.by_extent -= whole.by_extent;
    return part;
  }

  C position_, offset_, reach_, reach_by_extent_, low_, high_, high_by_extent_, first_, last_;
  Dual<C> total_;
  int64_t size_;
  bool border_;
};

// Outputs, or pixels, [begin, end) of an axis.
struct Range {
  int64_t begin, end;
};

// The outputs that read pixel r: positions are monotone in the output, so two binary searches over the
// samples' own ranges find them, whatever the rounding.
template <template <class> class Footprint, class C>
AF_HD Range readers_of(int64_t r, C centre, C extent, int64_t positions, int64_t size, bool border) {
  const bool mirrored = extent < C(0);
  // The first output, in order of position, that reads r or lies past it.
  const auto search = [&](bool past) {
    int64_t low = 0, high = positions;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      const Footprint<C> sample(centre, extent, mirrored ? positions - 1 - middle : middle, positions, size,
                                border);
      if (past ? sample.begin > r : sample.end > r) {
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

// How much of pixel r the mean over all outputs reads, bilinearly. Without any output that reads it the
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

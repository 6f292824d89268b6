// The pixels that one output reads of an axis with antialiasing: the box's part of the axis is cut out first
// and then resized, by a triangle filter that is as wide as the downscaling.
//
// docs/method/antialias.md derives every formula and draws them; (A1) to (A14) are its equations.
#pragma once

#include <cmath>

#include "adafocus/box.h"

namespace adafocus {

// A footprint (see geometry.h) of a triangle whose pixels the ends of the box may cut.
//
// Pixel r, which covers [r, r + 1), has the raw weight
//
//   raw(r) = max(0, 1 - |r + 1/2 - q| / s) * |[r, r + 1) and [low, high)|                             (A6)
//
// and weight(r) is its share of the sum over all pixels, those outside the frame too, which hold zero or the
// nearest edge pixel. Pixel numbers are of type C here: those outside may be beyond any integer.
template <class C>
struct AntialiasedFootprint {
  int64_t begin, end;  // the frame's pixels that are read, [begin, end)

  AF_HD AntialiasedFootprint(C centre, C extent, int64_t i, int64_t positions, int64_t size, bool border)
      : size_(size), border_(border) {
    // Larger boxes are all alike; the products below must not overflow.
    const C huge = C(int64_t(1) << 60);
    centre = clamp_to(centre, -huge, huge);
    extent = clamp_to(extent, -huge, huge);
    const C step = extent / C(positions), sign = extent < C(0) ? C(-1) : C(1);
    const C length = max_of(sign * extent, C(1));
    offset_ = sample_offset<C>(i, positions);                                           // (A1)
    position_ = sample_position(centre, extent, i, positions);                          // (A1)
    reach_ = max_of(sign * step, C(1));                                                 // (A2)
    reach_by_extent_ = sign * step > C(1) ? sign / C(positions) : C(0);                 // (A2)
    low_ = centre - length / C(2);                                                      // (A3)
    high_ = centre + length / C(2);                                                     // (A3)
    high_by_extent_ = sign * extent > C(1) ? sign / C(2) : C(0);                        // (A3)
    first_ = max_of(std::floor(position_ - reach_ - C(0.5)) + C(1), std::floor(low_));  // (A8)
    last_ = min_of(std::ceil(position_ + reach_ - C(0.5)), std::ceil(high_)) - C(1);    // (A8)
    total_ = sum(first_, last_);                                                        // (A9)
    const C last_pixel = C(size - 1), outermost = border ? last_pixel : C(size);
    // (A size beyond 2^24 is no float, hence the bounds after the conversion.)
    begin = min_of<int64_t>(int64_t(clamp_to(first_, C(0), outermost)), border ? size - 1 : size);
    end = min_of<int64_t>(int64_t(clamp_to(last_, border ? C(0) : C(-1), last_pixel)) + 1, size);
  }

  // The share of pixel r (A9), (A10), with those of all pixels beyond an edge that stands for them (A14).
  AF_HD Dual<C> weight(int64_t r) const {
    Dual<C> w = raw_weight(C(r));
    if (border_ && r == 0) w += sum(first_, C(-1));
    if (border_ && r == size_ - 1) w += sum(C(size_), last_);
    const C scale = total_.value > C(0) ? C(1) / total_.value : C(0);
    const C value = w.value * scale;
    return {value, (w.by_centre - value * total_.by_centre) * scale,
            (w.by_extent - value * total_.by_extent) * scale};
  }

 private:
  // A number and its derivatives by the box, from those by the position and by the reach.
  AF_HD Dual<C> by_box(C value, C by_position, C by_reach) const {
    return {value, by_position, by_position * offset_ + by_reach * reach_by_extent_};
  }

  // The triangle's height over the centre of pixel r (A4); negative where pixel r is out of reach.
  AF_HD Dual<C> height(C r) const {
    const C distance = r + C(0.5) - position_, side = distance < C(0) ? C(-1) : C(1), away = side * distance;
    return by_box(C(1) - away / reach_, side / reach_, away / (reach_ * reach_));
  }

  // The raw weight of pixel r (A6), (A7): height times cover, the part of the pixel that the box covers.
  AF_HD Dual<C> raw_weight(C r) const {
    const Dual<C> whole = height(r);
    if (!(whole.value > C(0))) return {C(0), C(0), C(0)};
    const C cover = clamp_to(min_of(r + C(1), high_) - max_of(r, low_), C(0), C(1));  // (A5)
    const C cut_by_low = low_ >= r && low_ < r + C(1) ? C(1) : C(0);
    const C cut_by_high = high_ > r && high_ <= r + C(1) ? C(1) : C(0);
    return {whole.value * cover, whole.by_centre * cover + whole.value * (cut_by_high - cut_by_low),
            whole.by_extent * cover + whole.value * (cut_by_high + cut_by_low) * high_by_extent_};
  }

  // The correction for a pixel that an end of the box cuts (A11): its raw weight less its height.
  AF_HD Dual<C> cut_correction(C r) const {
    const Dual<C> whole = height(r);
    Dual<C> part = raw_weight(r);
    part.value -= whole.value;
    part.by_centre -= whole.by_centre;
    part.by_extent -= whole.by_extent;
    return part;
  }

  // The sum of the raw weights of pixels from..to that have one, in closed form (A11): the heights of whole
  // pixels are an arithmetic series on each side of the triangle (A12), (A13); the two pixels that the ends
  // of the box cut are put right after.
  AF_HD Dual<C> sum(C from, C to) const {
    from = max_of(from, first_);
    to = min_of(to, last_);
    if (!(from <= to)) return {C(0), C(0), C(0)};
    // The last pixel of the rising side; one in the middle is of the falling side, as in height().
    const C peak = clamp_to(std::ceil(position_ - C(0.5)) - C(1), from - C(1), to);
    const C rising = peak - from + C(1), falling = to - peak;
    const C away = rising * (position_ - C(0.5) - (from + peak) / C(2)) +
                   falling * ((peak + C(1) + to) / C(2) + C(0.5) - position_);  // (A12)
    Dual<C> total = by_box(rising + falling - away / reach_, (falling - rising) / reach_,
                           away / (reach_ * reach_));  // (A13)
    const C low_pixel = std::floor(low_), high_pixel = std::ceil(high_) - C(1);
    if (low_pixel >= from && low_pixel <= to) total += cut_correction(low_pixel);
    if (high_pixel >= from && high_pixel <= to && high_pixel > low_pixel) total += cut_correction(high_pixel);
    return total;
  }

  C position_;         // q, the centre of the triangle, where pixel r covers [r, r + 1)
  C offset_;           // the derivative of q by the extent; that by the centre is 1
  C reach_;            // s, the distance from q at which the triangle ends
  C reach_by_extent_;  // the derivative of s by the extent; s does not depend on the centre
  C low_, high_;       // the ends of the box, low_ < high_
  C high_by_extent_;   // the derivative of high_ by the extent; that of low_ is its opposite
  C first_, last_;     // the first and the last pixel with a raw weight, in the frame or not
  Dual<C> total_;      // the sum of all raw weights
  int64_t size_;       // the number of the frame's pixels on the axis
  bool border_;        // the edge pixels stand for all pixels outside, which hold zero otherwise
};

}  // namespace adafocus

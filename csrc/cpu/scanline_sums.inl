// Weighted sums of the pixels of a scanline buffer and of the scanlines of an image, for the CPU kernels over
// boxes.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafocus/geometry.h"
#include "cpu/isa.h"
#include "cpu/lanes.inl"
#include "cpu/scanline_io.inl"
#include "cpu/scratch.h"

namespace adafocus {
namespace AF_ISA {
namespace {

// ---------------------------------------------------------------------------------------------------
// Sums of numbers and of pixels

// to [count] += weight * from [count]
template <class C>
AF_HD void add_scaled(const C* __restrict__ from, C weight, int64_t count, C* __restrict__ to) {
  for (int64_t e = 0; e < count; ++e) to[e] += weight * from[e];
}

template <class C>
C dot(const C* __restrict__ a, const C* __restrict__ b, int64_t count) {
  C sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t e = 0; e < count; ++e) sum += a[e] * b[e];
  return sum;
}

// out [pixel_stride] = sum of `count` pixels of a scanline buffer, each times its weight [count]. Writes
// kLanes numbers at least.
template <class C>
AF_HD void sum_pixels(const C* __restrict__ buffer, const C* __restrict__ weight, int64_t count,
                      int64_t pixel_stride, C* __restrict__ out) {
  if (pixel_stride <= kLanes) {
    lanes_t<C> sum = {};
    for (int64_t t = 0; t < count; ++t) sum += load_lanes(buffer + t * pixel_stride) * weight[t];
    store_lanes<C>(out, sum);
    return;
  }
  memset(out, 0, pixel_stride * sizeof(C));
  for (int64_t t = 0; t < count; ++t) add_scaled(buffer + t * pixel_stride, weight[t], pixel_stride, out);
}

// ---------------------------------------------------------------------------------------------------
// Sums of scanlines

// A weight, or its derivative by the centre or the extent of a box.
enum Part { kValue, kByCentre, kByExtent, kNumParts };

// Pixels of an axis and the weight of each in a sum, in all its parts or in the first only.
template <class C>
struct WeightedPixels {
  int64_t count = 0;
  int64_t* pixel;        // [count]
  C* weight[kNumParts];  // [kNumParts][count]

  WeightedPixels(Scratch& scratch, int64_t most) : pixel(scratch.take<int64_t>(most)) {
    for (C*& part : weight) part = scratch.take<C>(most);
  }

  void add(int64_t r, C w) {
    pixel[count] = r;
    weight[kValue][count++] = w;
  }

  void add(int64_t r, const Dual<C>& w) {
    weight[kByCentre][count] = w.by_centre;
    weight[kByExtent][count] = w.by_extent;
    add(r, w.value);
  }

  C total(Part part) const {
    C sum = 0;
    for (int64_t t = 0; t < count; ++t) sum += weight[part][t];
    return sum;
  }
};

// out [layout.count][pixel_stride] = sum of the scanlines of an image, each times its weight; `stride_y` in
// elements
template <class C>
void sum_scanlines(const WeightedPixels<C>& scanlines, const void* image, int64_t stride_y,
                   const ScanlineLayout<C>& layout, C* __restrict__ out) {
  const C* const weight = scanlines.weight[kValue];
  memset(out, 0, layout.count * layout.pixel_stride * sizeof(C));
  visit(layout.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* const from = static_cast<const T*>(image);
    int64_t t = 0;
    for (; t + 1 < scanlines.count; t += 2) {  // in pairs, which halves the passes over the sum
      const T* __restrict__ scanline0 = from + scanlines.pixel[t] * stride_y;
      const T* __restrict__ scanline1 = from + scanlines.pixel[t + 1] * stride_y;
      const C w0 = weight[t], w1 = weight[t + 1];
      for_each_element(layout, [&](int64_t i, int64_t at, int64_t) __attribute__((always_inline)) {
        out[i] += w0 * load_as<C>(scanline0[at]) + w1 * load_as<C>(scanline1[at]);
      });
    }
    if (t < scanlines.count) {
      const T* __restrict__ scanline = from + scanlines.pixel[t] * stride_y;
      const C w = weight[t];
      for_each_element(layout, [&](int64_t i, int64_t at, int64_t) __attribute__((always_inline)) {
        out[i] += w * load_as<C>(scanline[at]);
      });
    }
  });
}

// The same with each part of the weights, in one pass over the scanlines, each of which is converted into
// `buffer` [layout.count][pixel_stride].
template <class C>
void sum_scanlines_of_all_parts(const WeightedPixels<C>& scanlines, const void* image, int64_t stride_y,
                                const ScanlineLayout<C>& layout, C* __restrict__ buffer,
                                C* const out[kNumParts]) {
  const int64_t count = layout.count * layout.pixel_stride;
  memset(buffer, 0, count * sizeof(C));
  for (int part = 0; part < kNumParts; ++part) memset(out[part], 0, count * sizeof(C));
  visit(layout.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t t = 0; t < scanlines.count; ++t) {
      const T* __restrict__ scanline = static_cast<const T*>(image) + scanlines.pixel[t] * stride_y;
      for_each_element(layout, [&](int64_t i, int64_t at, int64_t)
                                   __attribute__((always_inline)) { buffer[i] = load_as<C>(scanline[at]); });
      for (int part = 0; part < kNumParts; ++part) {
        add_scaled(buffer, scanlines.weight[part][t], count, out[part]);
      }
    }
  });
}

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

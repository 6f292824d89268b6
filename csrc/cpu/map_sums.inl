// Weighted sums over the pixels of a map and over its channels, for the CPU kernels over boxes: loops from
// the map's own memory to registers, whether channels lie side by side (pixels) or apart (runs).
#pragma once

#include <cstdint>
#include <type_traits>

#include "adafocus/dtype.h"
#include "cpu/isa.h"
#include "cpu/wide_lanes.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

// ---------------------------------------------------------------------------------------------------
// Pixels: channels lie side by side

constexpr int64_t kPixelsTogether = 4;

// out [channels] += sum of pixels, each times its weight [kPixels]
template <int kPixels, class C, class T>
AF_HD void add_weighted_pixels(const T* const* pixel, const C* weight, int64_t channels,
                               C* __restrict__ out) {
  const T* __restrict__ from[kPixels];
  C w[kPixels];
  AF_UNROLL
  for (int j = 0; j < kPixels; ++j) from[j] = pixel[j], w[j] = weight[j];
#pragma GCC ivdep
  for (int64_t c = 0; c < channels; ++c) {
    C sum = w[0] * load_as<C>(from[0][c]);
    AF_UNROLL
    for (int j = 1; j < kPixels; ++j) sum += w[j] * load_as<C>(from[j][c]);
    out[c] += sum;
  }
}

// out [kPixelsTogether] = dot products of pixels with a vector, both [channels]: four sums at once, since one
// alone would wait for itself. Sums of neighbouring pixels are subtracted from each other afterwards, so they
// are summed in C over a block of channels only.
template <class C, class T>
AF_HD void dot_pixels(const T* const* pixel, const C* __restrict__ vector, int64_t channels, double* out) {
  constexpr int64_t kBlock = 64;
  const T *const pixel0 = pixel[0], *const pixel1 = pixel[1], *const pixel2 = pixel[2],
                 *const pixel3 = pixel[3];
  double total0 = 0, total1 = 0, total2 = 0, total3 = 0;
  for (int64_t first = 0; first < channels; first += kBlock) {
    const int64_t end = first + kBlock < channels ? first + kBlock : channels;
    C sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
#pragma omp simd reduction(+ : sum0, sum1, sum2, sum3)
    for (int64_t c = first; c < end; ++c) {
      sum0 += vector[c] * load_as<C>(pixel0[c]);
      sum1 += vector[c] * load_as<C>(pixel1[c]);
      sum2 += vector[c] * load_as<C>(pixel2[c]);
      sum3 += vector[c] * load_as<C>(pixel3[c]);
    }
    total0 += sum0, total1 += sum1, total2 += sum2, total3 += sum3;
  }
  out[0] = total0, out[1] = total1, out[2] = total2, out[3] = total3;
}

// ---------------------------------------------------------------------------------------------------
// Runs: the elements of one channel that are read at once

// Channels whose runs are summed at once: a weight that is in a register serves all of them.
constexpr int64_t kRunsTogether = 4;

// All bits of a number, which keep it, or none, which make it zero even if it is NaN.
template <class C>
using mask_t = std::conditional_t<sizeof(C) == 8, int64_t, int32_t>;

// The layout of runs. A run is taken in whole vectors, of which the last overlaps the one before where it
// can, so that nothing beyond the run is read: what belongs to elements is kept as [vectors][lanes], in the
// order of `place`, and places without an element are not used.
template <class C>
struct Runs {
  DType dtype;
  int64_t stride;       // from an element to the next
  int64_t count;        // elements of a run
  int64_t vectors;      // of a run
  bool overlap;         // a run has no gaps and fills a vector
  bool in_place;        // besides, it needs no conversion
  int64_t last_vector;  // the first element of the last vector

  Runs() = default;
  Runs(DType elements, int64_t element_stride, int64_t elements_of_a_run)
      : dtype(elements),
        stride(element_stride),
        count(elements_of_a_run),
        vectors((count + kWide<C> - 1) / kWide<C>),
        overlap(stride == 1 && count >= kWide<C>),
        in_place(overlap && dtype == (sizeof(C) == 8 ? DType::kFloat64 : DType::kFloat32)),
        last_vector(overlap ? count - kWide<C> : last_place()) {}

  AF_HD int64_t places() const { return vectors * kWide<C>; }
  AF_HD int64_t last_place() const { return places() - kWide<C>; }  // where the last vector begins
  AF_HD int64_t place(int64_t e) const { return e < last_place() ? e : last_place() + e - last_vector; }

  // The run at `from`: itself, or converted into `buffer` [vectors][lanes].
  const C* load(const void* from, C* __restrict__ buffer) const {
    if (in_place) return static_cast<const C*>(from);
    visit(dtype, [&](auto tag) {
      const auto* const elements = static_cast<const typename decltype(tag)::type*>(from);
      if (overlap) {
        for_each_vector_of(last_vector, [&](int64_t at, int64_t place) __attribute__((always_inline)) {
          for (int64_t e = 0; e < kWide<C>; ++e) buffer[place + e] = load_as<C>(elements[at + e]);
        });
      } else {
        for (int64_t e = 0; e < count; ++e) buffer[e] = load_as<C>(elements[e * stride]);
      }
    });
    return buffer;
  }

  // Calls f(first element in a loaded run, first place) of every vector.
  template <class F>
  AF_HD void for_each_vector(const F& f) const {
    for_each_vector_of(in_place ? last_vector : last_place(), f);
  }

 private:
  template <class F>
  AF_HD void for_each_vector_of(int64_t last, const F& f) const {
    for (int64_t at = 0; at < last_place(); at += kWide<C>) f(at, at);
    f(last, last_place());
  }
};

// The sum of the lanes of a vector, by halves.
template <int64_t kBytes, class C>
AF_HD C sum_of_lanes(const C* lanes) {
  typedef C Half __attribute__((vector_size(kBytes / 2), aligned(alignof(C)), may_alias));
  constexpr int64_t kHalf = kBytes / 2 / int64_t(sizeof(C));
  const Half sum = *reinterpret_cast<const Half*>(lanes) + *reinterpret_cast<const Half*>(lanes + kHalf);
  if constexpr (kHalf == 1) {
    return sum[0];
  } else {
    return sum_of_lanes<kBytes / 2>(reinterpret_cast<const C*>(&sum));
  }
}

// out [kRuns] += scale * sum of a run's elements, each times its weight; weight, mask [vectors][lanes]
template <int kRuns, class C>
AF_HD void add_sums_of_runs(const Runs<C>& runs, const C* const* run, const C* weight, const mask_t<C>* mask,
                            C scale, C* out) {
  typedef mask_t<C> Mask __attribute__((vector_size(kWideBytes), aligned(alignof(C)), may_alias));
  wide_t<C> sum[kRuns] = {};
  runs.for_each_vector([&](int64_t at, int64_t place) __attribute__((always_inline)) {
    const wide_t<C> w = load_wide(weight + place);
    const Mask keep = *reinterpret_cast<const Mask*>(mask + place);
    AF_UNROLL
    for (int j = 0; j < kRuns; ++j) sum[j] += wide_t<C>(Mask(load_wide(run[j] + at)) & keep) * w;
  });
  AF_UNROLL
  for (int j = 0; j < kRuns; ++j) {
    out[j] += scale * sum_of_lanes<kWideBytes>(reinterpret_cast<const C*>(&sum[j]));
  }
}

// sums [vectors][lanes] += sum of runs, each times its factor [kRuns]
template <int kRuns, class C>
AF_HD void add_scaled_runs(const Runs<C>& runs, const C* const* run, const C* factor, C* sums) {
  runs.for_each_vector([&](int64_t at, int64_t place) __attribute__((always_inline)) {
    wide_t<C> term[kRuns];
    AF_UNROLL
    for (int j = 0; j < kRuns; ++j) term[j] = factor[j] * load_wide(run[j] + at);
    AF_UNROLL
    for (int j = 1; j < kRuns; ++j) term[0] += term[j];
    store_wide(sums + place, load_wide(sums + place) + term[0]);
  });
}

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

// Scanlines of images, read into buffers and written from them, for the CPU kernels over boxes.
//
// Element types and strides are known to this file alone. The arithmetic between reading and writing is done
// on scanline buffers [pixels][pixel_stride] of the compute type C, which have a place for each of the
// channels that are processed together.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafocus/dtype.h"
#include "cpu/isa.h"

namespace adafocus {
namespace AF_ISA {
namespace {

AF_HD const void* element(const void* data, DType dtype, int64_t offset) {
  return static_cast<const char*>(data) + offset * size_of(dtype);
}

AF_HD void* element(void* data, DType dtype, int64_t offset) {
  return static_cast<char*>(data) + offset * size_of(dtype);
}

// Asks for bytes that are read soon, a cache line at a time. (Compilers drop calls of a function that does
// nothing else, unless it is inlined.)
AF_HD void prefetch(const void* from, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(from) + at);
}

// A linear combination of two scanlines, w0 scanline0 + w1 scanline1; a null scanline lies outside the image
// and counts as zero.
template <class C>
struct ScanlinePair {
  const void *scanline0, *scanline1;
  C w0, w1;
};

// The pixels of a scanline that a buffer holds, and where their elements are.
template <class C>
struct ScanlineLayout {
  DType dtype;
  int64_t stride_c, stride_x;  // of the scanline, in elements
  int64_t channels;            // that are read or written
  int64_t pixel_stride;        // of the buffer, at least `channels`
  int64_t count;               // pixels
  const int64_t* columns;      // [count] which pixels, or null for the first `count`
  const C *scale, *shift;      // [count][pixel_stride], the affine of the channels repeated for every pixel
};

// Calls f(index in the buffer, offset in the scanline, index in the affine pattern) for every element of
// `count` pixels in planes. With the number of channels a constant, compilers interleave whole vectors
// and keep the affine in registers.
template <int kChannels, class F>
AF_HD void for_each_in_planes(int64_t count, int64_t stride_c, const F& f) {
  for (int64_t q = 0; q < count; ++q) {
#pragma GCC unroll 4
    for (int c = 0; c < kChannels; ++c) f(q * kChannels + c, c * stride_c + q, c);
  }
}

// The same for any scanline, in the loop order that suits its layout.
template <class C, class F>
AF_HD void for_each_element(const ScanlineLayout<C>& layout, const F& f) {
  const int64_t pixel_stride = layout.pixel_stride, channels = layout.channels, count = layout.count;
  const int64_t stride_c = layout.stride_c, stride_x = layout.stride_x;
  const bool whole = channels == pixel_stride && !layout.columns;  // all of every pixel of the buffer
  if (whole && stride_x == pixel_stride && (stride_c == 1 || channels == 1)) {
    for (int64_t i = 0; i < count * pixel_stride; ++i) f(i, i, i);
  } else if (whole && stride_x == 1 && channels == 3) {
    for_each_in_planes<3>(count, stride_c, f);
  } else if (whole && stride_x == 1 && channels == 4) {
    for_each_in_planes<4>(count, stride_c, f);
  } else if (stride_c == 1) {
    for (int64_t q = 0; q < count; ++q) {
      const int64_t pixel = (layout.columns ? layout.columns[q] : q) * stride_x;
      for (int64_t c = 0; c < channels; ++c) f(q * pixel_stride + c, pixel + c, c);
    }
  } else {
    for (int64_t q = 0; q < count; ++q) {
      const int64_t pixel = (layout.columns ? layout.columns[q] : q) * stride_x;
      for (int64_t c = 0; c < channels; ++c) f(q * pixel_stride + c, pixel + c * stride_c, c);
    }
  }
}

// out [count][pixel_stride] = scale * (w0 scanline0 + w1 scanline1) + shift * (sum of the weights of the
// scanlines that are inside)
template <class C>
void load_scanlines(const ScanlinePair<C>& pair, const ScanlineLayout<C>& layout, C* __restrict__ out) {
  const C* __restrict__ scale = layout.scale, * __restrict__ shift = layout.shift;
  visit(layout.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (pair.scanline0 && pair.scanline1) {
      const T* __restrict__ scanline0 = static_cast<const T*>(pair.scanline0);
      const T* __restrict__ scanline1 = static_cast<const T*>(pair.scanline1);
      const C w0 = pair.w0, w1 = pair.w1, inside = w0 + w1;
      for_each_element(layout, [&](int64_t i, int64_t at, int64_t a) __attribute__((always_inline)) {
        const C v = w0 * load_as<C>(scanline0[at]) + w1 * load_as<C>(scanline1[at]);
        out[i] = scale[a] * v + shift[a] * inside;
      });
    } else if (pair.scanline0 || pair.scanline1) {
      const T* __restrict__ scanline =
          static_cast<const T*>(pair.scanline0 ? pair.scanline0 : pair.scanline1);
      const C w = pair.scanline0 ? pair.w0 : pair.w1;
      for_each_element(layout, [&](int64_t i, int64_t at, int64_t a) __attribute__((always_inline)) {
        out[i] = w * (scale[a] * load_as<C>(scanline[at]) + shift[a]);
      });
    } else {
      memset(out, 0, layout.count * layout.pixel_stride * sizeof(C));
    }
  });
}

// Writes `count` pixels of a scanline buffer [count][pixel_stride] to strided elements.
template <class C>
void store_scanline(const C* __restrict__ buffer, int64_t pixel_stride, int64_t channels, int64_t count,
                    DType dtype, void* out, int64_t stride_c, int64_t stride_x) {
  visit(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* __restrict__ to = static_cast<T*>(out);
    for_each_element<C>({dtype, stride_c, stride_x, channels, pixel_stride, count, nullptr, nullptr, nullptr},
                        [&](int64_t i, int64_t at, int64_t)
                            __attribute__((always_inline)) { to[at] = Store<T>::from(buffer[i]); });
  });
}

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

// Rows of images, for the CPU kernels over boxes; compiled once for each instruction set (isa_*.cpp).
//
// Only loading and storing a row know about element types and strides. The arithmetic between them is done
// on row buffers [pixels][S] of the compute type C, where S is the number of channels that are processed
// together.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafocus/crop_resize.h"
#include "cpu/scratch.h"

namespace adafocus {
namespace AF_ISA {
namespace {

// Channels of a pixel that fit one short vector are blended as that vector.
constexpr int64_t kLanes = 4;
// Else they are processed in chunks; the row buffers of a chunk should fit the first-level cache.
constexpr int64_t kInterleavedChunk = 512, kPlanarChunk = 64;

// Four lanes at any address. Buffers are padded by kLanes, so that a pixel of fewer channels may be
// read and written as four.
template <class C>
struct Lanes {
  typedef C type __attribute__((vector_size(kLanes * sizeof(C)), aligned(alignof(C)), may_alias));
};
template <class C>
using lanes_t = typename Lanes<C>::type;

template <class C>
AF_HD lanes_t<C> load_lanes(const C* p) {
  return *reinterpret_cast<const lanes_t<C>*>(p);
}

template <class C>
AF_HD void store_lanes(C* p, lanes_t<C> v) {
  *reinterpret_cast<lanes_t<C>*>(p) = v;
}

// ---------------------------------------------------------------------------------------------------
// Loading rows

// A linear combination of two rows, w0 row0 + w1 row1; a null row lies outside and counts as zero.
template <class C>
struct RowPair {
  const void *row0, *row1;
  C w0, w1;
};

// How `count` pixels of a row are read into a row buffer.
template <class C>
struct RowLayout {
  DType dtype;
  int64_t stride_c, stride_x;  // of the row, in elements
  int64_t channels, S;         // channels that exist, and the pixel stride of the buffer
  int64_t count;
  const int64_t* columns;  // which pixels, or null for the first `count`
  const C *scale, *shift;  // [count][S], the affine of S channels repeated for every pixel
};

// Calls f(index in the buffer, offset in the row, index in the affine pattern) for every element of
// `count` pixels in planes. With the number of channels a constant, compilers interleave whole vectors
// and keep the affine in registers.
template <int kChannels, class F>
AF_HD void for_each_in_planes(int64_t count, int64_t stride_c, const F& f) {
  for (int64_t q = 0; q < count; ++q) {
#pragma GCC unroll 4
    for (int c = 0; c < kChannels; ++c) f(q * kChannels + c, c * stride_c + q, c);
  }
}

// The same for any row, in the loop order that suits its layout.
template <class C, class F>
AF_HD void for_each_element(const RowLayout<C>& layout, const F& f) {
  const int64_t S = layout.S, channels = layout.channels, count = layout.count;
  const int64_t stride_c = layout.stride_c, stride_x = layout.stride_x;
  const bool whole = channels == S && !layout.columns;  // all of every pixel of the buffer
  if (whole && stride_x == S && (stride_c == 1 || channels == 1)) {
    for (int64_t i = 0; i < count * S; ++i) f(i, i, i);
  } else if (whole && stride_x == 1 && channels == 3) {
    for_each_in_planes<3>(count, stride_c, f);
  } else if (whole && stride_x == 1 && channels == 4) {
    for_each_in_planes<4>(count, stride_c, f);
  } else if (stride_c == 1) {
    for (int64_t q = 0; q < count; ++q) {
      const int64_t pixel = (layout.columns ? layout.columns[q] : q) * stride_x;
      for (int64_t c = 0; c < channels; ++c) f(q * S + c, pixel + c, c);
    }
  } else {
    for (int64_t q = 0; q < count; ++q) {
      const int64_t pixel = (layout.columns ? layout.columns[q] : q) * stride_x;
      for (int64_t c = 0; c < channels; ++c) f(q * S + c, pixel + c * stride_c, c);
    }
  }
}

// out = scale * (w0 row0 + w1 row1) + shift * (sum of the weights of the rows that are inside)
template <class C>
void load_rows(const RowPair<C>& rows, const RowLayout<C>& layout, C* __restrict__ out) {
  const C* __restrict__ scale = layout.scale, * __restrict__ shift = layout.shift;
  visit(layout.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (rows.row0 && rows.row1) {
      const T* __restrict__ row0 = static_cast<const T*>(rows.row0), * __restrict__ row1 =
                                                                         static_cast<const T*>(rows.row1);
      const C w0 = rows.w0, w1 = rows.w1, inside = w0 + w1;
      for_each_element(layout, [&](int64_t i, int64_t at, int64_t a) __attribute__((always_inline)) {
        const C v = w0 * load_as<C>(row0[at]) + w1 * load_as<C>(row1[at]);
        out[i] = scale[a] * v + shift[a] * inside;
      });
    } else if (rows.row0 || rows.row1) {
      const T* __restrict__ row = static_cast<const T*>(rows.row0 ? rows.row0 : rows.row1);
      const C w = rows.row0 ? rows.w0 : rows.w1;
      for_each_element(layout, [&](int64_t i, int64_t at, int64_t a) __attribute__((always_inline)) {
        out[i] = w * (scale[a] * load_as<C>(row[at]) + shift[a]);
      });
    } else {
      memset(out, 0, layout.count * layout.S * sizeof(C));
    }
  });
}

// ---------------------------------------------------------------------------------------------------
// Sums of pixels

// to += weight * from
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

// out [S] = sum of pixels of a row buffer, each times its weight. Writes four numbers at least.
template <class C>
AF_HD void sum_pixels(const C* __restrict__ row, const C* __restrict__ weight, int64_t count, int64_t S,
                      C* __restrict__ out) {
  if (S <= kLanes) {
    lanes_t<C> sum = {};
    for (int64_t t = 0; t < count; ++t) sum += load_lanes(row + t * S) * weight[t];
    store_lanes<C>(out, sum);
    return;
  }
  memset(out, 0, S * sizeof(C));
  for (int64_t t = 0; t < count; ++t) add_scaled(row + t * S, weight[t], S, out);
}

// ---------------------------------------------------------------------------------------------------
// Sums of rows

// A weight, or its derivative by the centre or the extent of a box.
enum Part { kValue, kByCentre, kByExtent, kNumParts };

// Pixels of an axis and the weight of each in a sum, in all its parts or in the first only.
template <class C>
struct Taps {
  int64_t count = 0;
  int64_t* pixel;
  C* weight[kNumParts];

  Taps(Scratch& scratch, int64_t most) : pixel(scratch.take<int64_t>(most)) {
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

// out = sum of the rows of an image, each times its weight; `stride_y` in elements
template <class C>
void sum_rows(const Taps<C>& rows, const void* image, int64_t stride_y, const RowLayout<C>& layout,
              C* __restrict__ out) {
  const C* const weight = rows.weight[kValue];
  memset(out, 0, layout.count * layout.S * sizeof(C));
  visit(layout.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* const from = static_cast<const T*>(image);
    int64_t t = 0;
    for (; t + 1 < rows.count; t += 2) {  // in pairs, which halves the passes over the sum
      const T* __restrict__ row0 = from + rows.pixel[t] * stride_y;
      const T* __restrict__ row1 = from + rows.pixel[t + 1] * stride_y;
      const C w0 = weight[t], w1 = weight[t + 1];
      for_each_element(layout, [&](int64_t i, int64_t at, int64_t) __attribute__((always_inline)) {
        out[i] += w0 * load_as<C>(row0[at]) + w1 * load_as<C>(row1[at]);
      });
    }
    if (t < rows.count) {
      const T* __restrict__ row = from + rows.pixel[t] * stride_y;
      const C w = weight[t];
      for_each_element(layout, [&](int64_t i, int64_t at, int64_t)
                                   __attribute__((always_inline)) { out[i] += w * load_as<C>(row[at]); });
    }
  });
}

// The same with each part of the weights, in one pass over the rows, each of which is converted into
// `buffer`.
template <class C>
void sum_rows_of_all_parts(const Taps<C>& rows, const void* image, int64_t stride_y,
                           const RowLayout<C>& layout, C* __restrict__ buffer, C* const out[kNumParts]) {
  const int64_t count = layout.count * layout.S;
  memset(buffer, 0, count * sizeof(C));
  for (int part = 0; part < kNumParts; ++part) memset(out[part], 0, count * sizeof(C));
  visit(layout.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t t = 0; t < rows.count; ++t) {
      const T* __restrict__ row = static_cast<const T*>(image) + rows.pixel[t] * stride_y;
      for_each_element(layout, [&](int64_t i, int64_t at, int64_t)
                                   __attribute__((always_inline)) { buffer[i] = load_as<C>(row[at]); });
      for (int part = 0; part < kNumParts; ++part) add_scaled(buffer, rows.weight[part][t], count, out[part]);
    }
  });
}

// ---------------------------------------------------------------------------------------------------
// Storing rows

// Writes `count` pixels of a row buffer [count][S] to strided elements.
template <class C>
void store_row(const C* __restrict__ row, int64_t S, int64_t channels, int64_t count, DType dtype, void* out,
               int64_t stride_c, int64_t stride_x) {
  visit(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* __restrict__ to = static_cast<T*>(out);
    for_each_element<C>({dtype, stride_c, stride_x, channels, S, count, nullptr, nullptr, nullptr},
                        [&](int64_t i, int64_t at, int64_t)
                            __attribute__((always_inline)) { to[at] = Store<T>::from(row[i]); });
  });
}

// ---------------------------------------------------------------------------------------------------
// A chunk of channels and the buffers to process it

AF_HD const void* element(const void* data, DType dtype, int64_t offset) {
  return static_cast<const char*>(data) + offset * size_of(dtype);
}

AF_HD void* element(void* data, DType dtype, int64_t offset) {
  return static_cast<char*>(data) + offset * size_of(dtype);
}

AF_HD int64_t chunk_channels(const ImageBatch& images) {
  if (images.channels <= kLanes) return images.channels;
  return min_of(images.channels, images.stride_c == 1 ? kInterleavedChunk : kPlanarChunk);
}

// Fills [pixels][S] with values[c], or with `otherwise` where there are no values.
template <class C>
void fill_pattern(C* out, const C* values, C otherwise, int64_t pixels, int64_t S, int64_t channels) {
  for (int64_t c = 0; c < S; ++c) out[c] = values && c < channels ? values[c] : otherwise;
  for (int64_t filled = 1; filled < pixels; filled *= 2) {
    memcpy(out + filled * S, out, min_of(filled, pixels - filled) * S * sizeof(C));
  }
}

// The chunk of channels that a kernel is at, its affine, and a row of a patch. An affine pattern serves rows
// of frames, with two pixels outside on each side, and rows of patches.
template <class C>
struct Workspace {
  using Compute = C;

  Scratch& scratch;
  const CropResize& p;
  const int64_t S;               // channels processed together
  int64_t first = -1, channels;  // the chunk is [first, first + channels), channels <= S
  C *scale, *shift;              // [pattern_pixels()][S] affine of a row
  C *ones, *zeros;               // the same, of the affine that changes nothing
  C* patch_row;                  // [P_w][S]

  Workspace(Scratch& memory, const CropResize& params, int64_t pixel_stride)
      : scratch(memory), p(params), S(pixel_stride) {
    const int64_t pattern = pattern_pixels() * S + kLanes;
    scale = scratch.take<C>(pattern);
    shift = scratch.take<C>(pattern);
    ones = scratch.take<C>(pattern);
    zeros = scratch.take<C>(pattern);
    patch_row = scratch.take<C>(p.patches.width * S + kLanes);
    fill_pattern<C>(ones, nullptr, C(1), pattern_pixels(), S, S);
    fill_pattern<C>(zeros, nullptr, C(0), pattern_pixels(), S, S);
  }

  void start_chunk(int64_t first_channel) {
    if (first == first_channel) return;
    first = first_channel;
    channels = min_of(S, p.frames.channels - first);
    const C* affine = static_cast<const C*>(p.affine);
    fill_pattern<C>(scale, affine ? affine + first : nullptr, C(1), pattern_pixels(), S, channels);
    fill_pattern<C>(shift, affine ? affine + p.frames.channels + first : nullptr, C(0), pattern_pixels(), S,
                    channels);
    memset(patch_row, 0, (p.patches.width * S + kLanes) * sizeof(C));
  }

  // Reads row i of the patches' gradient, multiplied by a pattern, into patch_row.
  void load_gradient(int64_t k, int64_t i, const C* pattern) {
    const ImageBatch& g = p.patches;
    const void* row = element(g.data, g.dtype, g.offset(k) + first * g.stride_c + i * g.stride_y);
    load_rows<C>({row, nullptr, C(1), C(0)},
                 {g.dtype, g.stride_c, g.stride_x, channels, S, g.width, nullptr, pattern, zeros}, patch_row);
  }

 private:
  int64_t pattern_pixels() const { return max_of(p.frames.width + 4, p.patches.width); }
};

// ---------------------------------------------------------------------------------------------------
// Gradient of the frames

// Smaller chunks than the forward's: a whole frame of a chunk is kept.
AF_HD int64_t chunk_channels_adjoint(const ImageBatch& frames) {
  return min_of(frames.channels, kPlanarChunk);
}

AF_HD int64_t chunks_adjoint(const ImageBatch& frames) {
  const int64_t S = chunk_channels_adjoint(frames);
  return (frames.channels + S - 1) / S;
}

// Tasks [begin, end), each of a frame and a chunk of channels; consecutive ones share the chunk.
template <class Work>
void bwd_frames_range(Work& work, BoxesByFrame boxes, int64_t begin, int64_t end) {
  using C = typename Work::Compute;
  const ImageBatch& frames = work.p.frames;
  const int64_t S = work.S, pixels = frames.height * frames.width;
  C* const image = work.scratch.template take<C>(pixels * S);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t n = task % frames.count;
    work.start_chunk(task / frames.count * S);
    memset(image, 0, pixels * S * sizeof(C));
    for (int64_t b = boxes.start[n]; b < boxes.start[n + 1]; ++b) {
      add_frame_gradient(work, boxes.box[b], image);
    }
    const int64_t offset = frames.offset(n) + work.first * frames.stride_c;
    for (int64_t r = 0; r < frames.height; ++r) {
      void* to = element(frames.data, frames.dtype, offset + r * frames.stride_y);
      store_row(image + r * frames.width * S, S, work.channels, frames.width, frames.dtype, to,
                frames.stride_c, frames.stride_x);
    }
  }
}

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

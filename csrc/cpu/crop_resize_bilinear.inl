// Bilinear crop_resize on the CPU: forward and gradient of the boxes.
//
// Bilinear interpolation is separable, so one output scanline of a box is made in three steps:
//   load    two scanlines of the frame are normalised and blended into a buffer (contiguous, vectorised),
//   blend   the buffer is blended along the columns,
//   store   the result is converted to the output's type and layout.
// Columns outside the frame are pixels of the buffer as well, zero or copies of the edge, so that blending
// needs no bounds.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafocus/crop_resize.h"
#include "cpu/isa.h"
#include "cpu/lanes.inl"
#include "cpu/scanline_io.inl"
#include "cpu/workspace.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

// A box wider than this many times the patch is read column by column instead of in whole scanlines.
constexpr int64_t kSparse = 4;

// The taps of one output column: where its two pixels start in the scanline buffer, and their weights.
template <class C>
struct ColumnTaps {
  int64_t at0, at1;
  C u0, u1;
};

// Scanline buffers hold at most every column of the frame and two outside it on each side. (A sparse one
// holds fewer: it is chosen only where its 2 P_w + 2 pixels are.)
template <class C>
struct BilinearWorkspace : Workspace<C> {
  C *scanline0, *scanline1;  // [W + 4][pixel_stride] buffers
  C* by_column;              // [P_w][kLanes] sums over the scanlines of a patch
  C* offset_y;               // [P_h] sample offsets
  C* offset_x;               // [P_w] sample offsets
  ColumnTaps<C>* columns;    // [P_w]
  C* weights;                // [(P_w + 1) / 2][2][2][kLanes] u0 of two columns, then u1 of both
  int64_t* sparse;           // [2 P_w] frame columns of a buffer that holds only those that are used

  BilinearWorkspace(Scratch& scratch, const CropResize& p, int64_t chunk_size)
      : Workspace<C>(scratch, p, chunk_size) {
    const int64_t out_h = p.patches.height, out_w = p.patches.width;
    const int64_t size = (p.frames.width + 4) * this->pixel_stride() + kLanes;
    scanline0 = scratch.take<C>(size);
    scanline1 = scratch.take<C>(size);
    by_column = scratch.take<C>(out_w * kLanes);
    offset_y = scratch.take<C>(out_h);
    offset_x = scratch.take<C>(out_w);
    columns = scratch.take<ColumnTaps<C>>(out_w);
    weights = scratch.take<C>(2 * (out_w + 1) * kLanes);
    sparse = scratch.take<int64_t>(2 * out_w);
    for (int64_t i = 0; i < out_h; ++i) offset_y[i] = sample_offset<C>(i, out_h);
    for (int64_t j = 0; j < out_w; ++j) offset_x[j] = sample_offset<C>(j, out_w);
  }
};

// ---------------------------------------------------------------------------------------------------
// The columns of a box

// The frame's columns that a box reads, as they lie in a scanline buffer: `before` pixels outside on the
// left, the frame's columns [first, first + count), and `after` pixels outside on the right. Or, if sparse, a
// pixel outside on the left, one outside on the right, and the `count` columns of the workspace's list.
struct BufferedColumns {
  int64_t first, count, before, after;
  bool sparse;
};

template <class C>
BufferedColumns find_columns(const Box<C>& box, BilinearWorkspace<C>& work) {
  const CropResize& p = work.p;
  const int64_t width = p.frames.width, out_w = p.patches.width, pixel_stride = work.pixel_stride();
  int64_t low = width, high = -2;
  for (int64_t j = 0; j < out_w; ++j) {
    const Tap<C> tap = sample_tap<C>(box.cx, box.w, j, out_w, width);
    work.columns[j] = {tap.first, tap.first + 1, tap.u0, tap.u1};
    low = min_of<int64_t>(low, tap.first);
    high = max_of<int64_t>(high, tap.first + 1);
  }
  BufferedColumns buffered;
  if (high - low + 1 > kSparse * out_w) {
    // Pixels 2 and up of the buffer are the columns listed; pixels 0 and 1 are outside, left and right.
    buffered = {0, 0, 1, 1, true};
    for (int64_t j = 0; j < out_w; ++j) {
      int64_t* const ends[] = {&work.columns[j].at0, &work.columns[j].at1};
      for (int64_t* const at : ends) {
        const int64_t column = *at;
        work.sparse[buffered.count] = clamp_to<int64_t>(column, 0, width - 1);
        *at = (2 + buffered.count++) * pixel_stride;
        if (!p.border && column < 0) *at = 0;
        if (!p.border && column >= width) *at = pixel_stride;
      }
    }
    return buffered;
  }
  // At least one column is read, so that border padding has an edge to copy.
  const int64_t begin = clamp_to<int64_t>(low, 0, width - 1), end = clamp_to<int64_t>(high, 0, width - 1) + 1;
  buffered = {begin, end - begin, max_of<int64_t>(begin - low, 0), max_of<int64_t>(high + 1 - end, 0), false};
  const int64_t origin = begin - buffered.before;
  for (int64_t j = 0; j < out_w; ++j) {
    work.columns[j].at0 = (work.columns[j].at0 - origin) * pixel_stride;
    work.columns[j].at1 = (work.columns[j].at1 - origin) * pixel_stride;
  }
  return buffered;
}

// Reads scanlines of one box of one chunk of channels into buffers.
template <class C>
struct ScanlineReader {
  const CropResize& p;
  ScanlineLayout<C> layout;
  BufferedColumns columns;
  const void* image;  // first element of the chunk's first channel
  int64_t pixel_stride;

  ScanlineReader(const BilinearWorkspace<C>& work, const BufferedColumns& buffered, int64_t k)
      : p(work.p), columns(buffered), pixel_stride(work.pixel_stride()) {
    const ImageBatch& f = p.frames;
    layout = {f.dtype,
              f.stride_c,
              f.stride_x,
              work.channels,
              pixel_stride,
              columns.count,
              columns.sparse ? work.sparse : nullptr,
              work.scale,
              work.shift};
    image = element(f.data, f.dtype,
                    f.offset(p.frame_of(k)) + work.first * f.stride_c +
                        (columns.sparse ? 0 : columns.first * f.stride_x));
  }

  AF_HD const void* scanline(int64_t y) const {
    if (p.border) y = clamp_to<int64_t>(y, 0, p.frames.height - 1);
    if (y < 0 || y >= p.frames.height) return nullptr;
    return element(image, p.frames.dtype, y * p.frames.stride_y);
  }

  // The two scanlines of a tap blended.
  void read(const Tap<C>& y, C* out) const {
    load({scanline(y.first), scanline(y.first + 1), y.u0, y.u1}, out);
  }

  // Asks for the scanlines of a tap that is read soon, where all that lies in them is read. Where channels
  // are planes the processor does so by itself.
  AF_HD void read_soon(const Tap<C>& y) const {
    if (layout.stride_c != 1 || layout.stride_x != layout.channels || columns.sparse) return;
    const int64_t bytes = columns.count * layout.stride_x * size_of(layout.dtype);
    for (const void* from : {scanline(y.first), scanline(y.first + 1)}) {
      if (from) prefetch(from, bytes);
    }
  }

  void read_one(int64_t y, C* out) const { load({scanline(y), nullptr, C(1), C(0)}, out); }

 private:
  // Scanlines normalised, with the pixels outside.
  void load(const ScanlinePair<C>& pair, C* out) const {
    const int64_t lead = (columns.sparse ? 2 : columns.before) * pixel_stride;
    load_scanlines<C>(pair, layout, out + lead);
    if (columns.sparse) {
      memset(out, 0, 2 * pixel_stride * sizeof(C));  // the two pixels outside
      return;
    }
    C* const left = out + lead;
    C* const right = left + (columns.count - 1) * pixel_stride;
    for (int64_t q = 1; q <= columns.before; ++q) fill_outside(left, left - q * pixel_stride);
    for (int64_t q = 1; q <= columns.after; ++q) fill_outside(right, right + q * pixel_stride);
  }

  AF_HD void fill_outside(const C* edge, C* pixel) const {
    for (int64_t c = 0; c < pixel_stride; ++c) pixel[c] = p.border ? edge[c] : C(0);
  }
};

// ---------------------------------------------------------------------------------------------------
// Forward

// The weights of two columns after each other, once for every lane: u0 of both, then u1 of both.
template <class C>
void repeat_weights(const ColumnTaps<C>* columns, int64_t out_w, C* __restrict__ weights) {
  for (int64_t j = 0; j < out_w; ++j) {
    C* const u0 = weights + (j / 2 * 4 + j % 2) * kLanes;
    for (int64_t c = 0; c < kLanes; ++c) {
      u0[c] = columns[j].u0;
      u0[c + 2 * kLanes] = columns[j].u1;
    }
  }
}

template <class C>
void blend_columns(const C* __restrict__ buffer, const ColumnTaps<C>* columns, const C* weights,
                   int64_t out_w, int64_t pixel_stride, C* __restrict__ out) {
  if (pixel_stride <= kLanes) {
    int64_t j = 0;
#if defined(AF_LANE_PAIRS)
    for (; j + 2 <= out_w; j += 2, weights += 4 * kLanes) {
      const ColumnTaps<C>&x = columns[j], &next = columns[j + 1];
      const lane_pair_t<C> u0 = load_lane_pair(weights), u1 = load_lane_pair(weights + 2 * kLanes);
      store_lane_pair<C>(out + j * pixel_stride, out + (j + 1) * pixel_stride,
                         load_lane_pair(buffer + x.at0, buffer + next.at0) * u0 +
                             load_lane_pair(buffer + x.at1, buffer + next.at1) * u1);
    }
#endif
    for (; j < out_w; ++j) {
      const ColumnTaps<C>& x = columns[j];
      store_lanes<C>(out + j * pixel_stride,
                     load_lanes(buffer + x.at0) * x.u0 + load_lanes(buffer + x.at1) * x.u1);
    }
    return;
  }
  for (int64_t j = 0; j < out_w; ++j) {
    const ColumnTaps<C>& x = columns[j];
    const C* __restrict__ a = buffer + x.at0, * __restrict__ b = buffer + x.at1;
    C* __restrict__ to = out + j * pixel_stride;
    for (int64_t c = 0; c < pixel_stride; ++c) to[c] = x.u0 * a[c] + x.u1 * b[c];
  }
}

// Calls store(i, scanline [P_w][pixel_stride]) with every scanline of the patch of a box.
template <class C, class StoreScanline>
void crop_box(BilinearWorkspace<C>& work, int64_t k, const StoreScanline& store) {
  const ImageBatch &frames = work.p.frames, &out = work.p.patches;
  const Box<C> box = work.p.template box<C>(k);
  const ScanlineReader<C> reader(work, find_columns(box, work), k);
  if (work.pixel_stride() <= kLanes) repeat_weights(work.columns, out.width, work.weights);
  const auto tap = [&](int64_t i) {
    return sample_tap<C>(box.cy, box.h, min_of(i, out.height - 1), out.height, frames.height);
  };
  for (int64_t i = 0; i < out.height; ++i) {
    reader.read_soon(tap(i + 2));
    reader.read(tap(i), work.scanline0);
    blend_columns(work.scanline0, work.columns, work.weights, out.width, work.pixel_stride(),
                  work.patch_scanline);
    store(i, work.patch_scanline);
  }
}

// ---------------------------------------------------------------------------------------------------
// Gradient of the boxes

// Adds g D_x out to by_column, whose lanes sum up to one number a column, and returns the sum of g D_y
// out over a scanline of the patch, of which g [P_w][pixel_stride] is the gradient; `top` and `bottom` are
// the two scanlines of the frame that it lies between.
template <class C>
C differentiate_scanline(const C* __restrict__ g, const C* __restrict__ top, const C* __restrict__ bottom,
                         const Tap<C>& y, const ColumnTaps<C>* columns, int64_t out_w, int64_t pixel_stride,
                         int64_t channels, C* __restrict__ by_column) {
  C sum = 0;
  if (pixel_stride <= kLanes) {
    // Lanes beyond the pixel's channels hold numbers of its neighbour; nobody sums them.
    lanes_t<C> sums = {};
    for (int64_t j = 0; j < out_w; ++j) {
      const ColumnTaps<C>& x = columns[j];
      const lanes_t<C> t0 = load_lanes(top + x.at0), t1 = load_lanes(top + x.at1);
      const lanes_t<C> b0 = load_lanes(bottom + x.at0), b1 = load_lanes(bottom + x.at1);
      const lanes_t<C> gradient = load_lanes(g + j * pixel_stride);
      C* const column = by_column + j * kLanes;
      store_lanes<C>(column, load_lanes(column) + gradient * ((t1 - t0) * y.u0 + (b1 - b0) * y.u1));
      sums += gradient * ((b0 - t0) * x.u0 + (b1 - t1) * x.u1);
    }
    for (int64_t c = 0; c < channels; ++c) sum += sums[c];
    return sum;
  }
  for (int64_t j = 0; j < out_w; ++j) {
    const ColumnTaps<C>& x = columns[j];
    const C* __restrict__ t0 = top + x.at0, * __restrict__ t1 = top + x.at1;
    const C* __restrict__ b0 = bottom + x.at0, * __restrict__ b1 = bottom + x.at1;
    const C* __restrict__ gradient = g + j * pixel_stride;
    C d_y = 0, d_x = 0;
#pragma omp simd reduction(+ : d_y, d_x)
    for (int64_t c = 0; c < channels; ++c) {
      d_x += gradient[c] * ((t1[c] - t0[c]) * y.u0 + (b1[c] - b0[c]) * y.u1);
      d_y += gradient[c] * ((b0[c] - t0[c]) * x.u0 + (b1[c] - t1[c]) * x.u1);
    }
    sum += d_y;
    by_column[j * kLanes] += d_x;
  }
  return sum;
}

// The scanlines that were read last. Consecutive taps share scanlines, so even and odd ones have a buffer
// each and are read only when they change.
template <class C>
class ScanlineCache {
 public:
  ScanlineCache(const ScanlineReader<C>& reader, const BilinearWorkspace<C>& work)
      : reader_(reader), buffers_{work.scanline0, work.scanline1} {}

  const C* get(int64_t y) {
    const int64_t slot = y & 1;
    if (held_[slot] != y) reader_.read_one(y, buffers_[slot]);
    held_[slot] = y;
    return buffers_[slot];
  }

 private:
  const ScanlineReader<C>& reader_;
  C* buffers_[2];                             // [2][W + 4][pixel_stride]
  int64_t held_[2] = {INT64_MIN, INT64_MIN};  // which scanline each holds
};

// Adds this chunk's part to the gradient of a box, (cy, cx, h, w).
template <class C>
void add_box_gradient(BilinearWorkspace<C>& work, int64_t k, C* d_box) {
  const ImageBatch &frames = work.p.frames, &out = work.p.patches;
  const int64_t lanes = work.pixel_stride() <= kLanes ? work.channels : 1;
  const Box<C> box = work.p.template box<C>(k);
  const ScanlineReader<C> reader(work, find_columns(box, work), k);
  ScanlineCache<C> scanlines(reader, work);
  memset(work.by_column, 0, out.width * kLanes * sizeof(C));
  for (int64_t i = 0; i < out.height; ++i) {
    const Tap<C> y = sample_tap<C>(box.cy, box.h, i, out.height, frames.height);
    work.load_gradient(k, i, work.ones);
    const C d_y =
        differentiate_scanline(work.patch_scanline, scanlines.get(y.first), scanlines.get(y.first + 1), y,
                               work.columns, out.width, work.pixel_stride(), work.channels, work.by_column);
    d_box[0] += d_y;
    d_box[2] += d_y * work.offset_y[i];
  }
  for (int64_t j = 0; j < out.width; ++j) {
    C d_x = 0;
    for (int64_t c = 0; c < lanes; ++c) d_x += work.by_column[j * kLanes + c];
    d_box[1] += d_x;
    d_box[3] += d_x * work.offset_x[j];
  }
}

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

// Bilinear crop_resize on the CPU: forward and gradient of the boxes.
//
// Bilinear interpolation is separable, so one output row of a box is made in three steps:
//   load    two frame rows are normalised and blended into a row buffer (contiguous, vectorised),
//   blend   the row buffer is blended along the columns,
//   store   the result is converted to the output's type and layout.
// Columns outside the frame are pixels of the row buffer as well, zero or copies of the edge, so that
// blending needs no bounds.
#pragma once

#include "cpu/rows.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

// A box wider than this many times the patch is read column by column instead of in whole rows.
constexpr int64_t kSparse = 4;

// One output column: where its two pixels start in the row buffer, and their weights.
template <class C>
struct Column {
  int64_t at0, at1;
  C u0, u1;
};

// Row buffers hold at most every column of the frame and two outside it on each side. (A sparse row
// holds fewer: it is chosen only where its 2 P_w + 2 pixels are.)
template <class C>
struct BilinearWorkspace : Workspace<C> {
  C *row0, *row1;      // [W + 4][S] row buffers
  C* by_column;        // [P_w][kLanes] sums over the rows of a patch
  C* offset_y;         // [P_h] sample offsets
  C* offset_x;         // [P_w]
  Column<C>* columns;  // [P_w]
  int64_t* sparse;     // [2 P_w] frame columns of a row buffer that holds only those that are used

  BilinearWorkspace(Scratch& scratch, const CropResize& p, int64_t pixel_stride)
      : Workspace<C>(scratch, p, pixel_stride) {
    const int64_t out_h = p.patches.height, out_w = p.patches.width;
    const int64_t row = (p.frames.width + 4) * pixel_stride + kLanes;
    row0 = scratch.take<C>(row);
    row1 = scratch.take<C>(row);
    by_column = scratch.take<C>(out_w * kLanes);
    offset_y = scratch.take<C>(out_h);
    offset_x = scratch.take<C>(out_w);
    columns = scratch.take<Column<C>>(out_w);
    sparse = scratch.take<int64_t>(2 * out_w);
    for (int64_t i = 0; i < out_h; ++i) offset_y[i] = sample_offset<C>(i, out_h);
    for (int64_t j = 0; j < out_w; ++j) offset_x[j] = sample_offset<C>(j, out_w);
  }
};

// ---------------------------------------------------------------------------------------------------
// The columns of a box

// Which frame columns a box reads, laid out as a row buffer: `before` pixels outside on the left (or a
// sparse list), then the frame's columns from `first` on, then `after` pixels outside on the right.
struct Span {
  int64_t first, count, before, after;
  bool sparse;
};

template <class C>
Span find_columns(const Box<C>& box, BilinearWorkspace<C>& work) {
  const CropResize& p = work.p;
  const int64_t width = p.frames.width, out_w = p.patches.width, S = work.S;
  int64_t low = width, high = -2;
  for (int64_t j = 0; j < out_w; ++j) {
    const Tap<C> tap = sample_tap<C>(box.cx, box.w, j, out_w, width);
    work.columns[j] = {tap.first, tap.first + 1, tap.u0, tap.u1};
    low = min_of<int64_t>(low, tap.first);
    high = max_of<int64_t>(high, tap.first + 1);
  }
  Span span;
  if (high - low + 1 > kSparse * out_w) {
    // Pixels 2 and up of the buffer are the columns listed; pixels 0 and 1 are outside, left and right.
    span = {0, 0, 1, 1, true};
    for (int64_t j = 0; j < out_w; ++j) {
      int64_t* const ends[] = {&work.columns[j].at0, &work.columns[j].at1};
      for (int64_t* const at : ends) {
        const int64_t column = *at;
        work.sparse[span.count] = clamp_to<int64_t>(column, 0, width - 1);
        *at = (2 + span.count++) * S;
        if (!p.border && column < 0) *at = 0;
        if (!p.border && column >= width) *at = S;
      }
    }
    return span;
  }
  // At least one column is read, so that border padding has an edge to copy.
  const int64_t begin = clamp_to<int64_t>(low, 0, width - 1), end = clamp_to<int64_t>(high, 0, width - 1) + 1;
  span = {begin, end - begin, max_of<int64_t>(begin - low, 0), max_of<int64_t>(high + 1 - end, 0), false};
  const int64_t origin = begin - span.before;
  for (int64_t j = 0; j < out_w; ++j) {
    work.columns[j].at0 = (work.columns[j].at0 - origin) * S;
    work.columns[j].at1 = (work.columns[j].at1 - origin) * S;
  }
  return span;
}

// Reads the rows of one box of one chunk of channels into row buffers.
template <class C>
struct RowReader {
  const CropResize& p;
  RowLayout<C> layout;
  Span span;
  const void* image;  // first element of the chunk's first channel
  int64_t S;

  RowReader(const BilinearWorkspace<C>& work, const Span& columns, int64_t k)
      : p(work.p), span(columns), S(work.S) {
    const ImageBatch& f = p.frames;
    layout = {
        f.dtype,    f.stride_c, f.stride_x, work.channels, S, span.count, span.sparse ? work.sparse : nullptr,
        work.scale, work.shift};
    image = element(
        f.data, f.dtype,
        f.offset(p.frame_of(k)) + work.first * f.stride_c + (span.sparse ? 0 : span.first * f.stride_x));
  }

  AF_HD const void* row(int64_t y) const {
    if (p.border) y = clamp_to<int64_t>(y, 0, p.frames.height - 1);
    if (y < 0 || y >= p.frames.height) return nullptr;
    return element(image, p.frames.dtype, y * p.frames.stride_y);
  }

  // The two rows of a tap blended.
  void read(const Tap<C>& y, C* out) const { load({row(y.first), row(y.first + 1), y.u0, y.u1}, out); }

  void read_row(int64_t y, C* out) const { load({row(y), nullptr, C(1), C(0)}, out); }

 private:
  // Normalised, with the pixels outside.
  void load(const RowPair<C>& rows, C* out) const {
    const int64_t lead = (span.sparse ? 2 : span.before) * S;
    load_rows<C>(rows, layout, out + lead);
    if (span.sparse) {
      memset(out, 0, 2 * S * sizeof(C));  // the two pixels outside
      return;
    }
    C* const left = out + lead;
    C* const right = left + (span.count - 1) * S;
    for (int64_t q = 1; q <= span.before; ++q) fill_outside(left, left - q * S);
    for (int64_t q = 1; q <= span.after; ++q) fill_outside(right, right + q * S);
  }

  AF_HD void fill_outside(const C* edge, C* pixel) const {
    for (int64_t c = 0; c < S; ++c) pixel[c] = p.border ? edge[c] : C(0);
  }
};

// ---------------------------------------------------------------------------------------------------
// Forward

template <class C>
void blend_columns(const C* __restrict__ row, const Column<C>* columns, int64_t out_w, int64_t S,
                   C* __restrict__ out) {
  if (S <= kLanes) {
    for (int64_t j = 0; j < out_w; ++j) {
      const Column<C>& x = columns[j];
      store_lanes<C>(out + j * S, load_lanes(row + x.at0) * x.u0 + load_lanes(row + x.at1) * x.u1);
    }
    return;
  }
  for (int64_t j = 0; j < out_w; ++j) {
    const Column<C>& x = columns[j];
    const C* __restrict__ a = row + x.at0, * __restrict__ b = row + x.at1;
    C* __restrict__ to = out + j * S;
    for (int64_t c = 0; c < S; ++c) to[c] = x.u0 * a[c] + x.u1 * b[c];
  }
}

// Calls store(i, row) with every row of the patch of a box.
template <class C, class StoreRow>
void crop_box(BilinearWorkspace<C>& work, int64_t k, const StoreRow& store) {
  const ImageBatch &frames = work.p.frames, &out = work.p.patches;
  const Box<C> box = work.p.template box<C>(k);
  const Span span = find_columns(box, work);
  const RowReader<C> reader(work, span, k);
  for (int64_t i = 0; i < out.height; ++i) {
    reader.read(sample_tap<C>(box.cy, box.h, i, out.height, frames.height), work.row0);
    blend_columns(work.row0, work.columns, out.width, work.S, work.patch_row);
    store(i, work.patch_row);
  }
}

// ---------------------------------------------------------------------------------------------------
// Gradient of the boxes

// Adds g D_x out to by_column, whose lanes sum up to one number a column, and returns the sum of g D_y
// out over a row of the patch; `top` and `bottom` are the two frame rows that it lies between.
template <class C>
C differentiate_row(const C* __restrict__ g, const C* __restrict__ top, const C* __restrict__ bottom,
                    const Tap<C>& y, const Column<C>* columns, int64_t out_w, int64_t S, int64_t channels,
                    C* __restrict__ by_column) {
  C sum = 0;
  if (S <= kLanes) {
    // Lanes beyond the pixel's channels hold numbers of its neighbour; nobody sums them.
    lanes_t<C> sums = {};
    for (int64_t j = 0; j < out_w; ++j) {
      const Column<C>& x = columns[j];
      const lanes_t<C> t0 = load_lanes(top + x.at0), t1 = load_lanes(top + x.at1);
      const lanes_t<C> b0 = load_lanes(bottom + x.at0), b1 = load_lanes(bottom + x.at1);
      const lanes_t<C> gradient = load_lanes(g + j * S);
      C* const column = by_column + j * kLanes;
      store_lanes<C>(column, load_lanes(column) + gradient * ((t1 - t0) * y.u0 + (b1 - b0) * y.u1));
      sums += gradient * ((b0 - t0) * x.u0 + (b1 - t1) * x.u1);
    }
    for (int64_t c = 0; c < channels; ++c) sum += sums[c];
    return sum;
  }
  for (int64_t j = 0; j < out_w; ++j) {
    const Column<C>& x = columns[j];
    const C* __restrict__ t0 = top + x.at0, * __restrict__ t1 = top + x.at1;
    const C* __restrict__ b0 = bottom + x.at0, * __restrict__ b1 = bottom + x.at1;
    const C* __restrict__ gradient = g + j * S;
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

// The two rows around a sample. Consecutive samples share rows, so even and odd rows have a buffer each
// and are read only when they change.
template <class C>
class RowCache {
 public:
  RowCache(const RowReader<C>& reader, const BilinearWorkspace<C>& work)
      : reader_(reader), rows_{work.row0, work.row1} {}

  const C* get(int64_t y) {
    const int64_t slot = y & 1;
    if (held_[slot] != y) reader_.read_row(y, rows_[slot]);
    held_[slot] = y;
    return rows_[slot];
  }

 private:
  const RowReader<C>& reader_;
  C* rows_[2];
  int64_t held_[2] = {INT64_MIN, INT64_MIN};
};

// Adds this chunk's part to the gradient of a box, (cy, cx, h, w).
template <class C>
void add_box_gradient(BilinearWorkspace<C>& work, int64_t k, C* d_box) {
  const ImageBatch &frames = work.p.frames, &out = work.p.patches;
  const int64_t lanes = work.S <= kLanes ? work.channels : 1;
  const Box<C> box = work.p.template box<C>(k);
  const Span span = find_columns(box, work);
  const RowReader<C> reader(work, span, k);
  RowCache<C> rows(reader, work);
  memset(work.by_column, 0, out.width * kLanes * sizeof(C));
  for (int64_t i = 0; i < out.height; ++i) {
    const Tap<C> y = sample_tap<C>(box.cy, box.h, i, out.height, frames.height);
    work.load_gradient(k, i, work.ones);
    const C d_y = differentiate_row(work.patch_row, rows.get(y.first), rows.get(y.first + 1), y, work.columns,
                                    out.width, work.S, work.channels, work.by_column);
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

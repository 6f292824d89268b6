// crop_resize on the CPU, compiled once for each instruction set (isa_*.cpp).
//
// Bilinear interpolation is separable, so one output row of a box is made in three steps:
//   load    two frame rows are normalised and blended into a row buffer (contiguous, vectorised),
//   blend   the row buffer is blended along the columns,
//   store   the result is converted to the output's type and layout.
// Only the first and the last step know about element types and strides; the arithmetic between them
// is done on row buffers [pixels][S] of the compute type C, where S is the number of channels that are
// processed together. Columns outside the frame are pixels of the row buffer as well, zero or copies of
// the edge, so that blending needs no bounds.
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
// A box wider than this many times the patch is read column by column instead of in whole rows.
constexpr int64_t kSparse = 4;

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

// The first `count` lanes, and zero in the others.
template <class C>
AF_HD lanes_t<C> keep_lanes(lanes_t<C> v, int64_t count) {
  const lanes_t<C> lane = {C(0), C(1), C(2), C(3)};
  return lane < C(count) ? v : lanes_t<C>{};
}

// One output column: where its two pixels start in the row buffer, and their weights.
template <class C>
struct Column {
  int64_t at0, at1;
  C u0, u1;
};

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

AF_HD int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
AF_HD int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
AF_HD int64_t clamp_to(int64_t x, int64_t low, int64_t high) { return min_of(max_of(x, low), high); }

AF_HD int64_t chunk_channels(const ImageBatch& images) {
  if (images.channels <= kLanes) return images.channels;
  return min_of(images.channels, images.stride_c == 1 ? kInterleavedChunk : kPlanarChunk);
}

// Row buffers hold at most every column of the frame and two outside it on each side. (A sparse row
// holds fewer: it is chosen only where its 2 P_w + 2 pixels are.)
AF_HD int64_t max_row_pixels(const CropResize& p) { return p.frames.width + 4; }

// An affine pattern serves rows of frames and rows of patches.
AF_HD int64_t max_pattern_pixels(const CropResize& p) { return max_of(max_row_pixels(p), p.patches.width); }

// Fills [pixels][S] with values[c], or with `otherwise` where there are no values.
template <class C>
void fill_pattern(C* out, const C* values, C otherwise, int64_t pixels, int64_t S, int64_t channels) {
  for (int64_t q = 0; q < pixels; ++q) {
    for (int64_t c = 0; c < S; ++c) out[q * S + c] = values && c < channels ? values[c] : otherwise;
  }
}

template <class C>
struct Workspace {
  int64_t S;           // channels processed together
  C *scale, *shift;    // [max(P_w, row pixels)][S] affine of a row of a frame or a patch
  C *ones, *zeros;     // the same, of the affine that changes nothing
  C *row0, *row1;      // [row pixels][S] row buffers
  C* patch_row;        // [P_w][S]
  C* by_column;        // [P_w][kLanes] sums over the rows of a patch
  C* offset_y;         // [P_h] sample offsets
  C* offset_x;         // [P_w]
  Column<C>* columns;  // [P_w]
  int64_t* sparse;     // [2 P_w] frame columns of a row buffer that holds only those that are used

  Workspace(Scratch& scratch, const CropResize& p, int64_t pixel_stride) : S(pixel_stride) {
    const int64_t out_h = p.patches.height, out_w = p.patches.width;
    const int64_t row = max_row_pixels(p) * S + kLanes, patch = out_w * S + kLanes;
    const int64_t pixels = max_pattern_pixels(p), pattern = pixels * S + kLanes;
    scale = scratch.take<C>(pattern);
    shift = scratch.take<C>(pattern);
    ones = scratch.take<C>(pattern);
    zeros = scratch.take<C>(pattern);
    row0 = scratch.take<C>(row);
    row1 = scratch.take<C>(row);
    patch_row = scratch.take<C>(patch);
    by_column = scratch.take<C>(out_w * kLanes);
    offset_y = scratch.take<C>(out_h);
    offset_x = scratch.take<C>(out_w);
    columns = scratch.take<Column<C>>(out_w);
    sparse = scratch.take<int64_t>(2 * out_w);
    for (int64_t i = 0; i < out_h; ++i) offset_y[i] = sample_offset<C>(i, out_h);
    for (int64_t j = 0; j < out_w; ++j) offset_x[j] = sample_offset<C>(j, out_w);
    fill_pattern<C>(ones, nullptr, C(1), pixels, S, S);
    fill_pattern<C>(zeros, nullptr, C(0), pixels, S, S);
    memset(patch_row, 0, patch * sizeof(C));
  }

  // The affine of channels [first, first + channels).
  void set_affine(const CropResize& p, int64_t first, int64_t channels) {
    const C* affine = static_cast<const C*>(p.affine);
    const int64_t pixels = max_pattern_pixels(p);
    fill_pattern<C>(scale, affine ? affine + first : nullptr, C(1), pixels, S, channels);
    fill_pattern<C>(shift, affine ? affine + p.frames.channels + first : nullptr, C(0), pixels, S, channels);
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
Span find_columns(const CropResize& p, const Box<C>& box, Workspace<C>& work, bool allow_sparse) {
  const int64_t width = p.frames.width, out_w = p.patches.width, S = work.S;
  int64_t low = width, high = -2;
  for (int64_t j = 0; j < out_w; ++j) {
    const Tap<C> tap = sample_tap<C>(box.cx, box.w, j, out_w, width);
    work.columns[j] = {tap.first, tap.first + 1, tap.u0, tap.u1};
    low = min_of(low, tap.first);
    high = max_of(high, tap.first + 1);
  }
  Span span;
  if (allow_sparse && high - low + 1 > kSparse * out_w) {
    // Pixels 2 and up of the buffer are the columns listed; pixels 0 and 1 are outside, left and right.
    span = {0, 0, 1, 1, true};
    for (int64_t j = 0; j < out_w; ++j) {
      int64_t* const ends[] = {&work.columns[j].at0, &work.columns[j].at1};
      for (int64_t* const at : ends) {
        const int64_t column = *at;
        work.sparse[span.count] = clamp_to(column, 0, width - 1);
        *at = (2 + span.count++) * S;
        if (!p.border && column < 0) *at = 0;
        if (!p.border && column >= width) *at = S;
      }
    }
    return span;
  }
  // At least one column is read, so that border padding has an edge to copy.
  const int64_t begin = clamp_to(low, 0, width - 1), end = clamp_to(high, 0, width - 1) + 1;
  span = {begin, end - begin, max_of(begin - low, 0), max_of(high + 1 - end, 0), false};
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

  RowReader(const CropResize& params, const Workspace<C>& work, const Span& columns, int64_t frame,
            int64_t first_channel, int64_t channels)
      : p(params), span(columns), S(work.S) {
    const ImageBatch& f = p.frames;
    layout = {
        f.dtype,    f.stride_c, f.stride_x, channels, S, span.count, span.sparse ? work.sparse : nullptr,
        work.scale, work.shift};
    image =
        element(f.data, f.dtype,
                f.offset(frame) + first_channel * f.stride_c + (span.sparse ? 0 : span.first * f.stride_x));
  }

  AF_HD const void* row(int64_t y) const {
    if (p.border) y = clamp_to(y, 0, p.frames.height - 1);
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

template <class C>
void fill_patch(const CropResize& p, int64_t k, C value, Workspace<C>& work, int64_t first,
                int64_t channels) {
  const ImageBatch& out = p.patches;
  for (int64_t i = 0; i < out.width * work.S; ++i) work.patch_row[i] = value;
  for (int64_t i = 0; i < out.height; ++i) {
    void* to = element(out.data, out.dtype, out.offset(k) + first * out.stride_c + i * out.stride_y);
    store_row(work.patch_row, work.S, channels, out.width, out.dtype, to, out.stride_c, out.stride_x);
  }
}

template <class C>
void fwd_range(const CropResize& p, int64_t begin, int64_t end) {
  Scratch scratch;
  Workspace<C> work(scratch, p, chunk_channels(p.frames));
  const ImageBatch& out = p.patches;
  for (int64_t first = 0; first < p.frames.channels; first += work.S) {
    const int64_t channels = min_of(work.S, p.frames.channels - first);
    work.set_affine(p, first, channels);
    for (int64_t k = begin; k < end; ++k) {
      if (!p.valid<C>(k)) {
        fill_patch(p, k, C(__builtin_nan("")), work, first, channels);
        continue;
      }
      const Box<C> box = p.box<C>(k);
      const Span span = find_columns(p, box, work, /*allow_sparse=*/true);
      const RowReader<C> reader(p, work, span, p.frame_of(k), first, channels);
      const int64_t patch = out.offset(k) + first * out.stride_c;
      for (int64_t i = 0; i < out.height; ++i) {
        const Tap<C> y = sample_tap<C>(box.cy, box.h, i, p.patches.height, p.frames.height);
        reader.read(y, work.row0);
        blend_columns(work.row0, work.columns, out.width, work.S, work.patch_row);
        store_row(work.patch_row, work.S, channels, out.width, out.dtype,
                  element(out.data, out.dtype, patch + i * out.stride_y), out.stride_c, out.stride_x);
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------------
// Gradient of the boxes

// Reads a row of the patches' gradient, multiplied by the pattern `scale`.
template <class C>
void load_gradient(const CropResize& p, const Workspace<C>& work, const C* scale, int64_t k, int64_t i,
                   int64_t first, int64_t channels, C* out) {
  const ImageBatch& g = p.patches;
  const void* row = element(g.data, g.dtype, g.offset(k) + first * g.stride_c + i * g.stride_y);
  load_rows<C>({row, nullptr, C(1), C(0)},
               {g.dtype, g.stride_c, g.stride_x, channels, work.S, g.width, nullptr, scale, work.zeros}, out);
}

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
  RowCache(const RowReader<C>& reader, const Workspace<C>& work)
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

template <class C>
void bwd_boxes_range(const CropResize& p, C* d_boxes, int64_t begin, int64_t end) {
  Scratch scratch;
  Workspace<C> work(scratch, p, chunk_channels(p.frames));
  const int64_t out_h = p.patches.height, out_w = p.patches.width;
  memset(d_boxes + 4 * begin, 0, 4 * (end - begin) * sizeof(C));
  for (int64_t first = 0; first < p.frames.channels; first += work.S) {
    const int64_t channels = min_of(work.S, p.frames.channels - first);
    const int64_t lanes = work.S <= kLanes ? channels : 1;
    work.set_affine(p, first, channels);
    for (int64_t k = begin; k < end; ++k) {
      if (!p.valid<C>(k)) continue;
      const Box<C> box = p.box<C>(k);
      const Span span = find_columns(p, box, work, /*allow_sparse=*/true);
      const RowReader<C> reader(p, work, span, p.frame_of(k), first, channels);
      RowCache<C> rows(reader, work);
      memset(work.by_column, 0, out_w * kLanes * sizeof(C));
      C* const d_box = d_boxes + 4 * k;  // (cy, cx, h, w)
      for (int64_t i = 0; i < out_h; ++i) {
        const Tap<C> y = sample_tap<C>(box.cy, box.h, i, p.patches.height, p.frames.height);
        load_gradient(p, work, work.ones, k, i, first, channels, work.patch_row);
        const C d_y = differentiate_row(work.patch_row, rows.get(y.first), rows.get(y.first + 1), y,
                                        work.columns, out_w, work.S, channels, work.by_column);
        d_box[0] += d_y;
        d_box[2] += d_y * work.offset_y[i];
      }
      for (int64_t j = 0; j < out_w; ++j) {
        C d_x = 0;
        for (int64_t c = 0; c < lanes; ++c) d_x += work.by_column[j * kLanes + c];
        d_box[1] += d_x;
        d_box[3] += d_x * work.offset_x[j];
      }
    }
  }
}

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

// The adjoint of blend_columns: row[at] += u * g.
template <class C>
void spread_columns(const C* __restrict__ g, const Column<C>* columns, int64_t out_w, int64_t S,
                    C* __restrict__ row) {
  for (int64_t j = 0; j < out_w; ++j) {
    const Column<C>& x = columns[j];
    const C* __restrict__ from = g + j * S;
    if (S <= kLanes) {
      const lanes_t<C> gradient = keep_lanes<C>(load_lanes(from), S);  // nothing is added to the neighbour
      store_lanes<C>(row + x.at0, load_lanes(row + x.at0) + gradient * x.u0);
      store_lanes<C>(row + x.at1, load_lanes(row + x.at1) + gradient * x.u1);
      continue;
    }
    for (int64_t c = 0; c < S; ++c) row[x.at0 + c] += x.u0 * from[c];
    for (int64_t c = 0; c < S; ++c) row[x.at1 + c] += x.u1 * from[c];
  }
}

// Adds the gradient of one box to that of its frame, image [H][W][S].
template <class C>
void add_box(const CropResize& p, Workspace<C>& work, int64_t k, int64_t first, int64_t channels, C* image) {
  const int64_t S = work.S, height = p.frames.height, width = p.frames.width;
  const Box<C> box = p.box<C>(k);
  const Span span = find_columns(p, box, work, /*allow_sparse=*/false);
  C *const row = work.row0, *const inside = row + span.before * S;
  for (int64_t i = 0; i < p.patches.height; ++i) {
    load_gradient(p, work, work.scale, k, i, first, channels, work.patch_row);
    memset(row, 0, (span.before + span.count + span.after) * S * sizeof(C));
    spread_columns(work.patch_row, work.columns, p.patches.width, S, row);
    if (p.border) {  // pixels outside are copies of the edge
      C* const right = inside + (span.count - 1) * S;
      for (int64_t q = 1; q <= span.before; ++q) {
        for (int64_t c = 0; c < S; ++c) inside[c] += inside[c - q * S];
      }
      for (int64_t q = 1; q <= span.after; ++q) {
        for (int64_t c = 0; c < S; ++c) right[c] += right[c + q * S];
      }
    }
    const Tap<C> y = sample_tap<C>(box.cy, box.h, i, p.patches.height, height);
    for (int64_t a = 0; a < 2; ++a) {
      const C u = a == 0 ? y.u0 : y.u1;
      const int64_t r = p.border ? clamp_to(y.first + a, 0, height - 1) : y.first + a;
      if (r < 0 || r >= height) continue;
      C* __restrict__ to = image + (r * width + span.first) * S;
      for (int64_t e = 0; e < span.count * S; ++e) to[e] += u * inside[e];
    }
  }
}

template <class C>
void bwd_frames_range(const CropResize& p, BoxesByFrame boxes, int64_t begin, int64_t end) {
  Scratch scratch;
  const ImageBatch& frames = p.frames;
  const int64_t S = chunk_channels_adjoint(frames), chunks = chunks_adjoint(frames);
  Workspace<C> work(scratch, p, S);
  const int64_t pixels = frames.height * frames.width;
  C* const image = scratch.take<C>(pixels * S);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t n = task / chunks, first = task % chunks * S;
    const int64_t channels = min_of(S, frames.channels - first);
    work.set_affine(p, first, channels);
    memset(image, 0, pixels * S * sizeof(C));
    for (int64_t b = boxes.start[n]; b < boxes.start[n + 1]; ++b) {
      add_box(p, work, boxes.box[b], first, channels, image);
    }
    const int64_t offset = frames.offset(n) + first * frames.stride_c;
    for (int64_t r = 0; r < frames.height; ++r) {
      void* to = element(frames.data, frames.dtype, offset + r * frames.stride_y);
      store_row(image + r * frames.width * S, S, channels, frames.width, frames.dtype, to, frames.stride_c,
                frames.stride_x);
    }
  }
}

}  // namespace

void crop_resize_fwd(const CropResize& p, int64_t begin, int64_t end) {
  p.double_precision ? fwd_range<double>(p, begin, end) : fwd_range<float>(p, begin, end);
}

void crop_resize_bwd_boxes(const CropResize& p, void* d_boxes, int64_t begin, int64_t end) {
  p.double_precision ? bwd_boxes_range(p, static_cast<double*>(d_boxes), begin, end)
                     : bwd_boxes_range(p, static_cast<float*>(d_boxes), begin, end);
}

int64_t crop_resize_bwd_frames_tasks(const CropResize& p) {
  return p.frames.count * chunks_adjoint(p.frames);
}

void crop_resize_bwd_frames(const CropResize& p, BoxesByFrame boxes, int64_t begin, int64_t end) {
  p.double_precision ? bwd_frames_range<double>(p, boxes, begin, end)
                     : bwd_frames_range<float>(p, boxes, begin, end);
}

}  // namespace AF_ISA
}  // namespace adafocus

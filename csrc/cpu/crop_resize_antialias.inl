// Antialiased crop_resize on the CPU: forward and gradient of the boxes.
//
// A crop is A_y v A_x^T with the weights of the axes. One output row of a box is made from many frame rows,
// which are summed into a row buffer and normalised there; the row buffer times A_x^T is the row. Weights
// never lie outside the frame: AntialiasedFootprint gives those of the padding to the edge, or drops them.
#pragma once

#include "cpu/axis_matrix.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

template <class C>
struct AntialiasWorkspace : Workspace<C> {
  Columns<AntialiasedFootprint, C> columns;
  Taps<C> rows;                // of one output row
  C* sum[kNumParts];           // [columns][S] of these rows, with each part of the weights
  BandedMatrix<C> transposed;  // [columns][P_w] A_x^T
  C *row, *row_gradient;       // [columns][S]
  Growing<C> products;         // [entries of A_x][kLanes] sums over the rows of a patch

  AntialiasWorkspace(Scratch& scratch, const CropResize& p, int64_t pixel_stride)
      : Workspace<C>(scratch, p, pixel_stride),
        columns(scratch, p),
        rows(scratch, p.frames.height),
        transposed(scratch, p.frames.width),
        products(scratch) {
    const int64_t size = p.frames.width * pixel_stride + kLanes;
    for (C*& part : sum) part = scratch.take<C>(size);
    row = scratch.take<C>(size);
    row_gradient = scratch.take<C>(size);
  }

  RowLayout<C> layout() const {
    const ImageBatch& f = this->p.frames;
    return {f.dtype,       f.stride_c, f.stride_x, this->channels, this->S,
            columns.count, nullptr,    nullptr,    nullptr};
  }

  // The columns of this chunk of the frame of box k.
  const void* image(int64_t k) const {
    const ImageBatch& f = this->p.frames;
    return element(f.data, f.dtype,
                   f.offset(this->p.frame_of(k)) + this->first * f.stride_c + columns.first * f.stride_x);
  }

  // Turns a sum of rows into that of normalised rows.
  void normalise(Part part) {
    if (!this->p.affine) return;
    C* __restrict__ out = sum[part];
    const C* __restrict__ scale = this->scale, * __restrict__ shift = this->shift;
    const C inside = rows.total(part);
    for (int64_t e = 0; e < columns.count * this->S; ++e) out[e] = scale[e] * out[e] + shift[e] * inside;
  }
};

// Calls store(i, row) with every row of the patch of a box.
template <class C, class StoreRow>
void crop_box(AntialiasWorkspace<C>& work, int64_t k, const StoreRow& store) {
  const Box<C> box = work.p.template box<C>(k);
  work.columns.set(work.p, box);
  for (int64_t i = 0; i < work.p.patches.height; ++i) {
    const auto y = row_sample<AntialiasedFootprint>(work.p, box, i);
    work.rows.count = 0;
    for (int64_t r = y.begin; r < y.end; ++r) work.rows.add(r, y.weight(r).value);
    sum_rows(work.rows, work.image(k), work.p.frames.stride_y, work.layout(), work.sum[kValue]);
    work.normalise(kValue);
    work.columns.weights.multiply(work.sum[kValue], work.S, work.patch_row);
    store(i, work.patch_row);
  }
}

// Adds the product of every pair of pixels that the matrix joins, of a row buffer and a row of the patch, to
// products [entries][kLanes], whose lanes sum up to one number an entry. Lanes beyond a pixel's channels hold
// numbers of its neighbour; nobody sums them.
template <class C>
void add_products(const BandedMatrix<C>& matrix, const C* __restrict__ row, const C* __restrict__ patch_row,
                  int64_t S, int64_t channels, C* __restrict__ products) {
  if (S <= kLanes) {
    matrix.for_each([&](int64_t j, int64_t s, int64_t entry) __attribute__((always_inline)) {
      C* const sum = products + entry * kLanes;
      store_lanes<C>(sum, load_lanes(sum) + load_lanes(patch_row + j * S) * load_lanes(row + s * S));
    });
    return;
  }
  matrix.for_each([&](int64_t j, int64_t s, int64_t entry) {
    products[entry * kLanes] += dot(patch_row + j * S, row + s * S, channels);
  });
}

// Adds this chunk's part to the gradient of a box, (cy, cx, h, w).
template <class C>
void add_box_gradient(AntialiasWorkspace<C>& work, int64_t k, C* d_box) {
  const int64_t S = work.S, lanes = S <= kLanes ? work.channels : 1;
  const Box<C> box = work.p.template box<C>(k);
  work.columns.set(work.p, box);
  const BandedMatrix<C>& weights = work.columns.weights;
  const int64_t count = work.columns.count;
  work.transposed.set_transposed(weights, count);
  C* const products = work.products.at_least(weights.entries() * kLanes);
  memset(products, 0, weights.entries() * kLanes * sizeof(C));
  for (int64_t i = 0; i < work.p.patches.height; ++i) {
    const auto y = row_sample<AntialiasedFootprint>(work.p, box, i);
    work.rows.count = 0;
    for (int64_t r = y.begin; r < y.end; ++r) work.rows.add(r, y.weight(r));
    sum_rows_of_all_parts(work.rows, work.image(k), work.p.frames.stride_y, work.layout(), work.row,
                          work.sum);
    for (int part = 0; part < kNumParts; ++part) work.normalise(Part(part));
    work.load_gradient(k, i, work.ones);
    work.transposed.multiply(work.patch_row, S, work.row_gradient);
    d_box[0] += dot(work.sum[kByCentre], work.row_gradient, count * S);
    d_box[2] += dot(work.sum[kByExtent], work.row_gradient, count * S);
    add_products(weights, work.sum[kValue], work.patch_row, S, work.channels, products);
  }
  weights.for_each([&](int64_t j, int64_t s, int64_t entry) {
    const Dual<C> weight = work.columns.samples[j].weight(work.columns.first + s);
    for (int64_t c = 0; c < lanes; ++c) {
      d_box[1] += weight.by_centre * products[entry * kLanes + c];
      d_box[3] += weight.by_extent * products[entry * kLanes + c];
    }
  });
}

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

// Antialiased crop_resize on the CPU: forward and gradient of the boxes.
//
// A crop is A_y v A_x^T with the weights of the axes. One output scanline of a box is made from many
// scanlines of the frame, which are summed into a buffer and normalised there; the buffer times A_x^T is the
// scanline. Weights never lie outside the frame: AntialiasedFootprint gives those of the padding to the edge,
// or drops them.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/axis_matrix.inl"
#include "cpu/isa.h"
#include "cpu/workspace.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

template <class C>
struct AntialiasWorkspace : Workspace<C> {
  ColumnFootprints<AntialiasedFootprint, C> columns;
  WeightedPixels<C> scanlines;  // of the frame, that make one scanline of the patch
  C* sum[kNumParts];            // [kNumParts][columns][pixel_stride] of these, with each part of the weights
  BandedMatrix<C> transposed;   // [columns][P_w] A_x^T
  C* scanline;                  // [columns][pixel_stride] one of the frame
  C* scanline_gradient;  // [columns][pixel_stride] the patch's gradient brought back to the frame's columns
  Growing<C> products;   // [entries of A_x][kLanes] sums over the scanlines of a patch

  AntialiasWorkspace(Scratch& scratch, const CropResize& p, int64_t chunk_size)
      : Workspace<C>(scratch, p, chunk_size),
        columns(scratch, p),
        scanlines(scratch, p.frames.height),
        transposed(scratch, p.frames.width),
        products(scratch) {
    const int64_t size = p.frames.width * this->pixel_stride() + kLanes;
    for (C*& part : sum) part = scratch.take<C>(size);
    scanline = scratch.take<C>(size);
    scanline_gradient = scratch.take<C>(size);
  }

  ScanlineLayout<C> layout() const {
    const ImageBatch& f = this->p.frames;
    return {f.dtype,         f.stride_c, f.stride_x, this->channels, this->pixel_stride(),
            columns.count(), nullptr,    nullptr,    nullptr};
  }

  // The columns of this chunk of the frame of box k.
  const void* image(int64_t k) const {
    const ImageBatch& f = this->p.frames;
    return element(
        f.data, f.dtype,
        f.offset(this->p.frame_of(k)) + this->first * f.stride_c + columns.range.begin * f.stride_x);
  }

  // Turns a sum of scanlines into that of normalised scanlines.
  void normalise(Part part) {
    if (!this->p.affine) return;
    C* __restrict__ out = sum[part];
    const C* __restrict__ scale = this->scale, * __restrict__ shift = this->shift;
    const C inside = scanlines.total(part);
    for (int64_t e = 0; e < columns.count() * this->pixel_stride(); ++e) {
      out[e] = scale[e] * out[e] + shift[e] * inside;
    }
  }
};

// Calls store(i, scanline [P_w][pixel_stride]) with every scanline of the patch of a box.
template <class C, class StoreScanline>
void crop_box(AntialiasWorkspace<C>& work, int64_t k, const StoreScanline& store) {
  const Box<C> box = work.p.template box<C>(k);
  work.columns.set(work.p, box);
  for (int64_t i = 0; i < work.p.patches.height; ++i) {
    const auto y = scanline_footprint<AntialiasedFootprint>(work.p, box, i);
    work.scanlines.count = 0;
    for (int64_t r = y.begin; r < y.end; ++r) work.scanlines.add(r, y.weight(r).value);
    sum_scanlines(work.scanlines, work.image(k), work.p.frames.stride_y, work.layout(), work.sum[kValue]);
    work.normalise(kValue);
    work.columns.weights.multiply(work.sum[kValue], work.pixel_stride(), work.patch_scanline);
    store(i, work.patch_scanline);
  }
}

// Adds the product of every pair of pixels that the matrix joins, of a buffer [columns][pixel_stride] and a
// scanline of the patch [P_w][pixel_stride], to products [entries][kLanes], whose lanes sum up to one number
// an entry. Lanes beyond a pixel's channels hold numbers of its neighbour; nobody sums them.
template <class C>
void add_products(const BandedMatrix<C>& matrix, const C* __restrict__ buffer,
                  const C* __restrict__ patch_scanline, int64_t pixel_stride, int64_t channels,
                  C* __restrict__ products) {
  if (pixel_stride <= kLanes) {
    matrix.for_each([&](int64_t j, int64_t s, int64_t entry) __attribute__((always_inline)) {
      C* const sum = products + entry * kLanes;
      store_lanes<C>(sum, load_lanes(sum) + load_lanes(patch_scanline + j * pixel_stride) *
                                                load_lanes(buffer + s * pixel_stride));
    });
    return;
  }
  matrix.for_each([&](int64_t j, int64_t s, int64_t entry) {
    products[entry * kLanes] += dot(patch_scanline + j * pixel_stride, buffer + s * pixel_stride, channels);
  });
}

// Adds this chunk's part to the gradient of a box, (cy, cx, h, w).
template <class C>
void add_box_gradient(AntialiasWorkspace<C>& work, int64_t k, C* d_box) {
  const int64_t pixel_stride = work.pixel_stride(), lanes = pixel_stride <= kLanes ? work.channels : 1;
  const Box<C> box = work.p.template box<C>(k);
  work.columns.set(work.p, box);
  const BandedMatrix<C>& weights = work.columns.weights;
  const int64_t count = work.columns.count();
  work.transposed.set_transposed(weights, count);
  C* const products = work.products.at_least(weights.entries() * kLanes);  // [entries][kLanes]
  memset(products, 0, weights.entries() * kLanes * sizeof(C));
  for (int64_t i = 0; i < work.p.patches.height; ++i) {
    const auto y = scanline_footprint<AntialiasedFootprint>(work.p, box, i);
    work.scanlines.count = 0;
    for (int64_t r = y.begin; r < y.end; ++r) work.scanlines.add(r, y.weight(r));
    sum_scanlines_of_all_parts(work.scanlines, work.image(k), work.p.frames.stride_y, work.layout(),
                               work.scanline, work.sum);
    for (int part = 0; part < kNumParts; ++part) work.normalise(Part(part));
    work.load_gradient(k, i, work.ones);
    work.transposed.multiply(work.patch_scanline, pixel_stride, work.scanline_gradient);
    d_box[0] += dot(work.sum[kByCentre], work.scanline_gradient, count * pixel_stride);
    d_box[2] += dot(work.sum[kByExtent], work.scanline_gradient, count * pixel_stride);
    add_products(weights, work.sum[kValue], work.patch_scanline, pixel_stride, work.channels, products);
  }
  weights.for_each([&](int64_t j, int64_t s, int64_t entry) {
    const Dual<C> weight = work.columns.footprints[j].weight(work.columns.range.begin + s);
    for (int64_t c = 0; c < lanes; ++c) {
      d_box[1] += weight.by_centre * products[entry * kLanes + c];
      d_box[3] += weight.by_extent * products[entry * kLanes + c];
    }
  });
}

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

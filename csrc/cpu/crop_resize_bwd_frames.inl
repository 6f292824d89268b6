// The gradient of the frames of crop_resize on the CPU: A_y^T g A_x with the weights of the axes, the same
// for both kinds of sampling.
#pragma once

#include "cpu/axis_matrix.inl"
#include "cpu/isa.h"
#include "cpu/workspace.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

template <template <class> class Footprint, class C>
struct AdjointWorkspace : Workspace<C> {
  ColumnFootprints<Footprint, C> columns;
  BandedMatrix<C> transposed;  // [columns][P_w] A_x^T
  C* scanline;                 // [columns][pixel_stride]

  AdjointWorkspace(Scratch& scratch, const CropResize& p, int64_t chunk_size)
      : Workspace<C>(scratch, p, chunk_size), columns(scratch, p), transposed(scratch, p.frames.width) {
    scanline = scratch.take<C>(p.frames.width * this->pixel_stride() + kLanes);
  }
};

template <class C>
using BilinearAdjointWorkspace = AdjointWorkspace<BilinearFootprint, C>;
template <class C>
using AntialiasAdjointWorkspace = AdjointWorkspace<AntialiasedFootprint, C>;

// Adds the gradient of a box to that of its frame, image [H][W][pixel_stride].
template <template <class> class Footprint, class C>
void add_frame_gradient(AdjointWorkspace<Footprint, C>& work, int64_t k, C* image) {
  const CropResize& p = work.p;
  const int64_t pixel_stride = work.pixel_stride();
  const Box<C> box = p.box<C>(k);
  work.columns.set(p, box);
  work.transposed.set_transposed(work.columns.weights, work.columns.count());
  for (int64_t i = 0; i < p.patches.height; ++i) {
    work.load_gradient(k, i, work.scale);
    work.transposed.multiply(work.patch_scanline, pixel_stride, work.scanline);
    const Footprint<C> y = scanline_footprint<Footprint>(p, box, i);
    for (int64_t r = y.begin; r < y.end; ++r) {
      add_scaled(work.scanline, y.weight(r).value, work.columns.count() * pixel_stride,
                 image + (r * p.frames.width + work.columns.range.begin) * pixel_stride);
    }
  }
}

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

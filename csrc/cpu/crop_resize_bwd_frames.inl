// Gradient of the frames of crop_resize on the CPU: A_y^T g A_x with the weights of the axes, whichever they
// are.
#pragma once

#include "cpu/axis_matrix.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

template <template <class> class Footprint, class C>
struct AdjointWorkspace : Workspace<C> {
  Columns<Footprint, C> columns;
  BandedMatrix<C> transposed;  // [columns][P_w] A_x^T
  C* row;                      // [columns][S] row buffer

  AdjointWorkspace(Scratch& scratch, const CropResize& p, int64_t pixel_stride)
      : Workspace<C>(scratch, p, pixel_stride), columns(scratch, p), transposed(scratch, p.frames.width) {
    row = scratch.take<C>(p.frames.width * pixel_stride + kLanes);
  }
};

template <class C>
using BilinearAdjointWorkspace = AdjointWorkspace<BilinearFootprint, C>;
template <class C>
using AntialiasAdjointWorkspace = AdjointWorkspace<AntialiasedFootprint, C>;

// Adds the gradient of a box to that of its frame, image [H][W][S].
template <template <class> class Footprint, class C>
void add_frame_gradient(AdjointWorkspace<Footprint, C>& work, int64_t k, C* image) {
  const CropResize& p = work.p;
  const Box<C> box = p.box<C>(k);
  work.columns.set(p, box);
  work.transposed.set_transposed(work.columns.weights, work.columns.count);
  for (int64_t i = 0; i < p.patches.height; ++i) {
    work.load_gradient(k, i, work.scale);
    work.transposed.multiply(work.patch_row, work.S, work.row);
    const Footprint<C> y = row_sample<Footprint>(p, box, i);
    for (int64_t r = y.begin; r < y.end; ++r) {
      add_scaled(work.row, y.weight(r).value, work.columns.count * work.S,
                 image + (r * p.frames.width + work.columns.first) * work.S);
    }
  }
}

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

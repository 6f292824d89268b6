// crop_resize on the CPU: the loops over chunks of channels and boxes, for both kinds of sampling.
//
// A kind of sampling is a type of workspace, and functions overloaded on that type:
//
//   workspace                     functions                                    file
//   BilinearWorkspace             crop_box, add_box_gradient                   crop_resize_bilinear.inl
//   AntialiasWorkspace            crop_box, add_box_gradient                   crop_resize_antialias.inl
//   AdjointWorkspace<Footprint>   add_frame_gradient, written once for both    crop_resize_bwd_frames.inl
#pragma once

#include <type_traits>

#include "adafocus/crop_resize.h"
#include "cpu/crop_bwd_frames.inl"
#include "cpu/crop_resize_antialias.inl"
#include "cpu/crop_resize_bilinear.inl"
#include "cpu/crop_resize_bwd_frames.inl"
#include "cpu/dispatch.h"
#include "cpu/isa.h"

namespace adafocus {
namespace AF_ISA {
namespace {

template <class Work>
void fwd_range(Work& work, int64_t begin, int64_t end) {
  using C = typename Work::Compute;
  const CropResize& p = work.p;
  const ImageBatch& out = p.patches;
  for (int64_t first = 0; first < p.frames.channels; first += work.chunk_size) {
    work.start_chunk(first);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t patch = out.offset(k) + first * out.stride_c;
      const auto store = [&](int64_t i, const C* scanline) {
        store_scanline(scanline, work.pixel_stride(), work.channels, out.width, out.dtype,
                       element(out.data, out.dtype, patch + i * out.stride_y), out.stride_c, out.stride_x);
      };
      if (p.template valid<C>(k)) {
        crop_box(work, k, store);
        continue;
      }
      for (int64_t e = 0; e < out.width * work.pixel_stride(); ++e) {
        work.patch_scanline[e] = C(__builtin_nan(""));
      }
      for (int64_t i = 0; i < out.height; ++i) store(i, work.patch_scanline);
    }
  }
}

template <class Work, class C>
void bwd_boxes_range(Work& work, C* d_boxes, int64_t begin, int64_t end) {
  memset(d_boxes + 4 * begin, 0, 4 * (end - begin) * sizeof(C));
  for (int64_t first = 0; first < work.p.frames.channels; first += work.chunk_size) {
    work.start_chunk(first);
    for (int64_t k = begin; k < end; ++k) {
      if (work.p.template valid<C>(k)) add_box_gradient(work, k, d_boxes + 4 * k);
    }
  }
}

// Calls f(workspace) with the workspace of the call's compute type and sampling.
template <template <class> class Bilinear, template <class> class Antialias, class F>
void with_workspace(const CropResize& p, int64_t chunk_size, const F& f) {
  visit_compute(p.double_precision, [&](auto tag) {
    using C = typename decltype(tag)::type;
    Scratch scratch;
    const auto run = [&](auto work) { f(work); };
    p.antialias ? run(Antialias<C>(scratch, p, chunk_size)) : run(Bilinear<C>(scratch, p, chunk_size));
  });
}

}  // namespace
}  // namespace AF_ISA

void AF_ISA::crop_resize_fwd(const CropResize& p, int64_t begin, int64_t end) {
  with_workspace<BilinearWorkspace, AntialiasWorkspace>(p, chunk_size_of(p.frames),
                                                        [&](auto& work) { fwd_range(work, begin, end); });
}

void AF_ISA::crop_resize_bwd_boxes(const CropResize& p, void* d_boxes, int64_t begin, int64_t end) {
  with_workspace<BilinearWorkspace, AntialiasWorkspace>(p, chunk_size_of(p.frames), [&](auto& work) {
    using C = typename std::decay_t<decltype(work)>::Compute;
    bwd_boxes_range(work, static_cast<C*>(d_boxes), begin, end);
  });
}

int64_t AF_ISA::crop_resize_bwd_frames_tasks(const CropResize& p) {
  return p.frames.count * adjoint_chunks(p.frames);
}

void AF_ISA::crop_resize_bwd_frames(const CropResize& p, BoxesByFrame boxes, int64_t begin, int64_t end) {
  with_workspace<BilinearAdjointWorkspace, AntialiasAdjointWorkspace>(
      p, adjoint_chunk_size_of(p.frames), [&](auto& work) {
        bwd_frames_range(work, boxes, begin, end,
                         [&](int64_t k, auto* image) { add_frame_gradient(work, k, image); });
      });
}

}  // namespace adafocus

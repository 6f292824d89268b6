// crop_resize on the CPU: the loops over chunks of channels and boxes, for both kinds of sampling.
#include <type_traits>

#include "cpu/crop_resize_antialias.inl"
#include "cpu/crop_resize_bilinear.inl"
#include "cpu/crop_resize_bwd_frames.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

template <class Work>
void fwd_range(Work& work, int64_t begin, int64_t end) {
  using C = typename Work::Compute;
  const CropResize& p = work.p;
  const ImageBatch& out = p.patches;
  for (int64_t first = 0; first < p.frames.channels; first += work.S) {
    work.start_chunk(first);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t patch = out.offset(k) + first * out.stride_c;
      const auto store = [&](int64_t i, const C* row) {
        store_row(row, work.S, work.channels, out.width, out.dtype,
                  element(out.data, out.dtype, patch + i * out.stride_y), out.stride_c, out.stride_x);
      };
      if (p.template valid<C>(k)) {
        crop_box(work, k, store);
        continue;
      }
      for (int64_t e = 0; e < out.width * work.S; ++e) work.patch_row[e] = C(__builtin_nan(""));
      for (int64_t i = 0; i < out.height; ++i) store(i, work.patch_row);
    }
  }
}

template <class Work, class C>
void bwd_boxes_range(Work& work, C* d_boxes, int64_t begin, int64_t end) {
  memset(d_boxes + 4 * begin, 0, 4 * (end - begin) * sizeof(C));
  for (int64_t first = 0; first < work.p.frames.channels; first += work.S) {
    work.start_chunk(first);
    for (int64_t k = begin; k < end; ++k) {
      if (work.p.template valid<C>(k)) add_box_gradient(work, k, d_boxes + 4 * k);
    }
  }
}

// Calls f(workspace) with that of the call's compute type and sampling.
template <template <class> class Bilinear, template <class> class Antialias, class F>
void with_workspace(const CropResize& p, int64_t S, const F& f) {
  Scratch scratch;
  const auto run = [&](auto work) { f(work); };
  if (p.antialias) {
    p.double_precision ? run(Antialias<double>(scratch, p, S)) : run(Antialias<float>(scratch, p, S));
  } else {
    p.double_precision ? run(Bilinear<double>(scratch, p, S)) : run(Bilinear<float>(scratch, p, S));
  }
}

}  // namespace

void crop_resize_fwd(const CropResize& p, int64_t begin, int64_t end) {
  with_workspace<BilinearWorkspace, AntialiasWorkspace>(p, chunk_channels(p.frames),
                                                        [&](auto& work) { fwd_range(work, begin, end); });
}

void crop_resize_bwd_boxes(const CropResize& p, void* d_boxes, int64_t begin, int64_t end) {
  with_workspace<BilinearWorkspace, AntialiasWorkspace>(p, chunk_channels(p.frames), [&](auto& work) {
    using C = typename std::decay_t<decltype(work)>::Compute;
    bwd_boxes_range(work, static_cast<C*>(d_boxes), begin, end);
  });
}

int64_t crop_resize_bwd_frames_tasks(const CropResize& p) {
  return p.frames.count * chunks_adjoint(p.frames);
}

void crop_resize_bwd_frames(const CropResize& p, BoxesByFrame boxes, int64_t begin, int64_t end) {
  with_workspace<BilinearAdjointWorkspace, AntialiasAdjointWorkspace>(
      p, chunk_channels_adjoint(p.frames), [&](auto& work) { bwd_frames_range(work, boxes, begin, end); });
}

}  // namespace AF_ISA
}  // namespace adafocus

// crop_resize on CUDA for any call: all strides, element types, numbers of channels and both kinds of
// footprints. A thread works on one pixel and a few channels.
#include "cuda/crop.cuh"
#include "cuda/crop_resize_kernels.h"

namespace adafocus {
namespace {

// Calls f(r, s, w_y, w_x) for every pixel that the output (i, j) of a box reads, with its weights.
template <template <class> class Footprint, class C, class F>
AF_DEVICE void for_each_pixel(const CropResize& p, const Box<C>& box, int64_t i, int64_t j, const F& f) {
  const Footprint<C> y(box.cy, box.h, i, p.patches.height, p.frames.height, p.border);
  const Footprint<C> x(box.cx, box.w, j, p.patches.width, p.frames.width, p.border);
  for (int64_t r = y.begin; r < y.end; ++r) {
    const Dual<C> w_y = y.weight(r);
    for (int64_t s = x.begin; s < x.end; ++s) f(r, s, w_y, x.weight(s));
  }
}

// Grid: (box, chunk of the patch).
template <template <class> class Footprint, class C>
__launch_bounds__(kThreads, 1) AF_KERNEL crop_resize_fwd_any_kernel(const CropResize p) {
  const int64_t k = blockIdx.x, stride = int64_t(gridDim.y) * kThreads;
  const bool valid = p.valid<C>(k);
  const Box<C> box = p.box<C>(k);
  const int64_t frame = valid ? p.frames.offset(p.frame_of(k)) : 0, patch = p.patch_offset(k);
  const Items items(p.patches);
  for (int64_t n = int64_t(blockIdx.y) * kThreads + thread_index(); n < items.count(); n += stride) {
    const Item item = items[uint32_t(n)];
    ChannelGroup<C> sums{};
    C inside = 0;
    if (valid) {
      visit(p.frames.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* const image = typed<const T>(p.frames.data) + frame + item.first_channel * p.frames.stride_c;
        for_each_pixel<Footprint>(
            p, box, item.y, item.x, [&](int64_t r, int64_t s, Dual<C> w_y, Dual<C> w_x) {
              const T* const pixel = image + r * p.frames.stride_y + s * p.frames.stride_x;
              const C w = w_y.value * w_x.value;
              inside += w;
              const ChannelGroup<C> value = load_group<C>(pixel, p.frames.stride_c, item.channels);
#pragma unroll
              for (int c = 0; c < kGroup; ++c) sums[c] += w * value[c];
            });
      });
    }
    visit(p.patches.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      T* const out = typed<T>(p.patches.data) + patch + item.first_channel * p.patches.stride_c +
                     item.y * p.patches.stride_y + item.x * p.patches.stride_x;
#pragma unroll
      for (int c = 0; c < kGroup; ++c) {
        if (c >= item.channels) break;
        sums[c] = scale_of<C>(p, item.first_channel + c) * sums[c] +
                  shift_of<C>(p, item.first_channel + c) * inside;
        if (!valid) sums[c] = C(__builtin_nan(""));
      }
      store_group(sums, out, p.patches.stride_c, item.channels);
    });
  }
}

// Grid: one block for each box.
template <template <class> class Footprint, class C>
__launch_bounds__(kThreads, 1) AF_KERNEL crop_resize_bwd_boxes_any_kernel(const CropResize p, C* d_boxes) {
  const int64_t k = blockIdx.x;
  C sums[4] = {};  // (cy, cx, h, w)
  if (p.valid<C>(k)) {
    const Box<C> box = p.box<C>(k);
    const int64_t frame = p.frames.offset(p.frame_of(k)), patch = p.patch_offset(k);
    const Items items(p.patches);
    for (int64_t n = thread_index(); n < items.count(); n += kThreads) {
      const Item item = items[uint32_t(n)];
      ChannelGroup<C> gradient;  // by the pixels' stored values
      C by_shift = 0;            // by what the shift adds to each of them
      visit(p.patches.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* const from = typed<const T>(p.patches.data) + patch +
                              item.first_channel * p.patches.stride_c + item.y * p.patches.stride_y +
                              item.x * p.patches.stride_x;
        gradient = load_group<C>(from, p.patches.stride_c, item.channels);
#pragma unroll
        for (int c = 0; c < kGroup; ++c) {
          if (c >= item.channels) break;
          by_shift += gradient[c] * shift_of<C>(p, item.first_channel + c);
          gradient[c] *= scale_of<C>(p, item.first_channel + c);
        }
      });
      visit(p.frames.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* const image = typed<const T>(p.frames.data) + frame + item.first_channel * p.frames.stride_c;
        for_each_pixel<Footprint>(
            p, box, item.y, item.x, [&](int64_t r, int64_t s, Dual<C> w_y, Dual<C> w_x) {
              const T* const pixel = image + r * p.frames.stride_y + s * p.frames.stride_x;
              const ChannelGroup<C> stored = load_group<C>(pixel, p.frames.stride_c, item.channels);
              C value = by_shift;
#pragma unroll
              for (int c = 0; c < kGroup; ++c) value += gradient[c] * stored[c];
              add_pixel(sums, w_y, w_x, value);
            });
      });
    }
  }
  store_box_gradient(sums, d_boxes, k);
}

// Grid: (frame, chunk of it). Each pixel gathers from the outputs that read it, box by box.
template <template <class> class Footprint, class C>
__launch_bounds__(kThreads, 1) AF_KERNEL crop_resize_bwd_frames_any_kernel(const CropResize p) {
  const int64_t frame = blockIdx.x, stride = int64_t(gridDim.y) * kThreads;
  const Items items(p.frames);
  const int64_t out_h = p.patches.height, out_w = p.patches.width;
  for (int64_t start = int64_t(blockIdx.y) * kThreads; start < items.count(); start += stride) {
    const int64_t n = start + thread_index();
    const bool exists = n < items.count();
    const Item item = items[exists ? uint32_t(n) : 0];
    ChannelGroup<C> sums{};
    for_each_box<C>(p, frame, [&](int64_t k) {
      if (!exists) return;
      const Box<C> box = p.box<C>(k);
      const Range rows =
          readers_of<Footprint>(int64_t(item.y), box.cy, box.h, out_h, p.frames.height, p.border);
      if (rows.begin == rows.end) return;
      const Range columns =
          readers_of<Footprint>(int64_t(item.x), box.cx, box.w, out_w, p.frames.width, p.border);
      const int64_t patch = p.patch_offset(k) + item.first_channel * p.patches.stride_c;
      for (int64_t i = rows.begin; i < rows.end; ++i) {
        const C w_y = Footprint<C>(box.cy, box.h, i, out_h, p.frames.height, p.border).weight(item.y).value;
        for (int64_t j = columns.begin; j < columns.end; ++j) {
          const C w_x = Footprint<C>(box.cx, box.w, j, out_w, p.frames.width, p.border).weight(item.x).value;
          visit(p.patches.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            const T* const from =
                typed<const T>(p.patches.data) + patch + i * p.patches.stride_y + j * p.patches.stride_x;
            const ChannelGroup<C> g = load_group<C>(from, p.patches.stride_c, item.channels);
#pragma unroll
            for (int c = 0; c < kGroup; ++c) sums[c] += w_y * w_x * g[c];
          });
        }
      }
    });
    if (exists) store_frame_gradient(p, frame, item, sums);
  }
}

template <template <class> class Footprint, class C>
struct Launchers {
  static const char* fwd(const CropResize& p, void* stream) {
    return launch(crop_resize_fwd_any_kernel<Footprint, C>,
                  grid_over(p.num_boxes(), Items(p.patches).count()), dim3(kThreads), 0, stream, p);
  }
  static const char* bwd_boxes(const CropResize& p, void* d_boxes, void* stream) {
    return launch(crop_resize_bwd_boxes_any_kernel<Footprint, C>, dim3(unsigned(p.num_boxes())),
                  dim3(kThreads), 0, stream, p, static_cast<C*>(d_boxes));
  }
  static const char* bwd_frames(const CropResize& p, void* stream) {
    return launch(crop_resize_bwd_frames_any_kernel<Footprint, C>,
                  grid_over(p.frames.count, Items(p.frames).count()), dim3(kThreads), 0, stream, p);
  }
};

// Returns f(launchers) with those of the call's kind of footprints and compute type.
template <class F>
const char* visit_launchers(const CropResize& p, const F& f) {
  return visit_compute(p.double_precision, [&](auto tag) {
    using C = typename decltype(tag)::type;
    return p.antialias ? f(Launchers<AntialiasedFootprint, C>{}) : f(Launchers<BilinearFootprint, C>{});
  });
}

}  // namespace

const char* crop_resize_fwd_any(const CropResize& p, void* stream) {
  return visit_launchers(p, [&](auto of) { return of.fwd(p, stream); });
}

const char* crop_resize_bwd_boxes_any(const CropResize& p, void* d_boxes, void* stream) {
  return visit_launchers(p, [&](auto of) { return of.bwd_boxes(p, d_boxes, stream); });
}

const char* crop_resize_bwd_frames_any(const CropResize& p, void* stream) {
  return visit_launchers(p, [&](auto of) { return of.bwd_frames(p, stream); });
}

}  // namespace adafocus

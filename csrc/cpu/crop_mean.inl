// crop_mean on the CPU: the mean of a crop is w_y v w_x^T, where w_y and w_x are the means of the rows of its
// two weight matrices. Its derivative by a number of the box is the same with the derivative of w_y or w_x.
// Frames of many channels are summed by crop_mean_maps.inl. Of others, and where a box reads few pixels far
// apart, the scanlines that have weight are summed into a buffer, whose pixels are summed then.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "adafocus/crop_mean.h"
#include "cpu/crop_bwd_frames.inl"
#include "cpu/crop_mean_maps.inl"
#include "cpu/dispatch.h"
#include "cpu/isa.h"
#include "cpu/lanes.inl"
#include "cpu/scanline_io.inl"
#include "cpu/scanline_sums.inl"
#include "cpu/scratch.h"
#include "cpu/workspace.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

// The pixels of an axis that any output of a box reads, in order, and their weights in the mean over the
// outputs.
template <class C>
void set_pooled(WeightedPixels<C>& pixels, C centre, C extent, int64_t positions, int64_t size, bool border) {
  pixels.count = 0;
  for (int64_t step = 0; step < positions; ++step) {
    const int64_t i = extent < C(0) ? positions - 1 - step : step;  // in the order of positions
    const BilinearFootprint<C> footprint(centre, extent, i, positions, size, border);
    for (int64_t r = footprint.begin; r < footprint.end; ++r) {
      int64_t t = pixels.count;  // pixel r is new or one of the last two
      while (t > 0 && pixels.pixel[t - 1] >= r) --t;
      if (t == pixels.count) pixels.add(r, Dual<C>{});
      const Dual<C> w = footprint.weight(r);
      pixels.weight[kValue][t] += w.value / C(positions);
      pixels.weight[kByCentre][t] += w.by_centre / C(positions);
      pixels.weight[kByExtent][t] += w.by_extent / C(positions);
    }
  }
}

template <class C>
struct MeanWorkspace {
  using Compute = C;

  Scratch& scratch;
  const CropMean& mean;
  const CropResize& p;
  const int64_t chunk_size;  // channels that are processed together
  int64_t first, channels;   // the chunk is [first, first + channels), channels <= chunk_size
  WeightedPixels<C> y, x;    // w_y and w_x
  C* scanline;               // [columns read][pixel_stride]
  C* sum[kNumParts];         // [kNumParts][columns read][pixel_stride] of scanlines, with each part of w_y
  C* pooled;                 // [C], and padding
  C* gradient;               // [C] of the means, times the scale
  double* channel_sums;      // [columns read]

  MeanWorkspace(Scratch& memory, const CropMean& params, int64_t channels_together)
      : scratch(memory),
        mean(params),
        p(params.crop),
        chunk_size(channels_together),
        y(scratch, p.frames.height),
        x(scratch, p.frames.width),
        scanline(scratch.take<C>(p.frames.width * pixel_stride() + kLanes)),
        pooled(scratch.take<C>(p.frames.channels + chunk_size + kLanes)),
        gradient(scratch.take<C>(p.frames.channels)) {
    for (C*& part : sum) part = scratch.take<C>(p.frames.width * pixel_stride() + kLanes);
    channel_sums = scratch.take<double>(p.frames.width);
  }

  // Numbers from a pixel of a scanline buffer to the next: a place for each channel of a whole chunk.
  AF_HD int64_t pixel_stride() const { return chunk_size; }

  void start_chunk(int64_t first_channel) {
    first = first_channel;
    channels = min_of(chunk_size, p.frames.channels - first);
  }

  void set_box(const Box<C>& box) {
    set_pooled(y, box.cy, box.h, p.patches.height, p.frames.height, p.border);
    set_pooled(x, box.cx, box.w, p.patches.width, p.frames.width, p.border);
  }

  // True if the columns read have no gaps; then they need no list.
  bool dense() const { return x.count > 0 && x.pixel[x.count - 1] - x.pixel[0] + 1 == x.count; }

  ScanlineLayout<C> layout() const {
    const ImageBatch& f = p.frames;
    return {f.dtype, f.stride_c, f.stride_x, channels, pixel_stride(), x.count, dense() ? nullptr : x.pixel,
            nullptr, nullptr};
  }

  // Offset of the frame of box k.
  int64_t offset(int64_t k) const { return p.frames.offset(p.frame_of(k)); }

  // This chunk of the frame of box k, from its first column on, or from that of the first pixel.
  const void* image(int64_t k) const {
    const ImageBatch& f = p.frames;
    return element(f.data, f.dtype, offset(k) + first * f.stride_c + (dense() ? x.pixel[0] * f.stride_x : 0));
  }

  const C* scale() const { return static_cast<const C*>(p.affine); }  // [C], or null
  const C* shift() const { return scale() ? scale() + p.frames.channels : nullptr; }

  // pooled = scale * pooled + shift * (the part of the mean that is inside)
  void normalise() {
    if (!p.affine) return;
    const C inside = y.total(kValue) * x.total(kValue);
    for (int64_t c = 0; c < p.frames.channels; ++c) pooled[c] = scale()[c] * pooled[c] + shift()[c] * inside;
  }

  // Reads the gradient of the means of box k in channels [begin, begin + count), times their scale. Returns
  // the sum of its products with their shift.
  double load_gradient(int64_t k, int64_t begin, int64_t count) {
    C* const to = gradient + begin;
    visit(mean.means_dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* from = static_cast<const T*>(mean.means) + k * p.frames.channels + begin;
      for (int64_t c = 0; c < count; ++c) to[c] = load_as<C>(from[c]);
    });
    double shifted = 0;
    if (!p.affine) return shifted;
    for (int64_t c = 0; c < count; ++c) {
      shifted += double(to[c]) * shift()[begin + c];
      to[c] *= scale()[begin + c];
    }
    return shifted;
  }

  // Writes the means of box k.
  void store_means(int64_t k) {
    visit(mean.means_dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      T* to = static_cast<T*>(mean.means) + k * p.frames.channels;
      for (int64_t c = 0; c < p.frames.channels; ++c) to[c] = Store<T>::from(pooled[c]);
    });
  }

  // This chunk of pooled: the sums over both axes with one part of each's weights, from `sum`.
  const C* pool_columns(Part y_part, Part x_part) {
    sum_pixels(sum[y_part], x.weight[x_part], x.count, pixel_stride(), pooled + first);
    return pooled + first;
  }
};

// Sets work.pooled to the means of box k, chunk after chunk.
template <class C>
void pool_chunks(MeanWorkspace<C>& work, int64_t k) {
  const ImageBatch& frames = work.p.frames;
  for (int64_t first = 0; first < frames.channels; first += work.chunk_size) {
    work.start_chunk(first);
    sum_scanlines(work.y, work.image(k), frames.stride_y, work.layout(), work.sum[kValue]);
    work.pool_columns(kValue, kValue);
  }
}

template <class C>
void mean_range(MeanWorkspace<C>& work, int64_t begin, int64_t end) {
  const CropResize& p = work.p;
  MapSums<C> maps(work.scratch, p.frames, work.y, work.x);
  for (int64_t k = begin; k < end; ++k) {
    if (p.template valid<C>(k)) {
      work.set_box(p.template box<C>(k));
      if (!maps.visit([&](auto& sums) { sums.sum_pixels(work.offset(k), work.pooled); })) {
        pool_chunks(work, k);
      }
      work.normalise();
    } else {
      for (int64_t c = 0; c < p.frames.channels; ++c) work.pooled[c] = C(__builtin_nan(""));
    }
    work.store_means(k);
  }
}

// Adds to d_box (cy, cx, h, w) what f(part of w_y, part of w_x) is for each of its numbers.
template <class F>
void add_parts(double* d_box, const F& f) {
  d_box[0] += f(kByCentre, kValue);
  d_box[1] += f(kValue, kByCentre);
  d_box[2] += f(kByExtent, kValue);
  d_box[3] += f(kValue, kByExtent);
}

// Adds the gradient of box k, chunk after chunk.
template <class C>
void add_chunk_gradients(MeanWorkspace<C>& work, int64_t k, double* d_box) {
  const ImageBatch& frames = work.p.frames;
  for (int64_t first = 0; first < frames.channels; first += work.chunk_size) {
    work.start_chunk(first);
    sum_scanlines_of_all_parts(work.y, work.image(k), frames.stride_y, work.layout(), work.scanline,
                               work.sum);
    add_parts(d_box, [&](Part y_part, Part x_part) {
      return dot(work.gradient + first, work.pool_columns(y_part, x_part), work.channels);
    });
  }
}

// Adds what scanline y.pixel[a] gives to the gradient of a box, from the sums over channels of its pixels.
template <class C>
void add_scanline_gradient(const MeanWorkspace<C>& work, int64_t a, const double* sums, double* d_box) {
  double by_x[kNumParts] = {};
  for (int part = 0; part < kNumParts; ++part) {
    for (int64_t b = 0; b < work.x.count; ++b) by_x[part] += work.x.weight[part][b] * sums[b];
  }
  add_parts(d_box, [&](Part y_part, Part x_part) { return work.y.weight[y_part][a] * by_x[x_part]; });
}

template <class C>
void mean_bwd_boxes_range(MeanWorkspace<C>& work, C* d_boxes, int64_t begin, int64_t end) {
  const CropResize& p = work.p;
  MapSums<C> maps(work.scratch, p.frames, work.y, work.x);
  memset(d_boxes + 4 * begin, 0, 4 * (end - begin) * sizeof(C));
  for (int64_t k = begin; k < end; ++k) {
    if (!p.template valid<C>(k)) continue;
    work.set_box(p.template box<C>(k));
    const double shifted = work.load_gradient(k, 0, p.frames.channels);
    double d_box[4] = {};  // (cy, cx, h, w)
    const bool summed = maps.visit([&](auto& sums) {
      sums.sum_channels(
          work.offset(k), work.gradient, work.channel_sums,
          [&](int64_t a, const double* sums_of_a) { add_scanline_gradient(work, a, sums_of_a, d_box); });
    });
    if (!summed) add_chunk_gradients(work, k, d_box);
    add_parts(d_box, [&](Part y_part, Part x_part) {
      return shifted * work.y.total(y_part) * work.x.total(x_part);
    });
    for (int i = 0; i < 4; ++i) d_boxes[4 * k + i] = C(d_box[i]);
  }
}

// Adds the gradient of a box to that of its frame, image [H][W][pixel_stride].
template <class C>
void add_frame_gradient(MeanWorkspace<C>& work, int64_t k, C* image) {
  const int64_t width = work.p.frames.width;
  work.set_box(work.p.template box<C>(k));
  work.load_gradient(k, work.first, work.channels);
  const WeightedPixels<C>&y = work.y, &x = work.x;
  for (int64_t a = 0; a < y.count; ++a) {
    for (int64_t b = 0; b < x.count; ++b) {
      add_scaled(work.gradient + work.first, y.weight[kValue][a] * x.weight[kValue][b], work.channels,
                 image + (y.pixel[a] * width + x.pixel[b]) * work.pixel_stride());
    }
  }
}

// Calls f(workspace) with the workspace of the call's compute type.
template <class F>
void with_workspace(const CropMean& p, int64_t chunk_size, const F& f) {
  visit_compute(p.crop.double_precision, [&](auto tag) {
    Scratch scratch;
    MeanWorkspace<typename decltype(tag)::type> work(scratch, p, chunk_size);
    f(work);
  });
}

}  // namespace
}  // namespace AF_ISA

void AF_ISA::crop_mean_fwd(const CropMean& p, int64_t begin, int64_t end) {
  with_workspace(p, chunk_size_of(p.crop.frames), [&](auto& work) { mean_range(work, begin, end); });
}

void AF_ISA::crop_mean_bwd_boxes(const CropMean& p, void* d_boxes, int64_t begin, int64_t end) {
  with_workspace(p, chunk_size_of(p.crop.frames), [&](auto& work) {
    using C = typename std::decay_t<decltype(work)>::Compute;
    mean_bwd_boxes_range(work, static_cast<C*>(d_boxes), begin, end);
  });
}

void AF_ISA::crop_mean_bwd_frames(const CropMean& p, BoxesByFrame boxes, int64_t begin, int64_t end) {
  with_workspace(p, adjoint_chunk_size_of(p.crop.frames), [&](auto& work) {
    bwd_frames_range(work, boxes, begin, end,
                     [&](int64_t k, auto* image) { add_frame_gradient(work, k, image); });
  });
}

}  // namespace adafocus

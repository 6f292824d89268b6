// crop_mean on the CPU: the mean of a crop is w_y v w_x^T, where w_y and w_x are the means of the rows of its
// two weight matrices. The frame's rows that have weight are summed into a row buffer, whose pixels are
// summed then. Its derivative by a number of the box is the same with the derivative of w_y or w_x.
#pragma once

#include <type_traits>

#include "adafocus/crop_mean.h"
#include "cpu/rows.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

// The pixels of an axis that any output of a box reads, in order, and their weights in the mean over the
// outputs.
template <class C>
void set_pooled(Taps<C>& taps, C centre, C extent, int64_t positions, int64_t size, bool border) {
  taps.count = 0;
  for (int64_t step = 0; step < positions; ++step) {
    const int64_t i = extent < C(0) ? positions - 1 - step : step;  // in the order of positions
    const BilinearFootprint<C> sample(centre, extent, i, positions, size, border);
    for (int64_t r = sample.begin; r < sample.end; ++r) {
      int64_t t = taps.count;  // pixel r is new or one of the last two
      while (t > 0 && taps.pixel[t - 1] >= r) --t;
      if (t == taps.count) taps.add(r, Dual<C>{});
      const Dual<C> w = sample.weight(r);
      taps.weight[kValue][t] += w.value / C(positions);
      taps.weight[kByCentre][t] += w.by_centre / C(positions);
      taps.weight[kByExtent][t] += w.by_extent / C(positions);
    }
  }
}

template <class C>
struct MeanWorkspace {
  using Compute = C;

  Scratch& scratch;
  const CropMean& mean;
  const CropResize& p;
  const int64_t S;          // channels processed together
  int64_t first, channels;  // the chunk is [first, first + channels), channels <= S
  Taps<C> y, x;
  C* row;             // [columns read][S]
  C* sum[kNumParts];  // the same, of the rows read, with each part of the weights
  C* pooled;          // [S]
  C* gradient;        // [S] of the means

  MeanWorkspace(Scratch& memory, const CropMean& params, int64_t pixel_stride)
      : scratch(memory),
        mean(params),
        p(params.crop),
        S(pixel_stride),
        y(scratch, p.frames.height),
        x(scratch, p.frames.width),
        row(scratch.take<C>(p.frames.width * S + kLanes)),
        pooled(scratch.take<C>(S + kLanes)),
        gradient(scratch.take<C>(S)) {
    for (C*& part : sum) part = scratch.take<C>(p.frames.width * S + kLanes);
  }

  void start_chunk(int64_t first_channel) {
    first = first_channel;
    channels = min_of(S, p.frames.channels - first);
  }

  void set_box(const Box<C>& box) {
    set_pooled(y, box.cy, box.h, p.patches.height, p.frames.height, p.border);
    set_pooled(x, box.cx, box.w, p.patches.width, p.frames.width, p.border);
  }

  // Whether the columns read have no gaps; then they need no list.
  bool dense() const { return x.count > 0 && x.pixel[x.count - 1] - x.pixel[0] + 1 == x.count; }

  RowLayout<C> layout() const {
    const ImageBatch& f = p.frames;
    return {f.dtype, f.stride_c, f.stride_x, channels, S, x.count, dense() ? nullptr : x.pixel,
            nullptr, nullptr};
  }

  // This chunk of the frame of box k, from its first column on, or from that of the first pixel.
  const void* image(int64_t k) const {
    const ImageBatch& f = p.frames;
    return element(f.data, f.dtype,
                   f.offset(p.frame_of(k)) + first * f.stride_c + (dense() ? x.pixel[0] * f.stride_x : 0));
  }

  const C* scale() const { return p.affine ? static_cast<const C*>(p.affine) + first : nullptr; }
  const C* shift() const { return scale() ? scale() + p.frames.channels : nullptr; }

  // Reads the gradient of the means of box k.
  void load_gradient(int64_t k) {
    visit(mean.means_dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* from = static_cast<const T*>(mean.means) + k * p.frames.channels + first;
      for (int64_t c = 0; c < channels; ++c) gradient[c] = load_as<C>(from[c]);
    });
  }

  // Writes the means of box k.
  void store_means(int64_t k, const C* from) {
    visit(mean.means_dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      T* to = static_cast<T*>(mean.means) + k * p.frames.channels + first;
      for (int64_t c = 0; c < channels; ++c) to[c] = Store<T>::from(from[c]);
    });
  }
};

// The sums over both axes with one part of each's weights, normalised: [S], from work.sum.
template <class C>
const C* pool_columns(MeanWorkspace<C>& work, Part y_part, Part x_part) {
  C* const pooled = work.pooled;
  sum_pixels(work.sum[y_part], work.x.weight[x_part], work.x.count, work.S, pooled);
  if (const C* scale = work.scale()) {
    const C* const shift = work.shift();
    const C inside = work.y.total(y_part) * work.x.total(x_part);
    for (int64_t c = 0; c < work.channels; ++c) pooled[c] = scale[c] * pooled[c] + shift[c] * inside;
  }
  return pooled;
}

template <class C>
void mean_range(MeanWorkspace<C>& work, int64_t begin, int64_t end) {
  const CropResize& p = work.p;
  for (int64_t k = begin; k < end; ++k) {
    const bool valid = p.template valid<C>(k);
    if (valid) work.set_box(p.template box<C>(k));
    for (int64_t first = 0; first < p.frames.channels; first += work.S) {
      work.start_chunk(first);
      if (valid) {
        sum_rows(work.y, work.image(k), p.frames.stride_y, work.layout(), work.sum[kValue]);
        work.store_means(k, pool_columns(work, kValue, kValue));
      } else {
        for (int64_t c = 0; c < work.channels; ++c) work.pooled[c] = C(__builtin_nan(""));
        work.store_means(k, work.pooled);
      }
    }
  }
}

template <class C>
void mean_bwd_boxes_range(MeanWorkspace<C>& work, C* d_boxes, int64_t begin, int64_t end) {
  const CropResize& p = work.p;
  memset(d_boxes + 4 * begin, 0, 4 * (end - begin) * sizeof(C));
  for (int64_t k = begin; k < end; ++k) {
    if (!p.template valid<C>(k)) continue;
    work.set_box(p.template box<C>(k));
    C* const d_box = d_boxes + 4 * k;  // (cy, cx, h, w)
    for (int64_t first = 0; first < p.frames.channels; first += work.S) {
      work.start_chunk(first);
      work.load_gradient(k);
      const auto add = [&](C& d, Part y_part, Part x_part) {
        d += dot(work.gradient, pool_columns(work, y_part, x_part), work.channels);
      };
      sum_rows_of_all_parts(work.y, work.image(k), p.frames.stride_y, work.layout(), work.row, work.sum);
      add(d_box[0], kByCentre, kValue);
      add(d_box[1], kValue, kByCentre);
      add(d_box[2], kByExtent, kValue);
      add(d_box[3], kValue, kByExtent);
    }
  }
}

// Adds the gradient of a box to that of its frame, image [H][W][S].
template <class C>
void add_frame_gradient(MeanWorkspace<C>& work, int64_t k, C* image) {
  const int64_t width = work.p.frames.width;
  work.set_box(work.p.template box<C>(k));
  work.load_gradient(k);
  if (const C* scale = work.scale()) {
    for (int64_t c = 0; c < work.channels; ++c) work.gradient[c] *= scale[c];
  }
  const Taps<C>&y = work.y, &x = work.x;
  for (int64_t a = 0; a < y.count; ++a) {
    for (int64_t b = 0; b < x.count; ++b) {
      add_scaled(work.gradient, y.weight[kValue][a] * x.weight[kValue][b], work.channels,
                 image + (y.pixel[a] * width + x.pixel[b]) * work.S);
    }
  }
}

// Calls f(workspace) with that of the call's compute type.
template <class F>
void with_workspace(const CropMean& p, int64_t S, const F& f) {
  Scratch scratch;
  const auto run = [&](auto work) { f(work); };
  p.crop.double_precision ? run(MeanWorkspace<double>(scratch, p, S))
                          : run(MeanWorkspace<float>(scratch, p, S));
}

}  // namespace

void crop_mean_fwd(const CropMean& p, int64_t begin, int64_t end) {
  with_workspace(p, chunk_channels(p.crop.frames), [&](auto& work) { mean_range(work, begin, end); });
}

void crop_mean_bwd_boxes(const CropMean& p, void* d_boxes, int64_t begin, int64_t end) {
  with_workspace(p, chunk_channels(p.crop.frames), [&](auto& work) {
    using C = typename std::decay_t<decltype(work)>::Compute;
    mean_bwd_boxes_range(work, static_cast<C*>(d_boxes), begin, end);
  });
}

void crop_mean_bwd_frames(const CropMean& p, BoxesByFrame boxes, int64_t begin, int64_t end) {
  with_workspace(p, chunk_channels_adjoint(p.crop.frames),
                 [&](auto& work) { bwd_frames_range(work, boxes, begin, end); });
}

}  // namespace AF_ISA
}  // namespace adafocus

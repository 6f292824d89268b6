// depthwise_conv3d on the CPU, backward to the weight: for each tap the sum over all places of the result's
// gradient times what the tap read there. Tasks, cut as those of the forward, sum their own places; the sums
// of the tasks are added in their order.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafocus/depthwise_conv3d.h"
#include "cpu/depthwise_conv3d_bands.inl"
#include "cpu/dispatch.h"
#include "cpu/isa.h"
#include "cpu/scratch.h"
#include "cpu/wide_lanes.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

// sums[r][j] += sum over `count` places of grad times the source's tap j in row r. With few sums, kParts
// places are summed side by side, so that no sum waits for the one before. Strides in elements.
template <class C, int kRows, int kTaps, int kParts>
AF_HD void sum_pairs(const C* const* sources, const C* grad, int64_t count, int64_t source_step,
                     C* const* sums) {
  using V = wide_t<C>;
  V sum[kParts][kRows][kTaps] = {};
  const C* source[kRows];
  AF_UNROLL
  for (int r = 0; r < kRows; ++r) source[r] = sources[r];
  const auto add = [&](int64_t q, int part) __attribute__((always_inline)) {
    const V g = load_wide(grad + q * kWide<C>);
    AF_UNROLL
    for (int r = 0; r < kRows; ++r) {
      AF_UNROLL
      for (int j = 0; j < kTaps; ++j)
        sum[part][r][j] += g * load_wide(source[r] + q * source_step + j * kWide<C>);
    }
  };
  int64_t q = 0;
  for (; q + kParts <= count; q += kParts) {
    AF_UNROLL
    for (int part = 0; part < kParts; ++part) add(q + part, part);
  }
  for (; q < count; ++q) add(q, 0);
  AF_UNROLL
  for (int r = 0; r < kRows; ++r) {
    AF_UNROLL
    for (int j = 0; j < kTaps; ++j) {
      V total = sum[0][r][j];
      AF_UNROLL
      for (int part = 1; part < kParts; ++part) total += sum[part][r][j];
      C* const to = sums[r] + j * kWide<C>;
      store_wide(to, load_wide(to) + total);
    }
  }
}

// The rows of the source that one row of the gradient meets, of one vector of channels.
template <class C>
struct RowPairs {
  const C* source[kMaxConvKernel];
  C* sum[kMaxConvKernel];  // where the sums of their taps are, [kernel_w][lanes]
  int64_t count = 0;

  // Taps from `first` on, of rows from `row` on.
  template <int kRows, int kTaps, int kParts>
  void sum_some(int64_t row, int64_t first, const C* grad, const TapAxis& w) const {
    const C* from[kRows];
    C* to[kRows];
    for (int r = 0; r < kRows; ++r) {
      from[r] = source[row + r] + (first - w.axis.padding) * kWide<C>;
      to[r] = sum[row + r] + first * kWide<C>;
    }
    sum_pairs<C, kRows, kTaps, kParts>(from, grad, w.to_size, w.axis.stride * kWide<C>, to);
  }

  void run(const C* grad, const TapAxis& w) const {
    int64_t row = 0;
    if (w.axis.kernel == 3) {
      for (; row + 3 <= count; row += 3) sum_some<3, 3, 1>(row, 0, grad, w);
      for (; row < count; ++row) sum_some<1, 3, 3>(row, 0, grad, w);
    }
    for (; row < count; ++row) {
      for (int64_t j = 0; j < w.axis.kernel; ++j) sum_some<1, 1, 8>(row, j, grad, w);
    }
  }
};

// A task: its sums go to sums [vectors][taps][lanes], which are zero.
template <class C>
void sum_weight_gradient(const DepthwiseConv3d& p, const ConvBands& bands, int64_t task, C* sums) {
  const TapAxis &t_axis = bands.axis[0], &h_axis = bands.axis[1], &w_axis = bands.axis[2];
  const RowBand band = bands.band(task);
  const ChannelVectors<C> vectors(band.channels);
  Scratch scratch;
  SourceRows<C> source(scratch, p.x, bands, band);
  const int64_t row_stride = p.y.size[2] * kWide<C>, vector_stride = (band.end - band.begin) * row_stride;
  C* const grad = scratch.take<C>(vectors.count * vector_stride);  // [vectors][rows][Wo][lanes]
  memset(grad, 0, vectors.count * vector_stride * sizeof(C));
  for (int64_t t = 0; t < p.y.size[0]; ++t) {
    source.load_frames(t_axis.source_begin(t), t_axis.source_end(t));
    for (int64_t h = band.begin; h < band.end; ++h) {
      load_row(p.y, row_offset(p.y, band, t, h), vectors, grad + (h - band.begin) * row_stride,
               vector_stride);
    }
    for (int64_t v = 0; v < vectors.count; ++v) {
      for (int64_t kt = 0; kt < t_axis.axis.kernel; ++kt) {
        const int64_t from_t = t_axis.source(t, kt);
        if (from_t < 0) continue;
        for (int64_t h = band.begin; h < band.end; ++h) {
          RowPairs<C> pairs;
          for (int64_t kh = 0; kh < h_axis.axis.kernel; ++kh) {
            const int64_t from_h = h_axis.source(h, kh);
            if (from_h < 0) continue;
            const int64_t tap = (kt * h_axis.axis.kernel + kh) * w_axis.axis.kernel;
            pairs.source[pairs.count] = source.row(v, from_t, from_h);
            pairs.sum[pairs.count++] = sums + (v * p.taps() + tap) * kWide<C>;
          }
          pairs.run(grad + v * vector_stride + (h - band.begin) * row_stride, w_axis);
        }
      }
    }
  }
}

// Numbers of the partial sums of a task.
template <class C>
int64_t sums_of_task(const DepthwiseConv3d& p, const ConvBands& bands) {
  return p.taps() * ((bands.vectors() + bands.blocks - 1) / bands.blocks) * kWide<C>;
}

template <class F>
auto with_bands(const DepthwiseConv3d& p, const F& f) {
  return visit_compute(p.double_precision, [&](auto tag) {
    return f(tag, ConvBands::of<typename decltype(tag)::type>(p, true));
  });
}

// The gradient of the weight of channel c: the sums of its tasks, in their order.
template <class C>
void add_tasks(const DepthwiseConv3d& p, const ConvBands& bands, const C* partials, int64_t c) {
  int64_t block = 0;
  while (block + 1 < bands.blocks && bands.block_begin(block + 1) <= c) ++block;
  const RowBand band = bands.band(block);
  const ChannelVectors<C> vectors(band.channels);
  const int64_t own = c - band.first_channel, v = own / kWide<C>, count = sums_of_task<C>(p, bands);
  const C* const first = partials + block * count + v * p.taps() * kWide<C> + own - vectors.first(v);
  const int64_t tasks = bands.tasks() / bands.blocks;
  for (int64_t tap = 0; tap < p.taps(); ++tap) {
    double sum = 0;
    for (int64_t task = 0; task < tasks; ++task) {
      sum += first[task * bands.blocks * count + tap * kWide<C>];
    }
    static_cast<C*>(p.weight)[c * p.taps() + tap] = C(sum);
  }
}

}  // namespace

int64_t depthwise_conv3d_bwd_weight_tasks(const DepthwiseConv3d& p) {
  return with_bands(p, [](auto, const ConvBands& bands) { return bands.tasks(); });
}

int64_t depthwise_conv3d_bwd_weight_partials(const DepthwiseConv3d& p) {
  return with_bands(p, [&](auto tag, const ConvBands& bands) {
    return bands.tasks() * sums_of_task<typename decltype(tag)::type>(p, bands);
  });
}

void depthwise_conv3d_bwd_weight(const DepthwiseConv3d& p, void* partials, int64_t begin, int64_t end) {
  with_bands(p, [&](auto tag, const ConvBands& bands) {
    using C = typename decltype(tag)::type;
    const int64_t count = sums_of_task<C>(p, bands);
    for (int64_t task = begin; task < end; ++task) {
      C* const sums = static_cast<C*>(partials) + task * count;
      memset(sums, 0, count * sizeof(C));
      sum_weight_gradient<C>(p, bands, task, sums);
    }
  });
}

void depthwise_conv3d_bwd_weight_sum(const DepthwiseConv3d& p, const void* partials, int64_t begin,
                                     int64_t end) {
  with_bands(p, [&](auto tag, const ConvBands& bands) {
    using C = typename decltype(tag)::type;
    for (int64_t c = begin; c < end; ++c) add_tasks<C>(p, bands, static_cast<const C*>(partials), c);
  });
}

}  // namespace AF_ISA
}  // namespace adafocus

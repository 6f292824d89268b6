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

constexpr int64_t kPairTile = 16;  // places of a row of which the first-level cache holds all that is read

// sums[r][j] += sum over `count` places of grad times the source's tap j in row r; strides in elements. With
// few sums, kParts places are summed side by side, so that no sum waits for the one before.
template <class C, int kRows, int kTaps, int kParts>
AF_HD void sum_pairs(const C* const* sources, const C* grad, int64_t count, int64_t source_step,
                     int64_t source_place, int64_t grad_place, C* const* sums, int64_t sum_stride) {
  using V = wide_t<C>;
  V sum[kParts][kRows][kTaps] = {};
  const C* source[kRows];
  AF_UNROLL
  for (int r = 0; r < kRows; ++r) source[r] = sources[r];
  const auto add = [&](int64_t q, int part) __attribute__((always_inline)) {
    const V g = load_wide(grad + q * grad_place);
    AF_UNROLL
    for (int r = 0; r < kRows; ++r) {
      AF_UNROLL
      for (int j = 0; j < kTaps; ++j) {
        sum[part][r][j] += g * load_wide(source[r] + q * source_step + j * source_place);
      }
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
      C* const to = sums[r] + j * sum_stride;
      store_wide(to, load_wide(to) + total);
    }
  }
}

// Rows of the source and of the gradient that meet: kRows taps (kt, kh) of one row of the gradient.
template <class C>
struct RowPairs {
  const C* source[kMaxConvKernel];
  C* sum[kMaxConvKernel];  // where the sums of their first tap (kw = 0) are
  int64_t count = 0;
  const C* grad;
  TapAxis w;
  int64_t source_place, grad_place, padded;
  const int64_t* offsets;
  int64_t vectors;

  // Taps [first, first + kTaps) of places [begin, end) of the gradient, rows [row, row + kRows).
  template <int kRows, int kTaps, int kParts>
  void sum_some(int64_t row, int64_t first, int64_t begin, int64_t end) const {
    const int64_t step = w.axis.stride * source_place;
    for (int64_t q = begin; q < end; q += kPairTile) {
      const int64_t places = min_of(kPairTile, end - q);
      for (int64_t v = 0; v < vectors; ++v) {
        const C* from[kRows];
        C* to[kRows];
        for (int r = 0; r < kRows; ++r) {
          from[r] = source[row + r] + (first - w.axis.padding) * source_place + q * step + offsets[v];
          to[r] = sum[row + r] + first * padded + v * kWide<C>;
        }
        sum_pairs<C, kRows, kTaps, kParts>(from, grad + q * grad_place + offsets[v], places, step, source_place,
                                           grad_place, to, padded);
      }
    }
  }

  void run() const {
    const int64_t k = w.axis.kernel, s = w.axis.stride, padding = w.axis.padding;
    // Places that tap j reads inside begin and end here.
    const auto begin_of = [&](int64_t j) { return min_of((max_of<int64_t>(padding - j, 0) + s - 1) / s, w.to_size); };
    const auto end_of = [&](int64_t j) {
      const int64_t last = w.from_size - 1 + padding - j;
      return last < 0 ? 0 : min_of(last / s + 1, w.to_size);
    };
    const int64_t begin = begin_of(0), end = end_of(k - 1);
    if (k == 3 && begin < end) {
      int64_t row = 0;
      for (; row + 3 <= count; row += 3) sum_some<3, 3, 1>(row, 0, begin, end);
      for (; row < count; ++row) sum_some<1, 3, 3>(row, 0, begin, end);
      for (int64_t j = 0; j < k; ++j) {
        for (row = 0; row < count; ++row) {
          sum_some<1, 1, 1>(row, j, begin_of(j), min_of(begin, end_of(j)));
          sum_some<1, 1, 1>(row, j, max_of(end, begin_of(j)), end_of(j));
        }
      }
    } else {
      for (int64_t row = 0; row < count; ++row) {
        for (int64_t j = 0; j < k; ++j) sum_some<1, 1, 8>(row, j, begin_of(j), end_of(j));
      }
    }
  }
};

// A task: its sums go to sums [taps][padded], which are zero.
template <class C>
void sum_weight_gradient(const DepthwiseConv3d& p, const ConvBands& bands, int64_t task, C* sums) {
  const TapAxis t_axis = bands.axis[0], h_axis = bands.axis[1], w_axis = bands.axis[2];
  const RowBand band = bands.band(task);
  const int64_t padded = (band.channels + kWide<C> - 1) / kWide<C> * kWide<C>;
  Scratch scratch;
  SourceRows<C> source(scratch, p.x, bands, band, padded);
  const bool in_place = is_in_place<C>(p.y);
  C* const buffer = in_place ? nullptr : scratch.take<C>(p.y.size[2] * padded);  // [Wo][padded]
  if (buffer) memset(buffer, 0, p.y.size[2] * padded * sizeof(C));
  int64_t offsets[kMaxVectors];
  const int64_t vectors = set_offsets<C>(band.channels, offsets);
  for (int64_t t = 0; t < p.y.size[0]; ++t) {
    source.load_frames(t_axis.source_begin(t), t_axis.source_end(t));
    for (int64_t h = band.begin; h < band.end; ++h) {
      const int64_t offset = p.y.stride_n * band.clip + p.y.stride_c * band.first_channel +
                             p.y.stride[0] * t + p.y.stride[1] * h;
      if (buffer) load_places(p.y, offset, band.channels, p.y.size[2], padded, buffer);
      for (int64_t kt = 0; kt < t_axis.axis.kernel; ++kt) {
        const int64_t from_t = t_axis.source(t, kt);
        if (from_t < 0) continue;
        RowPairs<C> pairs;
        pairs.grad = buffer ? buffer : static_cast<const C*>(p.y.data) + offset;
        pairs.w = w_axis;
        pairs.source_place = source.place();
        pairs.grad_place = buffer ? padded : p.y.stride[2];
        pairs.padded = padded;
        pairs.offsets = offsets;
        pairs.vectors = vectors;
        for (int64_t kh = 0; kh < h_axis.axis.kernel; ++kh) {
          const int64_t from_h = h_axis.source(h, kh);
          if (from_h < 0) continue;
          pairs.source[pairs.count] = source.row(from_t, from_h);
          pairs.sum[pairs.count++] = sums + (kt * h_axis.axis.kernel + kh) * w_axis.axis.kernel * padded;
        }
        pairs.run();
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

// The gradient of the weight of channels [begin, end) of a block, from the sums of its tasks.
template <class C>
void add_tasks(const DepthwiseConv3d& p, const ConvBands& bands, const C* partials, int64_t c) {
  int64_t block = 0;
  while (block + 1 < bands.blocks && bands.block_begin(block + 1) <= c) ++block;
  const RowBand band = bands.band(block);
  int64_t offsets[kMaxVectors];
  const int64_t vectors = set_offsets<C>(band.channels, offsets), own = c - band.first_channel;
  const int64_t v = min_of(own / kWide<C>, vectors - 1), padded = vectors * kWide<C>;
  const C* const first = partials + block * sums_of_task<C>(p, bands) + v * kWide<C> + own - offsets[v];
  const int64_t step = bands.blocks * sums_of_task<C>(p, bands), tasks = bands.tasks() / bands.blocks;
  for (int64_t tap = 0; tap < p.taps(); ++tap) {
    double sum = 0;
    for (int64_t task = 0; task < tasks; ++task) sum += first[task * step + tap * padded];
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

// depthwise_conv3d on the CPU, forward and backward to x: a sum over taps, vectorised over channels.
//
// A task is a band of rows of one clip, of some channels, through all frames: what it reads of the frames
// around stays in the caches nearby, what a row of one vector of channels reads in the first. Tiles of
// neighbouring outputs of a row are summed in registers; each place that is read serves all of them.
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

constexpr int kConvTile = 8;  // outputs that are summed together: with three weights they fill 16 registers

// One (kt, kh) of an output row: the first place that the row's first output reads, and the weights there.
template <class C>
struct TapRow {
  const C *source, *weight;
};

// Taps along the width that some outputs of a row have in common: every `to_step`-th from `to_first` on. Tap
// j of output q reads place from_first + q from_step + j, with weight number weight_first + j weight_step.
struct TapPhase {
  int64_t taps;
  int64_t to_first, to_step, count;
  int64_t from_first, from_step;
  int64_t weight_first, weight_step;
};

// Phases that the outputs of a row are divided into: one forward; backward one for each place modulo the
// stride.
AF_HD int64_t num_phases(const TapAxis& w) { return w.forward ? 1 : min_of(w.axis.stride, w.to_size); }

AF_HD TapPhase tap_phase(const TapAxis& w, int64_t phase) {
  const int64_t s = w.axis.stride, k = w.axis.kernel, padding = w.axis.padding;
  if (w.forward) return {k, 0, 1, w.to_size, -padding, s, 0, 1};
  // Of the taps `rest`, `rest` + s, ... the last reads first.
  const int64_t rest = (phase + padding) % s, taps = rest < k ? (k - rest + s - 1) / s : 0;
  const int64_t count = (w.to_size - phase + s - 1) / s;
  return {taps, phase, s, count, (phase + padding) / s - (taps - 1), 1, rest + s * (taps - 1), -s};
}

// kTile outputs of one vector of channels, with kTaps taps, kStep places from one to the next. Strides in
// elements.
template <class C, int kTile, int kTaps, int kStep>
AF_HD void sum_tile(const TapRow<C>* rows, int64_t count, int64_t from_offset, int64_t weight_offset,
                    int64_t weight_stride, wide_t<C> bias, C* to, int64_t to_stride) {
  using V = wide_t<C>;
  V sum[kTile];
  AF_UNROLL
  for (int q = 0; q < kTile; ++q) sum[q] = bias;
  for (int64_t r = 0; r < count; ++r) {
    const C* const from = rows[r].source + from_offset;
    const C* const w = rows[r].weight + weight_offset;
    V weight[kTaps];
    AF_UNROLL
    for (int j = 0; j < kTaps; ++j) weight[j] = load_wide(w + j * weight_stride);
#pragma GCC unroll 32
    for (int i = 0; i < (kTile - 1) * kStep + kTaps; ++i) {
      const V value = load_wide(from + i * kWide<C>);
#pragma GCC unroll 16
      for (int q = 0; q < kTile; ++q) {
        const int j = i - q * kStep;
        if (j >= 0 && j < kTaps) sum[q] += weight[j] * value;
      }
    }
  }
  AF_UNROLL
  for (int q = 0; q < kTile; ++q) store_wide(to + q * to_stride, sum[q]);
}

// One output with any number of taps.
template <class C>
AF_HD void sum_one(const TapRow<C>* rows, int64_t count, int64_t from_offset, int64_t weight_offset,
                   int64_t weight_stride, int64_t taps, wide_t<C> bias, C* to) {
  wide_t<C> sum = bias;
  for (int64_t r = 0; r < count; ++r) {
    const C* const from = rows[r].source + from_offset;
    const C* const w = rows[r].weight + weight_offset;
    for (int64_t j = 0; j < taps; ++j) {
      sum += load_wide(w + j * weight_stride) * load_wide(from + j * kWide<C>);
    }
  }
  store_wide(to, sum);
}

// The outputs of a phase of a row, of one vector of channels.
template <class C>
struct RowSums {
  const TapRow<C>* rows;
  int64_t count;  // of rows
  TapPhase phase;
  wide_t<C> bias;
  C* to;  // [W][lanes]

  template <int kTile, int kTaps, int kStep>
  void tile(int64_t q) const {
    sum_tile<C, kTile, kTaps, kStep>(rows, count, from(q), phase.weight_first * kWide<C>,
                                     phase.weight_step * kWide<C>, bias, place(q), phase.to_step * kWide<C>);
  }

  // Tiles overlap at the end of the row, where they write the same again.
  template <int kTaps, int kStep>
  void tiles() const {
    if (phase.count >= kConvTile) {
      for (int64_t q = 0; q < phase.count; q += kConvTile) {
        tile<kConvTile, kTaps, kStep>(min_of(q, phase.count - kConvTile));
      }
    } else if (phase.count >= 4) {
      for (int64_t q = 0; q < phase.count; q += 4) tile<4, kTaps, kStep>(min_of(q, phase.count - 4));
    } else {
      for (int64_t q = 0; q < phase.count; ++q) tile<1, kTaps, kStep>(q);
    }
  }

  void run() const {
    const auto taps_and_step = [&](int64_t taps, int64_t step) {
      return phase.taps == taps && phase.from_step == step;
    };
    if (taps_and_step(1, 1)) return tiles<1, 1>();
    if (taps_and_step(2, 1)) return tiles<2, 1>();
    if (taps_and_step(3, 1)) return tiles<3, 1>();
    if (taps_and_step(3, 2)) return tiles<3, 2>();
    if (taps_and_step(5, 1)) return tiles<5, 1>();
    for (int64_t q = 0; q < phase.count; ++q) {
      sum_one(rows, count, from(q), phase.weight_first * kWide<C>, phase.weight_step * kWide<C>, phase.taps,
              bias, place(q));
    }
  }

 private:
  int64_t from(int64_t q) const { return (phase.from_first + q * phase.from_step) * kWide<C>; }
  C* place(int64_t q) const { return to + (phase.to_first + q * phase.to_step) * kWide<C>; }
};

// Weights and bias of the channels of a band.
template <class C>
struct PackedWeights {
  C* weight;                // [vectors][taps][lanes]
  const C* bias = nullptr;  // [vectors][lanes]

  PackedWeights(Scratch& scratch, const DepthwiseConv3d& p, const RowBand& band, bool with_bias) {
    const ChannelVectors<C> vectors(band.channels);
    weight =
        pack(scratch, static_cast<const C*>(p.weight) + band.first_channel * p.taps(), p.taps(), vectors);
    if (with_bias && p.bias)
      bias = pack(scratch, static_cast<const C*>(p.bias) + band.first_channel, 1, vectors);
  }

 private:
  static C* pack(Scratch& scratch, const C* from, int64_t taps, const ChannelVectors<C>& vectors) {
    C* const to = scratch.take<C>(vectors.count * taps * kWide<C>);
    memset(to, 0, vectors.count * taps * kWide<C> * sizeof(C));
    for (int64_t v = 0; v < vectors.count; ++v) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        for (int64_t l = 0; l < vectors.lanes(); ++l) {
          to[(v * taps + tap) * kWide<C> + l] = from[(vectors.first(v) + l) * taps + tap];
        }
      }
    }
    return to;
  }
};

// Lists what row (t, h) of the target reads, of one vector of channels; returns how many there are.
template <class C>
int64_t list_taps(const ConvBands& bands, const SourceRows<C>& source, int64_t vector, const C* weight,
                  int64_t t, int64_t h, TapRow<C>* rows) {
  const TapAxis &t_axis = bands.axis[0], &h_axis = bands.axis[1];
  int64_t count = 0;
  for (int64_t kt = 0; kt < t_axis.axis.kernel; ++kt) {
    const int64_t from_t = t_axis.source(t, kt);
    if (from_t < 0) continue;
    for (int64_t kh = 0; kh < h_axis.axis.kernel; ++kh) {
      const int64_t from_h = h_axis.source(h, kh);
      if (from_h < 0) continue;
      const int64_t tap = (kt * h_axis.axis.kernel + kh) * bands.axis[2].axis.kernel;
      rows[count++] = {source.row(vector, from_t, from_h), weight + tap * kWide<C>};
    }
  }
  return count;
}

// A task of the sum over taps.
template <class C>
void sum_taps(const DepthwiseConv3d& p, const ConvBands& bands, int64_t task) {
  const Clips &from = bands.forward ? p.x : p.y, &to = bands.forward ? p.y : p.x;
  const TapAxis &t_axis = bands.axis[0], &w_axis = bands.axis[2];
  const RowBand band = bands.band(task);
  const ChannelVectors<C> vectors(band.channels);
  Scratch scratch;
  const PackedWeights<C> packed(scratch, p, band, bands.forward);
  SourceRows<C> source(scratch, from, bands, band);
  const int64_t row_stride = to.size[2] * kWide<C>, vector_stride = (band.end - band.begin) * row_stride;
  C* const out = scratch.take<C>(vectors.count * vector_stride);  // [vectors][rows][W][lanes]
  TapRow<C> rows[kMaxConvKernel * kMaxConvKernel];
  for (int64_t t = 0; t < to.size[0]; ++t) {
    source.load_frames(t_axis.source_begin(t), t_axis.source_end(t));
    for (int64_t v = 0; v < vectors.count; ++v) {
      const wide_t<C> bias = packed.bias ? load_wide(packed.bias + v * kWide<C>) : wide_t<C>{};
      for (int64_t h = band.begin; h < band.end; ++h) {
        const C* const weight = packed.weight + v * p.taps() * kWide<C>;
        const int64_t count = list_taps(bands, source, v, weight, t, h, rows);
        C* const row = out + v * vector_stride + (h - band.begin) * row_stride;
        for (int64_t phase = 0; phase < num_phases(w_axis); ++phase) {
          RowSums<C>{rows, count, tap_phase(w_axis, phase), bias, row}.run();
        }
      }
    }
    for (int64_t h = band.begin; h < band.end; ++h) {
      store_row(out + (h - band.begin) * row_stride, vector_stride, vectors, to, row_offset(to, band, t, h));
    }
  }
}

void sum_taps_of(const DepthwiseConv3d& p, bool forward, int64_t begin, int64_t end) {
  visit_compute(p.double_precision, [&](auto tag) {
    using C = typename decltype(tag)::type;
    const ConvBands bands = ConvBands::of<C>(p, forward);
    for (int64_t task = begin; task < end; ++task) sum_taps<C>(p, bands, task);
  });
}

int64_t sum_taps_tasks(const DepthwiseConv3d& p, bool forward) {
  return visit_compute(p.double_precision, [&](auto tag) {
    return ConvBands::of<typename decltype(tag)::type>(p, forward).tasks();
  });
}

}  // namespace

int64_t depthwise_conv3d_fwd_tasks(const DepthwiseConv3d& p) { return sum_taps_tasks(p, true); }

void depthwise_conv3d_fwd(const DepthwiseConv3d& p, int64_t begin, int64_t end) {
  sum_taps_of(p, true, begin, end);
}

int64_t depthwise_conv3d_bwd_x_tasks(const DepthwiseConv3d& p) { return sum_taps_tasks(p, false); }

void depthwise_conv3d_bwd_x(const DepthwiseConv3d& p, int64_t begin, int64_t end) {
  sum_taps_of(p, false, begin, end);
}

}  // namespace AF_ISA
}  // namespace adafocus

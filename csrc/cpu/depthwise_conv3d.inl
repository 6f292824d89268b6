// depthwise_conv3d on the CPU, forward and backward to x: a sum over taps, vectorised over channels.
//
// A task is a band of rows of one clip, of some channels, through all frames: what it reads of the frames
// around stays in the second-level cache. Tiles of neighbouring outputs of a row are summed in registers, a
// vector of channels at a time; each place that is read serves all of them. Clips whose channels lie side by
// side in the compute type are read in place; others are copied into scanlines of that form first, each once,
// with zeros beside them.
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

// Outputs of one vector of channels: kTile of them, with kTaps taps, kStep places from one to the next.
// Strides in elements.
template <class C, int kTile, int kTaps, int kStep>
AF_HD void sum_tile(const TapRow<C>* rows, int64_t count, int64_t from_offset, int64_t weight_offset,
                    int64_t from_stride, int64_t weight_stride, const C* bias, C* to, int64_t to_stride) {
  using V = wide_t<C>;
  V sum[kTile];
  const V start = bias ? load_wide(bias) : V{};
  AF_UNROLL
  for (int q = 0; q < kTile; ++q) sum[q] = start;
  for (int64_t r = 0; r < count; ++r) {
    const C* const from = rows[r].source + from_offset;
    const C* const w = rows[r].weight + weight_offset;
    V weight[kTaps];
    AF_UNROLL
    for (int j = 0; j < kTaps; ++j) weight[j] = load_wide(w + j * weight_stride);
#pragma GCC unroll 32
    for (int i = 0; i < (kTile - 1) * kStep + kTaps; ++i) {
      const V value = load_wide(from + i * from_stride);
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

// One output, of taps [begin, end), in the order of sum_tile.
template <class C>
AF_HD void sum_one(const TapRow<C>* rows, int64_t count, int64_t from_offset, int64_t weight_offset,
                   int64_t from_stride, int64_t weight_stride, int64_t begin, int64_t end, const C* bias,
                   C* to) {
  using V = wide_t<C>;
  V sum = bias ? load_wide(bias) : V{};
  for (int64_t r = 0; r < count; ++r) {
    const C* const from = rows[r].source + from_offset;
    const C* const w = rows[r].weight + weight_offset;
    for (int64_t j = begin; j < end; ++j) {
      sum += load_wide(w + j * weight_stride) * load_wide(from + j * from_stride);
    }
  }
  store_wide(to, sum);
}

// The outputs of a phase of a row, of `vectors` vectors of channels that begin at offsets[] of the channels.
template <class C>
struct RowSums {
  const TapRow<C>* rows;
  int64_t count;                      // of rows
  TapPhase phase;
  int64_t from_size;                  // places of a source row that may be read
  int64_t from_place;                 // elements from one of them to the next
  int64_t weight_place;               // elements from the weights of a tap to those of the next
  const int64_t* offsets;             // [vectors] first channel of each
  int64_t vectors;
  const C* bias;                      // [channels] or null
  C* to;                              // first place of the target row
  int64_t to_place;                   // elements from one of its places to the next

  // Outputs [begin, end) read no place outside.
  int64_t inside_begin() const {
    const int64_t before = max_of<int64_t>(-phase.from_first, 0);
    return min_of((before + phase.from_step - 1) / phase.from_step, phase.count);
  }
  int64_t inside_end() const {
    const int64_t last = from_size - phase.taps - phase.from_first;
    return last < 0 ? inside_begin() : clamp_to(last / phase.from_step + 1, inside_begin(), phase.count);
  }

  void edge(int64_t q) const {
    const int64_t first = phase.from_first + q * phase.from_step;
    const int64_t begin = max_of<int64_t>(-first, 0), end = min_of(phase.taps, from_size - first);
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t c = offsets[v];
      sum_one(rows, count, first * from_place + c, phase.weight_first * weight_place + c, from_place,
              phase.weight_step * weight_place, begin, end, bias ? bias + c : nullptr, place(q) + c);
    }
  }

  template <int kTile, int kTaps, int kStep>
  void tile(int64_t q) const {
    const int64_t first = phase.from_first + q * phase.from_step;
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t c = offsets[v];
      sum_tile<C, kTile, kTaps, kStep>(rows, count, first * from_place + c,
                                       phase.weight_first * weight_place + c, from_place,
                                       phase.weight_step * weight_place, bias ? bias + c : nullptr,
                                       place(q) + c, phase.to_step * to_place);
    }
  }

  // Tiles overlap at the end of the row, where they write the same again.
  template <int kTaps, int kStep>
  void inside(int64_t begin, int64_t end) const {
    if (end - begin >= kConvTile) {
      for (int64_t q = begin; q < end; q += kConvTile) tile<kConvTile, kTaps, kStep>(min_of(q, end - kConvTile));
    } else if (end - begin >= 4) {
      for (int64_t q = begin; q < end; q += 4) tile<4, kTaps, kStep>(min_of(q, end - 4));
    } else {
      for (int64_t q = begin; q < end; ++q) tile<1, kTaps, kStep>(q);
    }
  }

  void run() const {
    const int64_t begin = inside_begin(), end = inside_end();
    for (int64_t q = 0; q < begin; ++q) edge(q);
    const auto taps_and_step = [&](int64_t taps, int64_t step) {
      return phase.taps == taps && phase.from_step == step;
    };
    if (taps_and_step(1, 1)) {
      inside<1, 1>(begin, end);
    } else if (taps_and_step(2, 1)) {
      inside<2, 1>(begin, end);
    } else if (taps_and_step(3, 1)) {
      inside<3, 1>(begin, end);
    } else if (taps_and_step(3, 2)) {
      inside<3, 2>(begin, end);
    } else if (taps_and_step(5, 1)) {
      inside<5, 1>(begin, end);
    } else {
      for (int64_t q = begin; q < end; ++q) edge(q);
    }
    for (int64_t q = end; q < phase.count; ++q) edge(q);
  }

 private:
  C* place(int64_t q) const { return to + (phase.to_first + q * phase.to_step) * to_place; }
};

// A task of the sum over taps.
template <class C>
void sum_taps(const DepthwiseConv3d& p, const ConvBands& bands, int64_t task) {
  const bool forward = bands.forward;
  const Clips &from = forward ? p.x : p.y, &to = forward ? p.y : p.x;
  const TapAxis t_axis = bands.axis[0], h_axis = bands.axis[1], w_axis = bands.axis[2];
  const RowBand band = bands.band(task);
  Scratch scratch;
  const ChannelBlock<C> block(scratch, p, band, forward);
  SourceRows<C> source(scratch, from, bands, band, block);
  const bool in_place = is_in_place<C>(to);
  const int64_t place = in_place ? to.stride[2] : block.padded;
  C* const buffer = in_place ? nullptr : scratch.take<C>(to.size[2] * place);  // [W][padded]
  TapRow<C> rows[kMaxConvKernel * kMaxConvKernel];
  for (int64_t t = 0; t < to.size[0]; ++t) {
    source.load_frames(t_axis.source_begin(t), t_axis.source_end(t));
    for (int64_t h = band.begin; h < band.end; ++h) {
      int64_t count = 0;
      for (int64_t kt = 0; kt < t_axis.axis.kernel; ++kt) {
        const int64_t from_t = t_axis.source(t, kt);
        if (from_t < 0) continue;
        for (int64_t kh = 0; kh < h_axis.axis.kernel; ++kh) {
          const int64_t from_h = h_axis.source(h, kh);
          if (from_h < 0) continue;
          const int64_t tap = (kt * h_axis.axis.kernel + kh) * w_axis.axis.kernel;
          rows[count++] = {source.row(from_t, from_h), block.weight + tap * block.padded};
        }
      }
      const int64_t offset = to.stride_n * band.clip + to.stride_c * band.first_channel + to.stride[0] * t +
                             to.stride[1] * h;
      C* const out = in_place ? static_cast<C*>(to.data) + offset : buffer;
      for (int64_t phase = 0; phase < num_phases(w_axis); ++phase) {
        RowSums<C>{rows, count, tap_phase(w_axis, phase), from.size[2], source.place(), block.padded,
                   block.offsets, block.vectors, block.bias, out, place}
            .run();
      }
      if (!in_place) {
        store_places(buffer, block.padded, band.channels, to.size[2], to, offset);
      }
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

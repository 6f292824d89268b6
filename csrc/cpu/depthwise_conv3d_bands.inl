// How the CPU kernels of depthwise_conv3d divide their work, and the scanlines that they read.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafocus/depthwise_conv3d.h"
#include "cpu/isa.h"
#include "cpu/scratch.h"
#include "cpu/wide_lanes.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

constexpr int64_t kBlockBytes = 256;                // of the channels of a place that are taken together
constexpr int64_t kBandBytes = int64_t(320) << 10;  // of the scanlines that a task comes back to
constexpr int64_t kMaxBandRows = 8;
constexpr int64_t kMaxVectors = kBlockBytes / 16;

// True if a clip's channels can be read and written as vectors, where they lie.
template <class C>
bool is_in_place(const Clips& clips) {
  const bool same = clips.dtype == (sizeof(C) == 8 ? DType::kFloat64 : DType::kFloat32);
  return same && clips.stride_c == 1 && clips.channels >= kWide<C>;
}

// Rows [begin, end) of the target and channels [first_channel, first_channel + channels) of a clip.
struct RowBand {
  int64_t clip, begin, end, first_channel, channels;
};

// The bands of all clips. How they are cut follows from the sizes alone, so that sums do not depend on the
// number of threads.
struct ConvBands {
  TapAxis axis[kConvAxes];
  bool forward;
  int64_t clips, channels, lanes, blocks, rows, per_clip;

  template <class C>
  static ConvBands of(const DepthwiseConv3d& p, bool forward) {
    ConvBands bands{};
    bands.forward = forward;
    for (int d = 0; d < kConvAxes; ++d) bands.axis[d] = tap_axis(p, d, forward);
    bands.clips = p.x.count;
    bands.channels = p.x.channels;
    bands.lanes = kWide<C>;
    const int64_t most = kBlockBytes / kWideBytes;  // vectors of a block
    bands.blocks = (bands.vectors() + most - 1) / most;
    const int64_t in_block = min_of(bands.channels, kBlockBytes / int64_t(sizeof(C)));
    const int64_t row_bytes = bands.axis[2].from_size * in_block * int64_t(sizeof(C));
    const int64_t fit = kBandBytes / max_of<int64_t>(row_bytes * bands.axis[0].axis.kernel, 1);
    const ConvAxis h = bands.axis[1].axis;
    const int64_t rows = forward ? (fit - h.kernel) / h.stride + 1 : (fit - h.kernel) * h.stride;
    bands.rows = clamp_to<int64_t>(rows, 1, kMaxBandRows);
    bands.per_clip = (bands.axis[1].to_size + bands.rows - 1) / bands.rows;
    return bands;
  }

  int64_t vectors() const { return (channels + lanes - 1) / lanes; }
  int64_t tasks() const { return clips * per_clip * blocks; }

  // Blocks are whole vectors, as many in each as there are, within one; the last ends with the channels.
  int64_t block_begin(int64_t block) const { return block * vectors() / blocks * lanes; }

  RowBand band(int64_t task) const {
    const int64_t block = task % blocks, row = task / blocks % per_clip * rows;
    const int64_t first = block_begin(block), end = min_of(block_begin(block + 1), channels);
    return {task / blocks / per_clip, row, min_of(row + rows, axis[1].to_size), first, end - first};
  }
};

// Sets the first channel of each vector of a block of channels, and returns how many there are. The last
// one ends with the last channel where the block has that many, so that nothing is read or written beside.
template <class C>
int64_t set_offsets(int64_t channels, int64_t* offsets) {
  const int64_t vectors = (channels + kWide<C> - 1) / kWide<C>;
  for (int64_t v = 0; v < vectors; ++v) offsets[v] = v * kWide<C>;
  if (channels >= kWide<C>) offsets[vectors - 1] = channels - kWide<C>;
  return vectors;
}

// Weights of a block of channels, and its vectors.
template <class C>
struct ChannelBlock {
  int64_t offsets[kMaxVectors];
  int64_t vectors, padded;  // channels in whole vectors
  C* weight;                // [taps][padded]
  const C* bias = nullptr;  // [padded]

  ChannelBlock(Scratch& scratch, const DepthwiseConv3d& p, const RowBand& band, bool with_bias)
      : vectors(set_offsets<C>(band.channels, offsets)), padded(vectors * kWide<C>) {
    const int64_t taps = p.taps();
    weight = scratch.take<C>(taps * padded);
    const C* const from = static_cast<const C*>(p.weight) + band.first_channel * taps;
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t c = 0; c < padded; ++c) {
        weight[tap * padded + c] = c < band.channels ? from[c * taps + tap] : C(0);
      }
    }
    if (!with_bias || !p.bias) return;
    C* const own = scratch.take<C>(padded);
    const C* const given = static_cast<const C*>(p.bias) + band.first_channel;
    for (int64_t c = 0; c < padded; ++c) own[c] = c < band.channels ? given[c] : C(0);
    bias = own;
  }
};

// out [count][padded] = `count` places of a clip in a row, from `offset` on, of some channels.
template <class C>
void load_places(const Clips& clips, int64_t offset, int64_t channels, int64_t count, int64_t padded, C* out) {
  visit_float(clips.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* const from = static_cast<const T*>(clips.data) + offset;
    const int64_t stride_c = clips.stride_c, stride_w = clips.stride[2];
    if (stride_c == 1) {
      for (int64_t w = 0; w < count; ++w) {
        const T* __restrict__ place = from + w * stride_w;
        C* __restrict__ to = out + w * padded;
        for (int64_t c = 0; c < channels; ++c) to[c] = load_as<C>(place[c]);
      }
    } else {
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t w = 0; w < count; ++w) out[w * padded + c] = load_as<C>(from[c * stride_c + w * stride_w]);
      }
    }
  });
}

// `count` places of a clip in a row, from `offset` on, of some channels = from [count][padded].
template <class C>
void store_places(const C* from, int64_t padded, int64_t channels, int64_t count, const Clips& clips,
                  int64_t offset) {
  visit_float(clips.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* const to = static_cast<T*>(clips.data) + offset;
    const int64_t stride_c = clips.stride_c, stride_w = clips.stride[2];
    if (stride_c == 1) {
      for (int64_t w = 0; w < count; ++w) {
        const C* __restrict__ place = from + w * padded;
        T* __restrict__ out = to + w * stride_w;
        for (int64_t c = 0; c < channels; ++c) out[c] = Store<T>::from(place[c]);
      }
    } else {
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t w = 0; w < count; ++w) to[c * stride_c + w * stride_w] = Store<T>::from(from[w * padded + c]);
      }
    }
  });
}

// Rows of the source as the kernels read them: where they lie, or copies of those around the frame at hand.
template <class C>
class SourceRows {
 public:
  SourceRows(Scratch& scratch, const Clips& from, const ConvBands& bands, const RowBand& band,
             const ChannelBlock<C>& block)
      : SourceRows(scratch, from, bands, band, block.padded) {}

  SourceRows(Scratch& scratch, const Clips& from, const ConvBands& bands, const RowBand& band, int64_t padded)
      : from_(from),
        band_(band),
        in_place_(is_in_place<C>(from)),
        padded_(padded),
        slots_(bands.axis[0].axis.kernel),
        first_row_(bands.axis[1].source_begin(band.begin)),
        rows_(max_of<int64_t>(bands.axis[1].source_end(band.end - 1) - first_row_, 0)) {
    if (in_place_) return;
    const int64_t count = slots_ * rows_ * from.size[2] * padded_;
    copies_ = scratch.take<C>(count);  // [slots][rows][W][padded]
    memset(copies_, 0, count * sizeof(C));
  }

  // Makes sure that frames [begin, end) are there; neither number may be less than in the call before.
  void load_frames(int64_t begin, int64_t end) {
    if (in_place_) return;
    for (int64_t t = max_of(begin, loaded_); t < end; ++t) {
      for (int64_t h = first_row_; h < first_row_ + rows_; ++h) {
        load_places(from_, offset(t, h), band_.channels, from_.size[2], padded_, copy(t, h));
      }
    }
    loaded_ = max_of(loaded_, end);
  }

  const C* row(int64_t t, int64_t h) const {
    return in_place_ ? static_cast<const C*>(from_.data) + offset(t, h) : copy(t, h);
  }

  // Elements from a place of a row to the next.
  int64_t place() const { return in_place_ ? from_.stride[2] : padded_; }

 private:
  int64_t offset(int64_t t, int64_t h) const {
    return from_.stride_n * band_.clip + from_.stride_c * band_.first_channel + from_.stride[0] * t +
           from_.stride[1] * h;
  }
  C* copy(int64_t t, int64_t h) const {
    return copies_ + (t % slots_ * rows_ + h - first_row_) * from_.size[2] * padded_;
  }

  const Clips& from_;
  const RowBand band_;
  const bool in_place_;
  const int64_t padded_, slots_, first_row_, rows_;
  int64_t loaded_ = 0;
  C* copies_ = nullptr;
};

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

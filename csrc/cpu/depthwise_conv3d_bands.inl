// How the CPU kernels of depthwise_conv3d divide their work, and the scanlines that they read and write.
//
// A scanline is copied once before it is read kernel_t kernel_h times, into the form that the sums want: the
// places of one vector of channels one after the other, whole vectors at addresses of their length, with
// zeros beside the clip. (Where channels lie side by side but do not fill whole cache lines, sums that read
// them in place took twice the time.)
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "adafocus/depthwise_conv3d.h"
#include "cpu/isa.h"
#include "cpu/scratch.h"
#include "cpu/wide_lanes.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

constexpr int64_t kBlockBytes = 256;                // of the channels of a place that are taken together
constexpr int64_t kBandBytes = int64_t(640) << 10;  // of the scanlines that a task comes back to
constexpr int64_t kMaxBandRows = 16;
constexpr int64_t kMaxVectors = kBlockBytes / 16;

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

// The channels of a block as vectors. The last one ends with the last channel, so that it has some in common
// with the one before; a block of fewer channels than lanes is one vector that zeros fill up.
template <class C>
struct ChannelVectors {
  int64_t channels, count;

  explicit ChannelVectors(int64_t channels_of_block)
      : channels(channels_of_block), count((channels_of_block + kWide<C> - 1) / kWide<C>) {}

  // First channel of a vector, and how many of its lanes are channels.
  int64_t first(int64_t vector) const {
    return max_of<int64_t>(min_of(vector * kWide<C>, channels - kWide<C>), 0);
  }
  int64_t lanes() const { return min_of(channels, kWide<C>); }
};

// Offset of the first element of row (t, h) of a band's channels.
AF_HD int64_t row_offset(const Clips& clips, const RowBand& band, int64_t t, int64_t h) {
  return clips.stride_n * band.clip + clips.stride_c * band.first_channel + clips.stride[0] * t +
         clips.stride[1] * h;
}

// to [lanes] = elements of a clip, `stride_c` apart, of which the first `lanes` are there.
template <class C, class T>
AF_HD void load_lanes_of(const T* __restrict__ from, int64_t stride_c, int64_t lanes, C* __restrict__ to) {
  if (lanes < kWide<C>) {
    for (int64_t l = 0; l < lanes; ++l) to[l] = load_as<C>(from[l * stride_c]);
  } else if (stride_c != 1) {
    for (int64_t l = 0; l < kWide<C>; ++l) to[l] = load_as<C>(from[l * stride_c]);
  } else if constexpr (std::is_same_v<C, T>) {
    store_wide(to, load_wide(from));
  } else {
#pragma omp simd
    for (int64_t l = 0; l < kWide<C>; ++l) to[l] = load_as<C>(from[l]);
  }
}

// The reverse.
template <class C, class T>
AF_HD void store_lanes_of(const C* __restrict__ from, T* __restrict__ to, int64_t stride_c, int64_t lanes) {
  if (lanes < kWide<C>) {
    for (int64_t l = 0; l < lanes; ++l) to[l * stride_c] = Store<T>::from(from[l]);
  } else if (stride_c != 1) {
    for (int64_t l = 0; l < kWide<C>; ++l) to[l * stride_c] = Store<T>::from(from[l]);
  } else if constexpr (std::is_same_v<C, T>) {
    store_wide(to, load_wide(from));
  } else {
#pragma omp simd
    for (int64_t l = 0; l < kWide<C>; ++l) to[l] = Store<T>::from(from[l]);
  }
}

// Calls f(vector, place, offset of its first element in the row) for all places of a row, in the order that
// suits its layout.
template <class C, class F>
AF_HD void for_each_place(const Clips& clips, const ChannelVectors<C>& vectors, const F& f) {
  const int64_t stride_c = clips.stride_c, stride_w = clips.stride[2], width = clips.size[2];
  if (stride_c == 1) {
    for (int64_t w = 0; w < width; ++w) {
      for (int64_t v = 0; v < vectors.count; ++v) f(v, w, w * stride_w + vectors.first(v));
    }
  } else {
    for (int64_t v = 0; v < vectors.count; ++v) {
      for (int64_t w = 0; w < width; ++w) f(v, w, w * stride_w + vectors.first(v) * stride_c);
    }
  }
}

// The element types that clips have where sums are of type C.
template <class C, class F>
void visit_elements(DType dtype, const F& f) {
  if constexpr (sizeof(C) == 8) {
    f(TypeTag<double>{});
  } else {
    visit_small_float(dtype, f);
  }
}

// out [vectors][places][lanes], of which the vectors are `vector_stride` apart, = a row of a clip.
template <class C>
void load_row(const Clips& clips, int64_t offset, const ChannelVectors<C>& vectors, C* out,
              int64_t vector_stride) {
  visit_elements<C>(clips.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* const from = static_cast<const T*>(clips.data) + offset;
    for_each_place(clips, vectors, [&](int64_t v, int64_t w, int64_t at) __attribute__((always_inline)) {
      load_lanes_of(from + at, clips.stride_c, vectors.lanes(), out + v * vector_stride + w * kWide<C>);
    });
  });
}

// A row of a clip = from [vectors][places][lanes].
template <class C>
void store_row(const C* from, int64_t vector_stride, const ChannelVectors<C>& vectors, const Clips& clips,
               int64_t offset) {
  visit_elements<C>(clips.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* const to = static_cast<T*>(clips.data) + offset;
    for_each_place(clips, vectors, [&](int64_t v, int64_t w, int64_t at) __attribute__((always_inline)) {
      store_lanes_of(from + v * vector_stride + w * kWide<C>, to + at, clips.stride_c, vectors.lanes());
    });
  });
}

// The rows around the frame at hand that a band reads, with kernel_w - 1 places of zeros on both sides.
template <class C>
class SourceRows {
 public:
  SourceRows(Scratch& scratch, const Clips& from, const ConvBands& bands, const RowBand& band)
      : from_(from),
        band_(band),
        vectors_(band.channels),
        margin_(bands.axis[2].axis.kernel - 1),
        slots_(bands.axis[0].axis.kernel),
        first_row_(bands.axis[1].source_begin(band.begin)),
        rows_(max_of<int64_t>(bands.axis[1].source_end(band.end - 1) - first_row_, 0)) {
    const int64_t count = vectors_.count * vector_stride();
    rows_at_ = scratch.take<C>(count);  // [vectors][slots][rows][margin + W + margin][lanes]
    memset(rows_at_, 0, count * sizeof(C));
  }

  // Makes sure that frames [begin, end) are there; neither number may be less than in the call before.
  void load_frames(int64_t begin, int64_t end) {
    for (int64_t t = max_of(begin, loaded_); t < end; ++t) {
      for (int64_t h = first_row_; h < first_row_ + rows_; ++h) {
        load_row(from_, row_offset(from_, band_, t, h), vectors_, rows_at_ + place(t, h), vector_stride());
      }
    }
    loaded_ = max_of(loaded_, end);
  }

  // First place of a row, of a vector of channels.
  const C* row(int64_t vector, int64_t t, int64_t h) const {
    return rows_at_ + vector * vector_stride() + place(t, h);
  }

 private:
  int64_t row_stride() const { return (from_.size[2] + 2 * margin_) * kWide<C>; }
  int64_t vector_stride() const { return slots_ * rows_ * row_stride(); }
  int64_t place(int64_t t, int64_t h) const {
    return (t % slots_ * rows_ + h - first_row_) * row_stride() + margin_ * kWide<C>;
  }

  const Clips& from_;
  const RowBand band_;
  const ChannelVectors<C> vectors_;
  const int64_t margin_, slots_, first_row_, rows_;
  int64_t loaded_ = 0;  // frames
  C* rows_at_;
};

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

// The kernels of depthwise_conv3d that are sums over taps, forward and backward to x. A thread sums kConvTile
// neighbouring outputs of a vector of channels, whose taps share what they read (tiled), or one output of any
// call (any). ADAFOCUS_CUDA_KERNEL=any in the environment takes the latter for every call (kernel_choice.h).
#pragma once

#include "cuda/depthwise_conv3d.cuh"
#include "cuda/kernel_choice.h"

namespace adafocus {
namespace {

constexpr int kConvTile = 4;           // outputs of a thread
constexpr int64_t kBlockBytes = 128;   // of the channels of a place that a block takes: a line of memory
constexpr int64_t kItemsOfThread = 2;  // that a thread takes at least, for the weights that its block stages

// The numbers of a call as the tiled kernel wants them.
struct TileCall {
  DepthwiseConv3d p;
  ConvOrder order;
  uint32_t groups;   // of kLanes channels
  uint32_t columns;  // groups of a block, a power of two
  uint32_t tiles;    // along order.along
  uint32_t items;    // of a group of channels: tiles times the places on the two other axes
};

// A tile, and its place on the two other axes. Items that follow one another are neighbours in memory.
struct TileItem {
  uint32_t tile, outer, inner;

  AF_DEVICE TileItem(const TileCall& call, const Clips& to, uint32_t item) {
    const uint32_t places = uint32_t(to.size[call.order.inner]);
    const bool tiles_first = call.order.along > call.order.inner;
    const uint32_t first = tiles_first ? call.tiles : places, second = tiles_first ? places : call.tiles;
    const uint32_t fast = item % first, slow = item / first % second;
    tile = tiles_first ? fast : slow;
    inner = tiles_first ? slow : fast;
    outer = item / first / second;
  }
};

// Grid: (clip, chunk of its items, chunk of its groups of channels). The block's threads are a table of items
// by `columns` groups. Along the tiled axis there are kTaps taps at distance kStride; a tile of the gradient
// starts where its first place is a multiple of the stride behind the padding, so that which taps meet which
// places is known when it is compiled.
template <class T, int kLanes, int kTaps, int kStride, bool kForward>
__launch_bounds__(kThreads, 1) AF_KERNEL depthwise_conv3d_tiled_kernel(const TileCall call) {
  using C = compute_t<T>;
  using Vector = ConvVector<T, kLanes>;
  using Weights = ConvVector<C, kLanes>;
  // Places that a tile reads.
  constexpr int kBefore = kForward ? 0 : (kTaps - 1) / kStride;
  constexpr int kRead =
      kForward ? (kConvTile - 1) * kStride + kTaps : kBefore + (kConvTile - 1) / kStride + 1;
  const DepthwiseConv3d& p = call.p;
  const Clips& from = kForward ? p.x : p.y;
  const Clips& to = kForward ? p.y : p.x;
  const int along = call.order.along, outer = call.order.outer, inner = call.order.inner;
  const int64_t stride_along = from.stride[along], from_size = from.size[along];
  const int padding = int(p.axis[along].padding);
  // Weights of one tap of each axis after those of another, in `weights`.
  const uint32_t taps = uint32_t(p.taps()), columns = call.columns;
  const uint32_t plane = uint32_t(p.axis[1].kernel * p.axis[2].kernel), line = uint32_t(p.axis[2].kernel);
  const auto tap_step = [&](int axis) { return (axis == 0 ? plane : axis == 1 ? line : 1u) * columns; };
  const uint32_t step_along = tap_step(along), step_outer = tap_step(outer), step_inner = tap_step(inner);
  const TapAxis outer_axis = tap_axis(p, outer, kForward), inner_axis = tap_axis(p, inner, kForward);
  Weights* const weights =
      reinterpret_cast<Weights*>(dynamic_shared());  // [taps, columns], all write and read
  const uint32_t column = threadIdx.x % columns, row = threadIdx.x / columns, rows = kThreads / columns;
  for (uint32_t start = blockIdx.z * columns; start < call.groups; start += gridDim.z * columns) {
    const uint32_t in_block = min_of(columns, call.groups - start) * kLanes;  // channels
    const C* const given = static_cast<const C*>(p.weight) + int64_t(start) * kLanes * taps;
    __syncthreads();  // all have read the weights of the groups before
    for (uint32_t i = threadIdx.x; i < in_block * taps; i += kThreads) {
      const uint32_t c = i / taps;
      weights[i % taps * columns + c / kLanes].value[c % kLanes] = given[i];
    }
    __syncthreads();
    const uint32_t channel = (start + column) * kLanes;
    const bool exists = start + column < call.groups;
    const T* const clip =
        static_cast<const T*>(from.data) + blockIdx.x * from.stride_n + channel * from.stride_c;
    T* const out = static_cast<T*>(to.data) + blockIdx.x * to.stride_n + channel * to.stride_c;
    for (uint32_t n = blockIdx.y * rows + row; exists && n < call.items; n += gridDim.y * rows) {
      const TileItem at(call, to, n);
      // First output of the tile, and the first place that it reads.
      const int first = int(at.tile) * kConvTile - (kForward ? 0 : padding % kStride);
      const int begin = kForward ? first * kStride - padding : (first + padding) / kStride - kBefore;
      C sum[kConvTile][kLanes];
#pragma unroll
      for (int c = 0; c < kLanes; ++c) {
        const C bias = kForward && p.bias ? static_cast<const C*>(p.bias)[channel + c] : C(0);
#pragma unroll
        for (int q = 0; q < kConvTile; ++q) sum[q][c] = bias;
      }
      for (int ko = 0; ko < int(outer_axis.axis.kernel); ++ko) {
        const int64_t from_outer = outer_axis.source(at.outer, ko);
        if (from_outer < 0) continue;
        for (int ki = 0; ki < int(inner_axis.axis.kernel); ++ki) {
          const int64_t from_inner = inner_axis.source(at.inner, ki);
          if (from_inner < 0) continue;
          const T* const places = clip + from_outer * from.stride[outer] + from_inner * from.stride[inner];
          Weights tap[kTaps];
#pragma unroll
          for (int k = 0; k < kTaps; ++k) {
            tap[k] = weights[ko * step_outer + ki * step_inner + k * step_along + column];
          }
#pragma unroll
          for (int i = 0; i < kRead; ++i) {
            const int place = begin + i;
            if (place < 0 || place >= from_size) continue;
            const Vector value = *reinterpret_cast<const Vector*>(places + place * stride_along);
#pragma unroll
            for (int q = 0; q < kConvTile; ++q) {
              // Tap k of output q reads place q kStride + k forward, and (q - k) / kStride backward.
              const int k = kForward ? i - q * kStride : q - (i - kBefore) * kStride;
              if (k < 0 || k >= kTaps) continue;
#pragma unroll
              for (int c = 0; c < kLanes; ++c) sum[q][c] += tap[k].value[c] * load_as<C>(value.value[c]);
            }
          }
        }
      }
#pragma unroll
      for (int q = 0; q < kConvTile; ++q) {
        if (first + q < 0 || first + q >= to.size[along]) continue;
        Vector result;
#pragma unroll
        for (int c = 0; c < kLanes; ++c) result.value[c] = Store<T>::from(sum[q][c]);
        *reinterpret_cast<Vector*>(out + at.outer * to.stride[outer] + at.inner * to.stride[inner] +
                                   (first + q) * to.stride[along]) = result;
      }
    }
  }
}

// For any call. Grid: (clip, chunk of its elements, which are counted as the result has them in memory).
template <class T>
__launch_bounds__(kThreads, 1) AF_KERNEL
    depthwise_conv3d_any_kernel(const DepthwiseConv3d p, bool forward, uint32_t count) {
  using C = compute_t<T>;
  const Clips& from = forward ? p.x : p.y;
  const Clips& to = forward ? p.y : p.x;
  const T* const clip = static_cast<const T*>(from.data) + blockIdx.x * from.stride_n;
  T* const out = static_cast<T*>(to.data) + blockIdx.x * to.stride_n;
  const TapAxis axis[] = {tap_axis(p, 0, forward), tap_axis(p, 1, forward), tap_axis(p, 2, forward)};
  const uint32_t channels = uint32_t(to.channels), height = uint32_t(to.size[1]),
                 width = uint32_t(to.size[2]);
  const uint32_t places = uint32_t(to.places());
  const bool interleaved = to.interleaved();
  for (uint32_t i = blockIdx.y * kThreads + threadIdx.x; i < count; i += gridDim.y * kThreads) {
    const uint32_t c = interleaved ? i % channels : i / places;
    const uint32_t place = interleaved ? i / channels : i % places;
    const int64_t w = place % width, h = place / width % height, t = place / width / height;
    const C* weight = static_cast<const C*>(p.weight) + c * p.taps();
    C sum = forward && p.bias ? static_cast<const C*>(p.bias)[c] : C(0);
    for (int64_t kt = 0; kt < axis[0].axis.kernel; ++kt) {
      const int64_t from_t = axis[0].source(t, kt);
      for (int64_t kh = 0; kh < axis[1].axis.kernel; ++kh) {
        const int64_t from_h = axis[1].source(h, kh);
        for (int64_t kw = 0; kw < axis[2].axis.kernel; ++kw, ++weight) {
          const int64_t from_w = axis[2].source(w, kw);
          if (from_t < 0 || from_h < 0 || from_w < 0) continue;
          sum += *weight * load_as<C>(clip[c * from.stride_c + from_t * from.stride[0] +
                                           from_h * from.stride[1] + from_w * from.stride[2]]);
        }
      }
    }
    out[c * to.stride_c + t * to.stride[0] + h * to.stride[1] + w * to.stride[2]] = Store<T>::from(sum);
  }
}

dim3 grid_over(int64_t clips, int64_t items) {
  return dim3(unsigned(clips), unsigned(clamp_to<int64_t>((items + kThreads - 1) / kThreads, 1, kMaxGridY)));
}

// The axis that tiles go along, and its form: (3 taps, stride 1), (3, 2) or (5, 1); or -1.
int tiled_axis(const DepthwiseConv3d& p) {
  const int last =
      p.y.interleaved() ? 2 : 1;  // in planes neighbouring threads are neighbours along the width
  for (const int axis : {last, 0}) {
    const ConvAxis& a = p.axis[axis];
    if ((a.kernel == 3 && a.stride <= 2) || (a.kernel == 5 && a.stride == 1)) return axis;
  }
  return -1;
}

// True if the weights of a block fit its shared memory, of float16 too, which has the most channels.
bool can_stage_weights(const DepthwiseConv3d& p) {
  return p.taps() * kBlockBytes * 2 <= int64_t(kMaxShared - kStaticShared);
}

template <class T, int kLanes, int kTaps, int kStride, bool kForward>
const char* tiled(const DepthwiseConv3d& p, int along, void* stream) {
  const Clips& to = kForward ? p.y : p.x;
  const int64_t shifted = kForward ? 0 : p.axis[along].padding % kStride;
  const int64_t tiles = (to.size[along] + shifted + kConvTile - 1) / kConvTile, groups = to.channels / kLanes;
  const int64_t items = tiles * (to.places() / to.size[along]);
  // In planes the items are what lies side by side.
  const int64_t most = to.interleaved() ? kBlockBytes / (kLanes * sizeof(T)) : 1;
  int64_t columns = 1;
  while (columns < most && columns < groups) columns *= 2;
  const TileCall call{
      p, conv_order(along), uint32_t(groups), uint32_t(columns), uint32_t(tiles), uint32_t(items)};
  const int64_t rows = kItemsOfThread * kThreads / columns;
  const dim3 grid(unsigned(to.count), unsigned(min_of((items + rows - 1) / rows, kMaxGridY)),
                  unsigned(min_of((groups + columns - 1) / columns, kMaxGridY)));
  const size_t shared = size_t(p.taps() * columns) * sizeof(ConvVector<compute_t<T>, kLanes>);
  return launch(depthwise_conv3d_tiled_kernel<T, kLanes, kTaps, kStride, kForward>, grid, dim3(kThreads),
                shared, stream, call);
}

constexpr int kFewLanes = 2;  // where 16 bytes do not divide the channels: kernels of 3 taps only

template <class T, int kLanes, bool kForward>
const char* tiled_of_form(const DepthwiseConv3d& p, int along, void* stream) {
  const ConvAxis& a = p.axis[along];
  if constexpr (kLanes != kFewLanes) {
    if (a.kernel == 5) return tiled<T, kLanes, 5, 1, kForward>(p, along, stream);
  }
  if (a.stride == 2) return tiled<T, kLanes, 3, 2, kForward>(p, along, stream);
  return tiled<T, kLanes, 3, 1, kForward>(p, along, stream);
}

template <class T, bool kForward>
const char* sum_taps(const DepthwiseConv3d& p, void* stream) {
  const int along = tiled_axis(p);
  const auto any = [&] {
    const Clips& to = kForward ? p.y : p.x;
    const int64_t count = to.channels * to.places();
    return launch(depthwise_conv3d_any_kernel<T>, grid_over(to.count, count), dim3(kThreads), 0, stream, p,
                  kForward, uint32_t(count));
  };
  if constexpr (std::is_same_v<T, double>) {
    return any();  // double precision is for checks
  } else {
    constexpr int kMost = 16 / sizeof(T);
    const auto lanes = [&](int64_t n) { return has_vectors(p.x, n) && has_vectors(p.y, n); };
    const auto fast = [&] {
      if (lanes(kMost)) return tiled_of_form<T, kMost, kForward>(p, along, stream);
      if (lanes(kFewLanes) && p.axis[along].kernel == 3)
        return tiled_of_form<T, kFewLanes, kForward>(p, along, stream);
      return tiled_of_form<T, 1, kForward>(p, along, stream);
    };
    return launch_fast_or_any(along >= 0 && can_stage_weights(p), fast, any);
  }
}

template <bool kForward>
const char* sum_taps_of(const DepthwiseConv3d& p, void* stream) {
  const Clips& to = kForward ? p.y : p.x;
  if (to.numel() == 0) return nullptr;
  if (const char* why = why_not_launched(p)) return why;
  return visit_float(p.x.dtype,
                     [&](auto tag) { return sum_taps<typename decltype(tag)::type, kForward>(p, stream); });
}

}  // namespace
}  // namespace adafocus

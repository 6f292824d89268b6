// depthwise_conv3d on CUDA, backward to the weight, in two stages: blocks sum slices of the places, one row
// of taps (kt, kh) each; then the sums of the slices are added in their order. How places are sliced follows
// from the sizes alone, so that sums are the same on every GPU.
#include "adafocus/depthwise_conv3d.h"
#include "cuda/depthwise_conv3d.cuh"
#include "cuda/kernel_choice.h"

namespace adafocus {
namespace {

constexpr int64_t kPlacesOfSlice = 4096;  // at least
constexpr int64_t kMaxSlices = 512;

// Slices of the rows [N, To, Ho] of the result's gradient.
struct Slices {
  int64_t rows, rows_of_slice, count;

  AF_HD explicit Slices(const DepthwiseConv3d& p) {
    rows = p.y.count * p.y.size[0] * p.y.size[1];
    const int64_t least =
        max_of<int64_t>((kPlacesOfSlice + p.y.size[2] - 1) / max_of<int64_t>(p.y.size[2], 1), 1);
    rows_of_slice = max_of(least, (rows + kMaxSlices - 1) / kMaxSlices);
    count = (rows + rows_of_slice - 1) / rows_of_slice;
  }
};

// Grid: (slice, row of taps, chunk of groups of channels). The block's threads are a table of places by
// `columns` groups of channels. Sums go to partials [slices, C, taps].
template <class T, int kLanes>
__launch_bounds__(kThreads, 1) AF_KERNEL
    depthwise_conv3d_bwd_weight_slices_kernel(const DepthwiseConv3d p, compute_t<T>* partials,
                                              uint32_t groups, uint32_t columns) {
  using C = compute_t<T>;
  using Vector = ConvVector<T, kLanes>;
  using Sums = ConvVector<C, kLanes>;
  AF_SHARED(Sums, of_thread, kThreads);  // [rows, columns], all threads write and sum by halves
  const Slices slices(p);
  const int64_t kt = blockIdx.y / p.axis[1].kernel, kh = blockIdx.y % p.axis[1].kernel;
  const int kernel_w = int(p.axis[2].kernel), stride_w = int(p.axis[2].stride),
            padding_w = int(p.axis[2].padding);
  const TapAxis t_axis = tap_axis(p, 0, true), h_axis = tap_axis(p, 1, true);
  const uint32_t thread = threadIdx.x;
  // Neighbouring threads are neighbours along what memory has side by side.
  const bool interleaved = p.y.interleaved();
  const uint32_t rows = kThreads / columns;
  const uint32_t column = interleaved ? thread % columns : thread / rows;
  const uint32_t row = interleaved ? thread / columns : thread % rows;
  const uint32_t width = uint32_t(p.y.size[2]), x_width = uint32_t(p.x.size[2]);
  const int64_t first_row = blockIdx.x * slices.rows_of_slice;
  const int64_t end_row = min_of(first_row + slices.rows_of_slice, slices.rows);
  for (uint32_t start = blockIdx.z * columns; start < groups; start += gridDim.z * columns) {
    const bool exists = start + column < groups;
    const uint32_t channel = (start + column) * kLanes;
    const T* const x = static_cast<const T*>(p.x.data) + channel * p.x.stride_c;
    const T* const grad = static_cast<const T*>(p.y.data) + channel * p.y.stride_c;
    C sum[kMaxConvKernel][kLanes] = {};
    // Places of the slice, counted through its rows.
    const uint32_t places = exists ? uint32_t((end_row - first_row) * width) : 0;
    for (uint32_t n = row; n < places; n += rows) {
      const int64_t r = first_row + n / width;
      const int64_t h = r % p.y.size[1], t = r / p.y.size[1] % p.y.size[0],
                    clip = r / p.y.size[1] / p.y.size[0];
      const int w = int(n % width);
      const int64_t from_t = t_axis.source(t, kt), from_h = h_axis.source(h, kh);
      if (from_t < 0 || from_h < 0) continue;
      const Vector g = *reinterpret_cast<const Vector*>(grad + clip * p.y.stride_n + t * p.y.stride[0] +
                                                        h * p.y.stride[1] + w * p.y.stride[2]);
      const T* const places_of_x = x + clip * p.x.stride_n + from_t * p.x.stride[0] + from_h * p.x.stride[1];
#pragma unroll
      for (int k = 0; k < int(kMaxConvKernel); ++k) {
        const int from_w = w * stride_w + k - padding_w;
        if (k >= kernel_w || from_w < 0 || from_w >= int(x_width)) continue;
        const Vector value = *reinterpret_cast<const Vector*>(places_of_x + from_w * p.x.stride[2]);
#pragma unroll
        for (int c = 0; c < kLanes; ++c) sum[k][c] += load_as<C>(g.value[c]) * load_as<C>(value.value[c]);
      }
    }
#pragma unroll
    for (int k = 0; k < int(kMaxConvKernel); ++k) {
      if (k >= kernel_w) break;
      Sums& own = of_thread[row * columns + column];
#pragma unroll
      for (int c = 0; c < kLanes; ++c) own.value[c] = sum[k][c];
      for (uint32_t half = rows / 2; half > 0; half /= 2) {
        __syncthreads();
        if (row >= half) continue;
        const Sums& other = of_thread[(row + half) * columns + column];
#pragma unroll
        for (int c = 0; c < kLanes; ++c) own.value[c] += other.value[c];
      }
      if (row == 0 && exists) {
        C* const to = partials + (int64_t(blockIdx.x) * p.x.channels + channel) * p.taps() +
                      int64_t(blockIdx.y) * kernel_w + k;
#pragma unroll
        for (int c = 0; c < kLanes; ++c) to[c * p.taps()] = own.value[c];
      }
      __syncthreads();  // the sums are read before those of the next tap overwrite them
    }
  }
}

// Grid: chunks of the weights, one for each thread.
template <class C>
__launch_bounds__(kThreads, 1) AF_KERNEL
    depthwise_conv3d_bwd_weight_sum_kernel(const C* partials, C* d_weight, int64_t count, int64_t slices) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  C sum = 0;
  for (int64_t slice = 0; slice < slices; ++slice) sum += partials[slice * count + i];
  d_weight[i] = sum;
}

template <class T, int kLanes>
const char* slices(const DepthwiseConv3d& p, void* partials, void* stream) {
  using C = compute_t<T>;
  const int64_t groups = p.x.channels / kLanes, count = Slices(p).count;
  const int64_t most = p.y.interleaved() ? 128 / (kLanes * sizeof(T)) : 1;
  int64_t columns = 1;
  while (columns < most && columns < groups) columns *= 2;
  const dim3 grid(unsigned(count), unsigned(p.axis[0].kernel * p.axis[1].kernel),
                  unsigned(min_of((groups + columns - 1) / columns, kMaxGridY)));
  return launch(depthwise_conv3d_bwd_weight_slices_kernel<T, kLanes>, grid, dim3(kThreads), 0, stream, p,
                static_cast<C*>(partials), uint32_t(groups), uint32_t(columns));
}

template <class T>
const char* slices_of_lanes(const DepthwiseConv3d& p, void* partials, void* stream) {
  constexpr int kMost = sizeof(T) == 8 ? 2 : 4, kFew = 2;
  const auto lanes = [&](int64_t n) { return has_vectors(p.x, n) && has_vectors(p.y, n); };
  const auto fast = [&] {
    return lanes(kMost) ? slices<T, kMost>(p, partials, stream) : slices<T, kFew>(p, partials, stream);
  };
  const auto any = [&] { return slices<T, 1>(p, partials, stream); };
  return launch_fast_or_any(lanes(kFew), fast, any);
}

}  // namespace

int64_t depthwise_conv3d_bwd_weight_partials_cuda(const DepthwiseConv3d& p) {
  return Slices(p).count * p.x.channels * p.taps();
}

const char* depthwise_conv3d_bwd_weight_cuda(const DepthwiseConv3d& p, void* partials, void* stream) {
  const int64_t weights = p.x.channels * p.taps();
  if (weights == 0) return nullptr;
  if (const char* why = why_not_launched(p)) return why;
  const int64_t count = Slices(p).count;
  if (count > 0) {
    const char* const error = visit_float(p.x.dtype, [&](auto tag) {
      return slices_of_lanes<typename decltype(tag)::type>(p, partials, stream);
    });
    if (error) return error;
  }
  return visit_compute(p.double_precision, [&](auto tag) {
    using C = typename decltype(tag)::type;
    return launch(depthwise_conv3d_bwd_weight_sum_kernel<C>,
                  dim3(unsigned((weights + kThreads - 1) / kThreads)), dim3(kThreads), 0, stream,
                  static_cast<const C*>(partials), static_cast<C*>(p.weight), weights, count);
  });
}

}  // namespace adafocus

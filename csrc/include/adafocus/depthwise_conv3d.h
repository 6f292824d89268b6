// depthwise_conv3d: each channel of a clip convolved with a small kernel of its own, on any device.
//
//   y[n, c, o] = bias[c] + sum over taps k of weight[c, k] x[n, c, o stride + k - padding]             (M22)
//
// with o and k in (t, h, w), and zero where x has no such place. The gradient of x is the same sum over the
// places of y that a place of x went to, that of the weight the sum of y's gradient times x.
#pragma once

#include "adafocus/arithmetic.h"
#include "adafocus/dtype.h"

namespace adafocus {

constexpr int kConvAxes = 3;  // (t, h, w)
constexpr int64_t kMaxConvKernel = 7;

// A batch of clips [N, C, T, H, W] of any strides, which are in elements.
struct Clips {
  void* data;
  DType dtype;
  int64_t count, channels, size[kConvAxes];
  int64_t stride_n, stride_c, stride[kConvAxes];

  AF_HD int64_t places() const { return size[0] * size[1] * size[2]; }
  AF_HD int64_t numel() const { return count * channels * places(); }
  // True if the channels of a place lie side by side.
  AF_HD bool interleaved() const { return stride_c == 1 && channels > 1; }
};

// The kernel on one axis: 1 <= kernel <= kMaxConvKernel, 0 <= padding < kernel.
struct ConvAxis {
  int64_t kernel, stride, padding;
};

struct DepthwiseConv3d {
  Clips x, y;        // of one dtype; in a gradient, the one or the other is that of the result
  void* weight;      // [C, taps] of the compute type, contiguous; or its gradient
  const void* bias;  // [C] of the compute type, or null
  ConvAxis axis[kConvAxes];
  bool double_precision;  // whether the compute type is double

  AF_HD int64_t taps() const { return axis[0].kernel * axis[1].kernel * axis[2].kernel; }
};

// One axis of a sum over taps, from the places that are read to those that are written: of x to y (forward),
// or of y to x (the gradient).
struct TapAxis {
  ConvAxis axis;
  bool forward;
  int64_t from_size, to_size;

  // The place that tap k of place `to` reads, or -1 if there is none.
  AF_HD int64_t source(int64_t to, int64_t k) const {
    int64_t from = forward ? to * axis.stride + k - axis.padding : to + axis.padding - k;
    if (from < 0) return -1;
    if (!forward) {
      if (from % axis.stride != 0) return -1;
      from /= axis.stride;
    }
    return from < from_size ? from : -1;
  }

  // Places that `to` or any later one reads begin here, and those that `to` or any earlier one reads end
  // here.
  AF_HD int64_t source_begin(int64_t to) const {
    const int64_t first = forward ? to * axis.stride - axis.padding : to + axis.padding - (axis.kernel - 1);
    if (first <= 0) return 0;
    return min_of(forward ? first : (first + axis.stride - 1) / axis.stride, from_size);
  }
  AF_HD int64_t source_end(int64_t to) const {
    const int64_t last =
        forward ? to * axis.stride + axis.kernel - 1 - axis.padding : (to + axis.padding) / axis.stride;
    return min_of(last + 1, from_size);
  }
};

AF_HD TapAxis tap_axis(const DepthwiseConv3d& p, int d, bool forward) {
  const int64_t x = p.x.size[d], y = p.y.size[d];
  return {p.axis[d], forward, forward ? x : y, forward ? y : x};
}

// CPU: tasks [begin, end) of so many, so that the caller chooses the threads. The gradient of the weight is
// summed in two stages: by tasks into partial sums, of which there are so many numbers of the compute type,
// and then for channels [begin, end).
int64_t depthwise_conv3d_fwd_tasks_cpu(const DepthwiseConv3d& p);
void depthwise_conv3d_fwd_cpu(const DepthwiseConv3d& p, int64_t begin, int64_t end);
int64_t depthwise_conv3d_bwd_x_tasks_cpu(const DepthwiseConv3d& p);
void depthwise_conv3d_bwd_x_cpu(const DepthwiseConv3d& p, int64_t begin, int64_t end);
int64_t depthwise_conv3d_bwd_weight_tasks_cpu(const DepthwiseConv3d& p);
int64_t depthwise_conv3d_bwd_weight_partials_cpu(const DepthwiseConv3d& p);
void depthwise_conv3d_bwd_weight_cpu(const DepthwiseConv3d& p, void* partials, int64_t begin, int64_t end);
void depthwise_conv3d_bwd_weight_sum_cpu(const DepthwiseConv3d& p, const void* partials, int64_t begin,
                                         int64_t end);

// CUDA: each launches its kernels on a stream (a cudaStream_t) and returns an error text, or null. Partial
// sums as above.
const char* depthwise_conv3d_fwd_cuda(const DepthwiseConv3d& p, void* stream);
const char* depthwise_conv3d_bwd_x_cuda(const DepthwiseConv3d& p, void* stream);
int64_t depthwise_conv3d_bwd_weight_partials_cuda(const DepthwiseConv3d& p);
const char* depthwise_conv3d_bwd_weight_cuda(const DepthwiseConv3d& p, void* partials, void* stream);

}  // namespace adafocus

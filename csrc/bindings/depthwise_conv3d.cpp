// The raw ops of depthwise_conv3d: checks and allocation for any device, and how each device runs its
// kernels.
#include "adafocus/depthwise_conv3d.h"

#include "bindings/tensor.h"

namespace adafocus {
namespace {

struct Cpu {
  static void fwd(const DepthwiseConv3d& p, const Tensor&) {
    const int64_t tasks = depthwise_conv3d_fwd_tasks_cpu(p);
    parallel_over(tasks, p.y.numel() * p.taps() / tasks,
                  [&](int64_t begin, int64_t end) { depthwise_conv3d_fwd_cpu(p, begin, end); });
  }
  static void bwd_x(const DepthwiseConv3d& p, const Tensor&) {
    const int64_t tasks = depthwise_conv3d_bwd_x_tasks_cpu(p);
    parallel_over(tasks, p.y.numel() * p.taps() / tasks,
                  [&](int64_t begin, int64_t end) { depthwise_conv3d_bwd_x_cpu(p, begin, end); });
  }
  static int64_t partials(const DepthwiseConv3d& p) { return depthwise_conv3d_bwd_weight_partials_cpu(p); }
  static void bwd_weight(const DepthwiseConv3d& p, void* partials, const Tensor&) {
    const int64_t tasks = depthwise_conv3d_bwd_weight_tasks_cpu(p);
    parallel_over(tasks, p.y.numel() * p.taps() / max_of<int64_t>(tasks, 1), [&](int64_t begin, int64_t end) {
      depthwise_conv3d_bwd_weight_cpu(p, partials, begin, end);
    });
    parallel_over(p.x.channels, tasks * p.taps(), [&](int64_t begin, int64_t end) {
      depthwise_conv3d_bwd_weight_sum_cpu(p, partials, begin, end);
    });
  }
};

#ifdef USE_CUDA
struct Cuda {
  static void fwd(const DepthwiseConv3d& p, const Tensor& on) {
    launch_on_device_of(on, [&](void* stream) { return depthwise_conv3d_fwd_cuda(p, stream); });
  }
  static void bwd_x(const DepthwiseConv3d& p, const Tensor& on) {
    launch_on_device_of(on, [&](void* stream) { return depthwise_conv3d_bwd_x_cuda(p, stream); });
  }
  static int64_t partials(const DepthwiseConv3d& p) { return depthwise_conv3d_bwd_weight_partials_cuda(p); }
  static void bwd_weight(const DepthwiseConv3d& p, void* partials, const Tensor& on) {
    launch_on_device_of(on,
                        [&](void* stream) { return depthwise_conv3d_bwd_weight_cuda(p, partials, stream); });
  }
};
#endif

// Views [N, C, T, H, W] as a batch of clips.
Clips clips(const char* name, const Tensor& t, void* data) {
  STD_TORCH_CHECK(t.dim() == 5, name, " must be [N, C, T, H, W], got ", t.dim(), " dimensions");
  check_floating(name, t.scalar_type());
  Clips c{};
  c.data = data;
  c.dtype = dtype_of(t.scalar_type());
  c.count = t.size(0);
  c.channels = t.size(1);
  c.stride_n = t.stride(0);
  c.stride_c = t.stride(1);
  for (int d = 0; d < kConvAxes; ++d) {
    c.size[d] = t.size(2 + d);
    c.stride[d] = t.stride(2 + d);
  }
  return c;
}

Clips readable_clips(const char* name, const Tensor& t) {
  return clips(name, t, const_cast<void*>(t.const_data_ptr()));
}

Tensor empty_clips(const Tensor& like, const int64_t (&size)[kConvAxes], bool channels_last) {
  using torch::headeronly::MemoryFormat;
  const MemoryFormat format = channels_last ? MemoryFormat::ChannelsLast3d : MemoryFormat::Contiguous;
  return torch::stable::empty({like.size(0), like.size(1), size[0], size[1], size[2]}, like.scalar_type(),
                              std::nullopt, like.device(), std::nullopt, format);
}

ScalarType compute_type_of(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

void set_axes(DepthwiseConv3d& p, const int64_t (&kernel)[kConvAxes], const int64_t (&stride)[kConvAxes],
              const int64_t (&padding)[kConvAxes]) {
  for (int d = 0; d < kConvAxes; ++d) {
    STD_TORCH_CHECK(kernel[d] >= 1 && kernel[d] <= kMaxConvKernel, "a kernel must have 1 to ", kMaxConvKernel,
                    " taps on each axis, got ", kernel[d]);
    STD_TORCH_CHECK(stride[d] >= 1, "a stride must be at least 1, got ", stride[d]);
    STD_TORCH_CHECK(padding[d] >= 0 && padding[d] < kernel[d], "a padding must be in [0, ", kernel[d],
                    "), got ", padding[d]);
    p.axis[d] = {kernel[d], stride[d], padding[d]};
  }
}

// Places of the result for so many of x, on each axis.
void set_size(const DepthwiseConv3d& p, const int64_t (&x)[kConvAxes], int64_t (&y)[kConvAxes]) {
  for (int d = 0; d < kConvAxes; ++d) {
    const int64_t room = x[d] + 2 * p.axis[d].padding - p.axis[d].kernel;
    STD_TORCH_CHECK(x[d] >= 1 && room >= 0, "x must have no fewer places than the kernel, got ", x[d],
                    " for ", p.axis[d].kernel);
    y[d] = room / p.axis[d].stride + 1;
  }
}

void set_weight(DepthwiseConv3d& p, const Tensor& weight, const Tensor& on,
                const int64_t (&stride)[kConvAxes], const int64_t (&padding)[kConvAxes]) {
  check_same_device("weight", weight, "x", on);
  const ScalarType compute = compute_type_of(on);
  STD_TORCH_CHECK(weight.dim() == 5 && weight.size(0) == on.size(1) && weight.size(1) == 1 &&
                      weight.scalar_type() == compute && weight.is_contiguous(),
                  "weight must be a contiguous [C, 1, kt, kh, kw] of float32 (float64 for float64)");
  p.weight = const_cast<void*>(weight.const_data_ptr());
  p.double_precision = compute == ScalarType::Double;
  set_axes(p, {weight.size(2), weight.size(3), weight.size(4)}, stride, padding);
}

template <class Device>
Tensor fwd(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, int64_t stride_t,
           int64_t stride_h, int64_t stride_w, int64_t padding_t, int64_t padding_h, int64_t padding_w,
           bool channels_last) {
  DepthwiseConv3d p{};
  p.x = readable_clips("x", x);
  set_weight(p, weight, x, {stride_t, stride_h, stride_w}, {padding_t, padding_h, padding_w});
  if (bias) {
    check_same_device("bias", *bias, "x", x);
    STD_TORCH_CHECK(bias->dim() == 1 && bias->size(0) == p.x.channels && bias->is_contiguous() &&
                        bias->scalar_type() == weight.scalar_type(),
                    "bias must be a contiguous [C] of the weight's dtype");
    p.bias = bias->const_data_ptr();
  }
  int64_t size[kConvAxes];
  set_size(p, p.x.size, size);
  Tensor y = empty_clips(x, size, channels_last);
  p.y = clips("y", y, y.mutable_data_ptr());
  if (y.numel() > 0) Device::fwd(p, y);
  return y;
}

template <class Device>
Tensor bwd_x(const Tensor& grad, const Tensor& weight, int64_t frames, int64_t height, int64_t width,
             int64_t stride_t, int64_t stride_h, int64_t stride_w, int64_t padding_t, int64_t padding_h,
             int64_t padding_w, bool channels_last) {
  DepthwiseConv3d p{};
  p.y = readable_clips("grad", grad);
  set_weight(p, weight, grad, {stride_t, stride_h, stride_w}, {padding_t, padding_h, padding_w});
  const int64_t size[] = {frames, height, width};
  int64_t expected[kConvAxes];
  set_size(p, size, expected);
  for (int d = 0; d < kConvAxes; ++d) {
    STD_TORCH_CHECK(p.y.size[d] == expected[d], "grad must be of the result's size, which is ", expected[d],
                    " on axis ", d, ", got ", p.y.size[d]);
  }
  Tensor d_x = empty_clips(grad, size, channels_last);
  p.x = clips("d_x", d_x, d_x.mutable_data_ptr());
  if (d_x.numel() > 0) Device::bwd_x(p, d_x);
  return d_x;
}

template <class Device>
Tensor bwd_weight(const Tensor& grad, const Tensor& x, int64_t kernel_t, int64_t kernel_h, int64_t kernel_w,
                  int64_t stride_t, int64_t stride_h, int64_t stride_w, int64_t padding_t, int64_t padding_h,
                  int64_t padding_w) {
  check_same_device("grad", grad, "x", x);
  DepthwiseConv3d p{};
  p.x = readable_clips("x", x);
  p.y = readable_clips("grad", grad);
  set_axes(p, {kernel_t, kernel_h, kernel_w}, {stride_t, stride_h, stride_w},
           {padding_t, padding_h, padding_w});
  int64_t expected[kConvAxes];
  set_size(p, p.x.size, expected);
  STD_TORCH_CHECK(p.x.dtype == p.y.dtype && p.x.count == p.y.count && p.x.channels == p.y.channels &&
                      p.y.size[0] == expected[0] && p.y.size[1] == expected[1] && p.y.size[2] == expected[2],
                  "grad must be of the size and dtype of the result for x");
  const ScalarType compute = compute_type_of(x);
  p.double_precision = compute == ScalarType::Double;
  Tensor d_weight = torch::stable::empty({p.x.channels, 1, kernel_t, kernel_h, kernel_w}, compute,
                                         std::nullopt, x.device());
  p.weight = d_weight.mutable_data_ptr();
  if (d_weight.numel() > 0) {
    Tensor partials = torch::stable::empty({Device::partials(p)}, compute, std::nullopt, x.device());
    Device::bwd_weight(p, partials.mutable_data_ptr(), d_weight);
  }
  return d_weight;
}

}  // namespace
}  // namespace adafocus

STABLE_TORCH_LIBRARY_IMPL(adafocus, CPU, m) {
  m.impl("_depthwise_conv3d_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cpu>));
  m.impl("_depthwise_conv3d_bwd_x", TORCH_BOX(&adafocus::bwd_x<adafocus::Cpu>));
  m.impl("_depthwise_conv3d_bwd_weight", TORCH_BOX(&adafocus::bwd_weight<adafocus::Cpu>));
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(adafocus, CUDA, m) {
  m.impl("_depthwise_conv3d_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cuda>));
  m.impl("_depthwise_conv3d_bwd_x", TORCH_BOX(&adafocus::bwd_x<adafocus::Cuda>));
  m.impl("_depthwise_conv3d_bwd_weight", TORCH_BOX(&adafocus::bwd_weight<adafocus::Cuda>));
}
#endif

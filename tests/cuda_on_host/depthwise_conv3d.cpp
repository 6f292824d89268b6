// The launchers of depthwise_conv3d for Python.
#include "adafocus/depthwise_conv3d.h"

#include "views.h"

namespace adafocus {
namespace {

Clips clips(const Array& array) {
  Clips c{};
  c.data = array.data();
  c.dtype = dtype_of(array);
  c.count = array.sizes[0];
  c.channels = array.sizes[1];
  c.stride_n = array.strides[0];
  c.stride_c = array.strides[1];
  for (int d = 0; d < kConvAxes; ++d) {
    c.size[d] = array.sizes[2 + d];
    c.stride[d] = array.strides[2 + d];
  }
  return c;
}

DepthwiseConv3d parameters(const Array& x, const Array& y, const Array& weight,
                           const int64_t (&stride)[kConvAxes], const int64_t (&padding)[kConvAxes]) {
  DepthwiseConv3d p{};
  p.x = clips(x);
  p.y = clips(y);
  p.weight = weight.data();
  for (int d = 0; d < kConvAxes; ++d) p.axis[d] = {weight.sizes[2 + d], stride[d], padding[d]};
  p.double_precision = weight.dtype == "float64";
  return p;
}

void depthwise_conv3d_fwd(const Array& y, const Array& x, const Array& weight, const Array* bias,
                          int64_t stride_t, int64_t stride_h, int64_t stride_w, int64_t padding_t,
                          int64_t padding_h, int64_t padding_w) {
  DepthwiseConv3d p =
      parameters(x, y, weight, {stride_t, stride_h, stride_w}, {padding_t, padding_h, padding_w});
  p.bias = bias ? bias->data() : nullptr;
  raise_if(depthwise_conv3d_fwd_cuda(p, nullptr));
}

void depthwise_conv3d_bwd_x(const Array& d_x, const Array& grad, const Array& weight, int64_t stride_t,
                            int64_t stride_h, int64_t stride_w, int64_t padding_t, int64_t padding_h,
                            int64_t padding_w) {
  raise_if(depthwise_conv3d_bwd_x_cuda(
      parameters(d_x, grad, weight, {stride_t, stride_h, stride_w}, {padding_t, padding_h, padding_w}),
      nullptr));
}

void depthwise_conv3d_bwd_weight(const Array& d_weight, const Array& grad, const Array& x, int64_t stride_t,
                                 int64_t stride_h, int64_t stride_w, int64_t padding_t, int64_t padding_h,
                                 int64_t padding_w) {
  const DepthwiseConv3d p =
      parameters(x, grad, d_weight, {stride_t, stride_h, stride_w}, {padding_t, padding_h, padding_w});
  const cuda_on_host::Guarded partials(depthwise_conv3d_bwd_weight_partials_cuda(p) *
                                       (p.double_precision ? sizeof(double) : sizeof(float)));
  raise_if(depthwise_conv3d_bwd_weight_cuda(p, partials.data(), nullptr));
}

const cuda_on_host::Bindings bindings([](pybind11::module_& module) {
  module.def("depthwise_conv3d_fwd", &depthwise_conv3d_fwd);
  module.def("depthwise_conv3d_bwd_x", &depthwise_conv3d_bwd_x);
  module.def("depthwise_conv3d_bwd_weight", &depthwise_conv3d_bwd_weight);
});

}  // namespace
}  // namespace adafocus

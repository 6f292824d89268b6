// The launchers of crop_mean for Python.
#include "adafocus/crop_mean.h"

#include "crop.h"

namespace adafocus {
namespace {

// `means` [K, C], or their gradient, of crops of a size.
CropMean mean_parameters(const CropResize& crop, const Array& means, int64_t out_h, int64_t out_w) {
  CropMean p{crop, means.data(), dtype_of(means)};
  p.crop.patches.count = means.sizes[0];
  p.crop.patches.channels = means.sizes[1];
  p.crop.patches.height = out_h;
  p.crop.patches.width = out_w;
  return p;
}

void crop_mean_fwd(const Array& out, const Array& frames, const Array& boxes, const Array* frame_index,
                   const Array* affine, int64_t out_h, int64_t out_w, const std::string& padding) {
  const CropResize crop = parameters(images(frames), boxes, frame_index, affine, padding);
  raise_if(crop_mean_fwd_cuda(mean_parameters(crop, out, out_h, out_w), nullptr));
}

void crop_mean_bwd_boxes(const Array& d_boxes, const Array& grad, const Array& frames, const Array& boxes,
                         const Array* frame_index, const Array* affine, int64_t out_h, int64_t out_w,
                         const std::string& padding) {
  const CropResize crop = parameters(images(frames), boxes, frame_index, affine, padding);
  raise_if(crop_mean_bwd_boxes_cuda(mean_parameters(crop, grad, out_h, out_w), d_boxes.data(), nullptr));
}

void crop_mean_bwd_frames(const Array& d_frames, const Array& grad, const Array& boxes,
                          const Array* frame_index, const Array* affine, int64_t out_h, int64_t out_w,
                          const std::string& padding) {
  const CropResize crop = parameters(images(d_frames), boxes, frame_index, affine, padding);
  const CropMean p = mean_parameters(crop, grad, out_h, out_w);
  raise_if(crop_mean_bwd_frames_cuda(p, room_for_chains(p.crop).as<int32_t>(), nullptr));
}

const cuda_on_host::Bindings bindings([](pybind11::module_& module) {
  module.def("crop_mean_fwd", &crop_mean_fwd);
  module.def("crop_mean_bwd_boxes", &crop_mean_bwd_boxes);
  module.def("crop_mean_bwd_frames", &crop_mean_bwd_frames);
});

}  // namespace
}  // namespace adafocus

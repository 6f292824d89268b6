// The launchers of crop_resize for Python.
#include "adafocus/crop_resize.h"

#include "crop.h"

namespace adafocus {
namespace {

void crop_resize_fwd(const Array& out, const Array& frames, const Array& boxes, const Array* frame_index,
                     const Array* affine, const std::string& padding, bool antialias) {
  CropResize p = parameters(images(frames), boxes, frame_index, affine, padding);
  p.antialias = antialias;
  p.patches = images(out);
  raise_if(crop_resize_fwd_cuda(p, nullptr));
}

void crop_resize_bwd_boxes(const Array& d_boxes, const Array& grad, const Array& frames, const Array& boxes,
                           const Array* frame_index, const Array* affine, const std::string& padding,
                           bool antialias) {
  CropResize p = parameters(images(frames), boxes, frame_index, affine, padding);
  p.antialias = antialias;
  p.patches = images(grad);
  raise_if(crop_resize_bwd_boxes_cuda(p, d_boxes.data(), nullptr));
}

void crop_resize_bwd_frames(const Array& d_frames, const Array& grad, const Array& boxes,
                            const Array* frame_index, const Array* affine, const std::string& padding,
                            bool antialias) {
  CropResize p = parameters(images(d_frames), boxes, frame_index, affine, padding);
  p.antialias = antialias;
  p.patches = images(grad);
  raise_if(crop_resize_bwd_frames_cuda(p, room_for_chains(p).as<int32_t>(), nullptr));
}

const cuda_on_host::Bindings bindings([](pybind11::module_& module) {
  module.def("crop_resize_fwd", &crop_resize_fwd);
  module.def("crop_resize_fwd_out", &crop_resize_fwd);
  module.def("crop_resize_bwd_boxes", &crop_resize_bwd_boxes);
  module.def("crop_resize_bwd_frames", &crop_resize_bwd_frames);
});

}  // namespace
}  // namespace adafocus

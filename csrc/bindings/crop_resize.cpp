// The raw ops of crop_resize: checks and allocation for any device, and how each device runs its kernels.
#include "adafocus/crop_resize.h"

#include "bindings/crop.h"

namespace adafocus {
namespace {

struct Cpu {
  static void fwd(const CropResize& p, const Tensor&) {
    parallel_over(p.num_boxes(), elements_of_a_patch(p),
                  [&](int64_t begin, int64_t end) { crop_resize_fwd_cpu(p, begin, end); });
  }
  static void bwd_boxes(const CropResize& p, Tensor& d_boxes) {
    void* const out = d_boxes.mutable_data_ptr();
    parallel_over(p.num_boxes(), elements_of_a_patch(p),
                  [&](int64_t begin, int64_t end) { crop_resize_bwd_boxes_cpu(p, out, begin, end); });
  }
  static void bwd_frames(const CropResize& p, const Tensor&) {
    parallel_over_frame_tasks(p, [&](BoxesByFrame boxes, int64_t begin, int64_t end) {
      crop_resize_bwd_frames_cpu(p, boxes, begin, end);
    });
  }

 private:
  static int64_t elements_of_a_patch(const CropResize& p) {
    return p.patches.channels * p.patches.height * p.patches.width;
  }
};

#ifdef USE_CUDA
struct Cuda {
  static void fwd(const CropResize& p, const Tensor& out) {
    launch_on_device_of(out, [&](void* stream) { return crop_resize_fwd_cuda(p, stream); });
  }
  static void bwd_boxes(const CropResize& p, Tensor& d_boxes) {
    void* const out = d_boxes.mutable_data_ptr();
    launch_on_device_of(d_boxes, [&](void* stream) { return crop_resize_bwd_boxes_cuda(p, out, stream); });
  }
  static void bwd_frames(const CropResize& p, const Tensor& d_frames) {
    const Tensor chains = empty_chains(p, d_frames);
    int32_t* const links = static_cast<int32_t*>(chains.mutable_data_ptr());
    launch_on_device_of(d_frames,
                        [&](void* stream) { return crop_resize_bwd_frames_cuda(p, links, stream); });
  }
};
#endif

void check_patches(const char* name, const Tensor& patches, const Tensor& boxes) {
  STD_TORCH_CHECK(patches.dim() == 4 && patches.size(0) == boxes.size(0), name, " must be [K, C, P_h, P_w]");
}

// The parameters of a call that reads frames, without its patches.
CropResize reading(const Tensor& frames, const Tensor& boxes, const OptionalTensor& frame_index,
                   const OptionalTensor& affine, const std::string& padding, bool antialias) {
  const ImageBatch source = readable_frames(frames);
  CropResize p = crop_parameters(frames, boxes, frame_index, affine, source.channels, padding);
  p.frames = source;
  p.antialias = antialias;
  return p;
}

template <class Device>
void write_patches(CropResize p, Tensor& out) {
  p.patches = writable(out);
  if (out.numel() > 0) Device::fwd(p, out);
}

template <class Device>
Tensor fwd(const Tensor& frames, const Tensor& boxes, const OptionalTensor& frame_index,
           const OptionalTensor& affine, int64_t out_h, int64_t out_w, const std::string& padding,
           bool antialias, ScalarType out_dtype, bool channels_last) {
  const CropResize p = reading(frames, boxes, frame_index, affine, padding, antialias);
  check_output_size(out_h, out_w);
  Tensor out = empty_images(frames, boxes.size(0), p.frames.channels, out_h, out_w, out_dtype, channels_last);
  write_patches<Device>(p, out);
  return out;
}

template <class Device>
void fwd_out(Tensor out, const Tensor& frames, const Tensor& boxes, const OptionalTensor& frame_index,
             const OptionalTensor& affine, const std::string& padding, bool antialias) {
  const CropResize p = reading(frames, boxes, frame_index, affine, padding, antialias);
  check_same_device("out", out, "the images", frames);
  check_patches("out", out, boxes);
  check_channels("out", out, p.frames);
  check_output_size(out.size(2), out.size(3));
  write_patches<Device>(p, out);
}

template <class Device>
Tensor bwd_boxes(const Tensor& grad, const Tensor& frames, const Tensor& boxes,
                 const OptionalTensor& frame_index, const OptionalTensor& affine, const std::string& padding,
                 bool antialias) {
  CropResize p = reading(frames, boxes, frame_index, affine, padding, antialias);
  check_same_device("grad", grad, "the images", frames);
  check_patches("grad", grad, boxes);
  check_channels("grad", grad, p.frames);
  p.patches = readable(grad);
  Tensor d_boxes = empty_like_boxes(boxes);
  if (d_boxes.numel() > 0) Device::bwd_boxes(p, d_boxes);
  return d_boxes;
}

template <class Device>
Tensor bwd_frames(const Tensor& grad, const Tensor& boxes, const OptionalTensor& frame_index,
                  const OptionalTensor& affine, int64_t num_frames, int64_t height, int64_t width,
                  const std::string& padding, bool antialias, ScalarType frames_dtype, bool channels_last) {
  check_patches("grad", grad, boxes);
  CropResize p = crop_parameters(grad, boxes, frame_index, affine, grad.size(1), padding);
  Tensor d_frames = empty_images(grad, num_frames, grad.size(1), height, width, frames_dtype, channels_last);
  p.frames = writable(d_frames);
  p.patches = readable(grad);
  p.antialias = antialias;
  if (d_frames.numel() > 0) Device::bwd_frames(p, d_frames);
  return d_frames;
}

}  // namespace
}  // namespace adafocus

STABLE_TORCH_LIBRARY_IMPL(adafocus, CPU, m) {
  m.impl("_crop_resize_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cpu>));
  m.impl("_crop_resize_fwd_out", TORCH_BOX(&adafocus::fwd_out<adafocus::Cpu>));
  m.impl("_crop_resize_bwd_boxes", TORCH_BOX(&adafocus::bwd_boxes<adafocus::Cpu>));
  m.impl("_crop_resize_bwd_frames", TORCH_BOX(&adafocus::bwd_frames<adafocus::Cpu>));
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(adafocus, CUDA, m) {
  m.impl("_crop_resize_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cuda>));
  m.impl("_crop_resize_fwd_out", TORCH_BOX(&adafocus::fwd_out<adafocus::Cuda>));
  m.impl("_crop_resize_bwd_boxes", TORCH_BOX(&adafocus::bwd_boxes<adafocus::Cuda>));
  m.impl("_crop_resize_bwd_frames", TORCH_BOX(&adafocus::bwd_frames<adafocus::Cuda>));
}
#endif

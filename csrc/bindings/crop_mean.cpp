// The raw ops of crop_mean: checks and allocation for any device, and how each device runs its kernels.
#include "adafocus/crop_mean.h"

#include "bindings/crop.h"

namespace adafocus {
namespace {

struct Cpu {
  static void fwd(const CropMean& p, const Tensor&) {
    parallel_over(p.crop.num_boxes(), elements_of_a_frame(p),
                  [&](int64_t begin, int64_t end) { crop_mean_fwd_cpu(p, begin, end); });
  }
  static void bwd_boxes(const CropMean& p, Tensor& d_boxes) {
    void* const out = d_boxes.mutable_data_ptr();
    parallel_over(p.crop.num_boxes(), elements_of_a_frame(p),
                  [&](int64_t begin, int64_t end) { crop_mean_bwd_boxes_cpu(p, out, begin, end); });
  }
  static void bwd_frames(const CropMean& p, const Tensor&) {
    parallel_over_frame_tasks(p.crop, [&](BoxesByFrame boxes, int64_t begin, int64_t end) {
      crop_mean_bwd_frames_cpu(p, boxes, begin, end);
    });
  }

 private:
  static int64_t elements_of_a_frame(const CropMean& p) {
    return p.crop.frames.channels * p.crop.frames.height * p.crop.frames.width;
  }
};

#ifdef USE_CUDA
struct Cuda {
  static void fwd(const CropMean& p, const Tensor& out) {
    launch_on_device_of(out, [&](void* stream) { return crop_mean_fwd_cuda(p, stream); });
  }
  static void bwd_boxes(const CropMean& p, Tensor& d_boxes) {
    void* const out = d_boxes.mutable_data_ptr();
    launch_on_device_of(d_boxes, [&](void* stream) { return crop_mean_bwd_boxes_cuda(p, out, stream); });
  }
  static void bwd_frames(const CropMean& p, const Tensor& d_frames) {
    const Tensor chains = empty_chains(p.crop, d_frames);
    int32_t* const links = static_cast<int32_t*>(chains.mutable_data_ptr());
    launch_on_device_of(d_frames, [&](void* stream) { return crop_mean_bwd_frames_cuda(p, links, stream); });
  }
};
#endif

// Crops that are not made, which have sizes only.
ImageBatch crop_sizes(int64_t boxes, int64_t channels, int64_t out_h, int64_t out_w) {
  check_output_size(out_h, out_w);
  ImageBatch crops{};
  crops.count = boxes;
  crops.channels = channels;
  crops.height = out_h;
  crops.width = out_w;
  return crops;
}

void check_means(const Tensor& grad, const Tensor& boxes) {
  STD_TORCH_CHECK(grad.dim() == 2 && grad.size(0) == boxes.size(0) && grad.is_contiguous(),
                  "grad must be a contiguous [K, C]");
}

template <class Device>
Tensor fwd(const Tensor& frames, const Tensor& boxes, const OptionalTensor& frame_index,
           const OptionalTensor& affine, int64_t out_h, int64_t out_w, const std::string& padding,
           ScalarType out_dtype) {
  const ImageBatch source = readable_frames(frames);
  CropMean p{};
  p.crop = crop_parameters(frames, boxes, frame_index, affine, source.channels, padding);
  p.crop.frames = source;
  p.crop.patches = crop_sizes(boxes.size(0), source.channels, out_h, out_w);
  Tensor out =
      torch::stable::empty({boxes.size(0), source.channels}, out_dtype, std::nullopt, frames.device());
  p.means = out.mutable_data_ptr();
  p.means_dtype = dtype_of(out_dtype);
  if (out.numel() > 0) Device::fwd(p, out);
  return out;
}

template <class Device>
Tensor bwd_boxes(const Tensor& grad, const Tensor& frames, const Tensor& boxes,
                 const OptionalTensor& frame_index, const OptionalTensor& affine, int64_t out_h,
                 int64_t out_w, const std::string& padding) {
  const ImageBatch source = readable_frames(frames);
  CropMean p{};
  p.crop = crop_parameters(frames, boxes, frame_index, affine, source.channels, padding);
  check_same_device("grad", grad, "the images", frames);
  check_means(grad, boxes);
  check_channels("grad", grad, source);
  p.crop.frames = source;
  p.crop.patches = crop_sizes(boxes.size(0), source.channels, out_h, out_w);
  p.means = const_cast<void*>(grad.const_data_ptr());
  p.means_dtype = dtype_of(grad.scalar_type());
  Tensor d_boxes = empty_like_boxes(boxes);
  if (d_boxes.numel() > 0) Device::bwd_boxes(p, d_boxes);
  return d_boxes;
}

template <class Device>
Tensor bwd_frames(const Tensor& grad, const Tensor& boxes, const OptionalTensor& frame_index,
                  const OptionalTensor& affine, int64_t num_frames, int64_t height, int64_t width,
                  int64_t out_h, int64_t out_w, const std::string& padding, ScalarType frames_dtype,
                  bool channels_last) {
  check_means(grad, boxes);
  const int64_t channels = grad.size(1);
  CropMean p{};
  p.crop = crop_parameters(grad, boxes, frame_index, affine, channels, padding);
  Tensor d_frames = empty_images(grad, num_frames, channels, height, width, frames_dtype, channels_last);
  p.crop.frames = writable(d_frames);
  p.crop.patches = crop_sizes(boxes.size(0), channels, out_h, out_w);
  p.means = const_cast<void*>(grad.const_data_ptr());
  p.means_dtype = dtype_of(grad.scalar_type());
  if (d_frames.numel() > 0) Device::bwd_frames(p, d_frames);
  return d_frames;
}

}  // namespace
}  // namespace adafocus

STABLE_TORCH_LIBRARY_IMPL(adafocus, CPU, m) {
  m.impl("_crop_mean_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cpu>));
  m.impl("_crop_mean_bwd_boxes", TORCH_BOX(&adafocus::bwd_boxes<adafocus::Cpu>));
  m.impl("_crop_mean_bwd_frames", TORCH_BOX(&adafocus::bwd_frames<adafocus::Cpu>));
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(adafocus, CUDA, m) {
  m.impl("_crop_mean_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cuda>));
  m.impl("_crop_mean_bwd_boxes", TORCH_BOX(&adafocus::bwd_boxes<adafocus::Cuda>));
  m.impl("_crop_mean_bwd_frames", TORCH_BOX(&adafocus::bwd_frames<adafocus::Cuda>));
}
#endif

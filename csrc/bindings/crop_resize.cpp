// The raw ops of crop_resize for CPU tensors: checks, allocation, threads.
#include "adafocus/crop_resize.h"

#include <memory>

#include "bindings/tensor.h"

namespace adafocus {
namespace {

// Below this many output elements a second thread costs more than it brings.
constexpr int64_t kMinElementsPerThread = 32768;

// Everything but the two image batches. The tensors outlive the call that uses the result.
CropResize parameters(const Tensor& boxes, const std::optional<Tensor>& frame_index,
                      const std::optional<Tensor>& affine, int64_t channels, const std::string& padding) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4 && boxes.is_contiguous(),
                  "boxes must be a contiguous [K, 4]");
  const ScalarType compute = boxes.scalar_type();
  STD_TORCH_CHECK(compute == ScalarType::Float || compute == ScalarType::Double,
                  "boxes must be float32 or float64 here");
  STD_TORCH_CHECK(padding == "zeros" || padding == "border", "padding must be zeros or border, got ",
                  padding);
  CropResize p{};
  p.boxes = boxes.const_data_ptr();
  p.double_precision = compute == ScalarType::Double;
  p.border = padding == "border";
  if (frame_index) {
    const ScalarType type = frame_index->scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Int || type == ScalarType::Long,
                    "frame_index must be int32 or int64");
    STD_TORCH_CHECK(
        frame_index->dim() == 1 && frame_index->size(0) == boxes.size(0) && frame_index->is_contiguous(),
        "frame_index must be a contiguous [K]");
    p.frame_index = frame_index->const_data_ptr();
    p.index_type = type == ScalarType::Int ? IndexType::kInt32 : IndexType::kInt64;
  }
  if (affine) {
    STD_TORCH_CHECK(affine->dim() == 2 && affine->size(0) == 2 && affine->size(1) == channels &&
                        affine->is_contiguous() && affine->scalar_type() == compute,
                    "affine must be a contiguous [2, C] of the boxes' dtype");
    p.affine = affine->const_data_ptr();
  }
  return p;
}

void check_patches(const Tensor& grad, const Tensor& boxes) {
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == boxes.size(0), "grad must be [K, C, P_h, P_w]");
}

int64_t boxes_per_thread(const ImageBatch& patches) {
  const int64_t elements = patches.channels * patches.height * patches.width;
  return elements > 0 ? 1 + kMinElementsPerThread / elements : 1;
}

bool reads_nothing(const CropResize& p) {
  return p.frames.count * p.frames.channels * p.frames.height * p.frames.width == 0 ||
         p.patches.channels == 0;
}

Tensor crop_resize_fwd(const Tensor& frames, const Tensor& boxes, const std::optional<Tensor>& frame_index,
                       const std::optional<Tensor>& affine, int64_t out_h, int64_t out_w,
                       const std::string& padding, ScalarType out_dtype, bool channels_last) {
  const ImageBatch source = readable(frames);
  CropResize p = parameters(boxes, frame_index, affine, source.channels, padding);
  STD_TORCH_CHECK(out_h > 0 && out_w > 0, "the output size must be positive, got ", out_h, " x ", out_w);
  Tensor out = empty_images(frames, boxes.size(0), source.channels, out_h, out_w, out_dtype, channels_last);
  p.frames = source;
  p.patches = writable(out);
  if (reads_nothing(p)) p.frames.count = 0;  // no box has a frame
  torch::stable::parallel_for(0, p.num_boxes(), boxes_per_thread(p.patches),
                              [&](int64_t begin, int64_t end) { crop_resize_fwd_cpu(p, begin, end); });
  return out;
}

Tensor crop_resize_bwd_boxes(const Tensor& grad, const Tensor& frames, const Tensor& boxes,
                             const std::optional<Tensor>& frame_index, const std::optional<Tensor>& affine,
                             const std::string& padding) {
  const ImageBatch source = readable(frames);
  CropResize p = parameters(boxes, frame_index, affine, source.channels, padding);
  check_patches(grad, boxes);
  STD_TORCH_CHECK(grad.size(1) == source.channels, "grad must have the frames' channels");
  p.frames = source;
  p.patches = readable(grad);
  if (reads_nothing(p)) p.frames.count = 0;
  Tensor d_boxes =
      torch::stable::empty({boxes.size(0), 4}, boxes.scalar_type(), std::nullopt, boxes.device());
  void* out = d_boxes.mutable_data_ptr();
  torch::stable::parallel_for(0, p.num_boxes(), boxes_per_thread(p.patches), [&](int64_t begin, int64_t end) {
    crop_resize_bwd_boxes_cpu(p, out, begin, end);
  });
  return d_boxes;
}

// A counting sort of the valid boxes by frame, which keeps their order.
class BoxSort {
 public:
  explicit BoxSort(const CropResize& p)
      : start_(new int64_t[p.frames.count + 1]()), box_(new int64_t[p.num_boxes()]) {
    for (int64_t k = 0; k < p.num_boxes(); ++k) {
      if (valid(p, k)) ++start_[p.frame_of(k) + 1];
    }
    for (int64_t n = 0; n < p.frames.count; ++n) start_[n + 1] += start_[n];
    const std::unique_ptr<int64_t[]> next(new int64_t[p.frames.count + 1]);
    for (int64_t n = 0; n <= p.frames.count; ++n) next[n] = start_[n];
    for (int64_t k = 0; k < p.num_boxes(); ++k) {
      if (valid(p, k)) box_[next[p.frame_of(k)]++] = k;
    }
  }
  BoxesByFrame view() const { return {start_.get(), box_.get()}; }

 private:
  static bool valid(const CropResize& p, int64_t k) {
    return p.double_precision ? p.valid<double>(k) : p.valid<float>(k);
  }
  std::unique_ptr<int64_t[]> start_, box_;
};

Tensor crop_resize_bwd_frames(const Tensor& grad, const Tensor& boxes,
                              const std::optional<Tensor>& frame_index, const std::optional<Tensor>& affine,
                              int64_t num_frames, int64_t height, int64_t width, const std::string& padding,
                              ScalarType frames_dtype, bool channels_last) {
  check_patches(grad, boxes);
  CropResize p = parameters(boxes, frame_index, affine, grad.size(1), padding);
  Tensor d_frames = empty_images(grad, num_frames, grad.size(1), height, width, frames_dtype, channels_last);
  p.frames = writable(d_frames);
  p.patches = readable(grad);
  if (reads_nothing(p)) return d_frames;
  const BoxSort boxes_by_frame(p);
  torch::stable::parallel_for(0, crop_resize_bwd_frames_tasks(p), 1, [&](int64_t begin, int64_t end) {
    crop_resize_bwd_frames_cpu(p, boxes_by_frame.view(), begin, end);
  });
  return d_frames;
}

}  // namespace
}  // namespace adafocus

STABLE_TORCH_LIBRARY_IMPL(adafocus, CPU, m) {
  m.impl("_crop_resize_fwd", TORCH_BOX(&adafocus::crop_resize_fwd));
  m.impl("_crop_resize_bwd_boxes", TORCH_BOX(&adafocus::crop_resize_bwd_boxes));
  m.impl("_crop_resize_bwd_frames", TORCH_BOX(&adafocus::crop_resize_bwd_frames));
}

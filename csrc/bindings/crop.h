// What the ops over boxes, crop_resize and crop_mean, share: checks and parameters.
#pragma once

#include <memory>

#include "adafocus/crop_resize.h"
#include "bindings/tensor.h"

namespace adafocus {

// Everything but the two image batches, of which `images` is the one that is given. The tensors outlive the
// call that uses the result.
inline CropResize parameters(const Tensor& images, const Tensor& boxes, const OptionalTensor& frame_index,
                             const OptionalTensor& affine, int64_t channels, const std::string& padding) {
  check_same_device("boxes", boxes, "the images", images);
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
    check_same_device("frame_index", *frame_index, "the images", images);
    STD_TORCH_CHECK(
        frame_index->dim() == 1 && frame_index->size(0) == boxes.size(0) && frame_index->is_contiguous(),
        "frame_index must be a contiguous [K]");
    p.frame_index = frame_index->const_data_ptr();
    p.index_type = index_type_of("frame_index", frame_index->scalar_type());
  }
  if (affine) {
    check_same_device("affine", *affine, "the images", images);
    STD_TORCH_CHECK(affine->dim() == 2 && affine->size(0) == 2 && affine->size(1) == channels &&
                        affine->is_contiguous() && affine->scalar_type() == compute,
                    "affine must be a contiguous [2, C] of the boxes' dtype");
    p.affine = affine->const_data_ptr();
  }
  return p;
}

inline void check_output_size(int64_t out_h, int64_t out_w) {
  STD_TORCH_CHECK(out_h > 0 && out_w > 0, "the output size must be positive, got ", out_h, " x ", out_w);
}

inline Tensor empty_like_boxes(const Tensor& boxes) {
  return torch::stable::empty({boxes.size(0), 4}, boxes.scalar_type(), std::nullopt, boxes.device());
}

// Whether no pixel can be read: then no box has a frame.
inline bool reads_nothing(const ImageBatch& frames) {
  return frames.count * frames.channels * frames.height * frames.width == 0;
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

// Calls f(boxes, begin, end) for ranges of the tasks of the gradient of the frames, in threads.
template <class F>
void for_frame_tasks(const CropResize& p, const F& f) {
  const BoxSort boxes(p);
  torch::stable::parallel_for(0, crop_resize_bwd_frames_tasks(p), 1,
                              [&](int64_t begin, int64_t end) { f(boxes.view(), begin, end); });
}

}  // namespace adafocus

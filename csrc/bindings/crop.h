// Checks and parameters of the ops over boxes, crop_resize and crop_mean.
#pragma once

#include <memory>

#include "adafocus/crop_resize.h"
#include "bindings/tensor.h"

namespace adafocus {

// The parameters of a call without its two image batches; `images` is the one of them that is given. The
// tensors outlive the call that uses the result.
inline CropResize crop_parameters(const Tensor& images, const Tensor& boxes,
                                  const OptionalTensor& frame_index, const OptionalTensor& affine,
                                  int64_t channels, const std::string& padding) {
  check_same_device("boxes", boxes, "the images", images);
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4 && boxes.is_contiguous(),
                  "boxes must be a contiguous [K, 4]");
  const ScalarType compute = boxes.scalar_type();
  STD_TORCH_CHECK(is_compute_type(compute), "boxes must be float32 or float64 here");
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

// Frames to read. If they have no pixel, no box has a frame: their count is 0 then.
inline ImageBatch readable_frames(const Tensor& frames) {
  ImageBatch batch = readable(frames);
  if (batch.channels * batch.height * batch.width == 0) batch.count = 0;
  return batch;
}

inline void check_channels(const char* name, const Tensor& t, const ImageBatch& frames) {
  STD_TORCH_CHECK(t.size(1) == frames.channels, name, " must have the frames' channels");
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
    const std::unique_ptr<int64_t[]> next(new int64_t[p.frames.count + 1]);  // [N + 1]
    for (int64_t n = 0; n <= p.frames.count; ++n) next[n] = start_[n];
    for (int64_t k = 0; k < p.num_boxes(); ++k) {
      if (valid(p, k)) box_[next[p.frame_of(k)]++] = k;
    }
  }
  BoxesByFrame view() const { return {start_.get(), box_.get()}; }

 private:
  static bool valid(const CropResize& p, int64_t k) {
    return visit_compute(p.double_precision,
                         [&](auto tag) { return p.valid<typename decltype(tag)::type>(k); });
  }
  std::unique_ptr<int64_t[]> start_;  // [N + 1]
  std::unique_ptr<int64_t[]> box_;    // [K], of which the valid ones are set
};

// Room for the chains of a call's boxes on the GPU that `frames` are on.
inline Tensor empty_chains(const CropResize& p, const Tensor& frames) {
  const int64_t places = p.index_type == IndexType::kNone ? 0 : p.frames.count + p.num_boxes();
  return torch::stable::empty({places}, ScalarType::Int, std::nullopt, frames.device());
}

// Calls f(boxes, begin, end) for ranges of the tasks of the gradient of the frames, in threads.
template <class F>
void parallel_over_frame_tasks(const CropResize& p, const F& f) {
  const BoxSort boxes(p);
  torch::stable::parallel_for(0, crop_resize_bwd_frames_tasks_cpu(p), 1,
                              [&](int64_t begin, int64_t end) { f(boxes.view(), begin, end); });
}

}  // namespace adafocus

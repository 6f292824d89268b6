// crop_mean: the mean of a crop, without the crop, on any device.
//
// The crop is A_y v A_x^T with weights A_y [P_h, H] and A_x [P_w, W]; its mean is w_y v w_x^T with the
// means of their columns, w_y [H] and w_x [W].
#pragma once

#include "adafocus/crop_resize.h"

namespace adafocus {

struct CropMean {
  CropResize crop;  // patches has sizes only: [K, C, P_h, P_w]
  void* means;      // [K, C], written (forward), or their gradient, read (backward)
  DType means_dtype;
};

// CPU: each call works on a range, so that the caller chooses the threads.

// Boxes [begin, end) of the forward, and of d_boxes, [K, 4] of the compute type.
void crop_mean_fwd_cpu(const CropMean& p, int64_t begin, int64_t end);
void crop_mean_bwd_boxes_cpu(const CropMean& p, void* d_boxes, int64_t begin, int64_t end);

// Tasks [begin, end) of crop_resize_bwd_frames_tasks_cpu.
void crop_mean_bwd_frames_cpu(const CropMean& p, BoxesByFrame boxes, int64_t begin, int64_t end);

// CUDA: each launches its kernel on a stream (a cudaStream_t) and returns an error text, or null.

const char* crop_mean_fwd_cuda(const CropMean& p, void* stream);
const char* crop_mean_bwd_boxes_cuda(const CropMean& p, void* d_boxes, void* stream);
// `chains` has N + K places if there is a frame_index.
const char* crop_mean_bwd_frames_cuda(CropMean p, int32_t* chains, void* stream);

}  // namespace adafocus

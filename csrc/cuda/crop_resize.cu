// crop_resize on CUDA: the kernel that suits each call.
#include "cuda/crop.cuh"
#include "cuda/crop_resize_kernels.h"

namespace adafocus {

const char* crop_resize_fwd_cuda(const CropResize& p, void* stream) {
  if (p.num_boxes() == 0) return nullptr;
  if (const char* why = why_not_launched(p)) return why;
  return can_stage_fwd(p) ? crop_resize_fwd_staged(p, stream) : crop_resize_fwd_any(p, stream);
}

const char* crop_resize_bwd_boxes_cuda(const CropResize& p, void* d_boxes, void* stream) {
  if (p.num_boxes() == 0) return nullptr;
  if (const char* why = why_not_launched(p)) return why;
  return can_stage_bwd_boxes(p) ? crop_resize_bwd_boxes_staged(p, d_boxes, stream)
                                : crop_resize_bwd_boxes_any(p, d_boxes, stream);
}

const char* crop_resize_bwd_frames_cuda(const CropResize& p, void* stream) {
  if (p.frames.count == 0) return nullptr;
  if (const char* why = why_not_launched(p)) return why;
  return can_tile_bwd_frames(p) ? crop_resize_bwd_frames_tiled(p, stream)
                                : crop_resize_bwd_frames_any(p, stream);
}

}  // namespace adafocus

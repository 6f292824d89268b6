// crop_resize: the parameters of its kernels, on any device, and the launchers.
#pragma once

#include "adafocus/dtype.h"
#include "adafocus/geometry.h"
#include "adafocus/image_batch.h"

namespace adafocus {

// The boxes of each frame on CUDA: first[n], and from each to the next, in their order; -1 ends a chain.
struct BoxChains {
  int32_t* first;  // [N]
  int32_t* next;   // [K]
};

struct CropResize {
  ImageBatch frames;        // [N, C, H, W] read (forward, boxes), or their gradient, written (frames)
  ImageBatch patches;       // [K, C, P_h, P_w] written (forward), or their gradient, read (backward)
  const void* boxes;        // [K, 4] of the compute type
  const void* affine;       // [2, C] of the compute type: scale and shift of each channel, or null
  const void* frame_index;  // [K], or null with IndexType::kNone: box k is cut from frame k
  IndexType index_type;
  bool double_precision;  // the compute type is double, else float
  bool border;            // padding: the nearest edge pixel, else zero
  bool antialias;         // AntialiasedFootprint, else BilinearFootprint
  BoxChains chains;       // in the gradient of frames with a frame_index, on CUDA alone

  AF_HD int64_t num_boxes() const { return patches.count; }

  // Offset of the first element of patch k: patches have one leading dimension.
  AF_HD int64_t patch_offset(int64_t k) const { return k * patches.lead_stride[0]; }

  // The number of a box's frame, which may not exist.
  AF_HD int64_t frame_of(int64_t k) const {
    return index_type == IndexType::kNone ? k : load_index(frame_index, index_type, k);
  }

  template <class C>
  AF_HD Box<C> box(int64_t k) const {
    const C* b = static_cast<const C*>(boxes) + 4 * k;
    return {b[0], b[1], b[2], b[3]};
  }

  // True if the box's numbers are finite and its frame exists; the others give NaN and no gradient.
  template <class C>
  AF_HD bool valid(int64_t k) const {
    const int64_t n = frame_of(k);
    return n >= 0 && n < frames.count && box<C>(k).finite();
  }
};

// CPU: each call works on a range, so that the caller chooses the threads.

// Boxes [begin, end) of the forward.
void crop_resize_fwd_cpu(const CropResize& p, int64_t begin, int64_t end);

// Boxes [begin, end) of d_boxes, [K, 4] of the compute type.
void crop_resize_bwd_boxes_cpu(const CropResize& p, void* d_boxes, int64_t begin, int64_t end);

// Boxes sorted by frame: those of frame n are box[start[n]], ..., box[start[n + 1] - 1], in index order.
struct BoxesByFrame {
  const int64_t* start;  // [N + 1]
  const int64_t* box;    // [at most K], valid boxes only
};

// The gradient of the frames falls into independent tasks, one for each frame and chunk of channels.
int64_t crop_resize_bwd_frames_tasks_cpu(const CropResize& p);
void crop_resize_bwd_frames_cpu(const CropResize& p, BoxesByFrame boxes, int64_t begin, int64_t end);

// CUDA: each launches its kernel on a stream (a cudaStream_t) and returns an error text, or null.

const char* crop_resize_fwd_cuda(const CropResize& p, void* stream);
const char* crop_resize_bwd_boxes_cuda(const CropResize& p, void* d_boxes, void* stream);
// `chains` has N + K places if there is a frame_index.
const char* crop_resize_bwd_frames_cuda(CropResize p, int32_t* chains, void* stream);

}  // namespace adafocus

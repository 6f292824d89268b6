// temporal_shift: a part of the channels moved one frame along time, on any device.
#pragma once

#include "adafocus/image_batch.h"

namespace adafocus {

constexpr int kShiftGroups = 3;

// Channels [0, fold) of frame t come from frame t + 1 of its clip and channels [fold, 2 fold) from t - 1, or,
// if `inverse`, the other way round (which is also the gradient); zero beyond the ends of the clip.
struct TemporalShift {
  ImageBatch from, to;       // [B * num_frames, C, H, W] of the same dtype; `to` is dense
  int64_t num_frames, fold;  // 2 fold <= C
  bool inverse;

  // The channels in groups that come from one frame each: the first fold, the next fold, and the rest.
  AF_HD int64_t group_begin(int group) const { return group * fold; }
  AF_HD int64_t group_end(int group) const { return group == 2 ? to.channels : (group + 1) * fold; }

  // The frame that a group of frame n comes from, or -1; t is the place of n in its clip.
  AF_HD int64_t source(int64_t n, int64_t t, int group) const {
    const int step = group == 2 ? 0 : (group == 0) != inverse ? 1 : -1;
    return t + step >= 0 && t + step < num_frames ? n + step : -1;
  }

  // Offsets of the first element of frame n.
  AF_HD int64_t from_offset(int64_t n) const { return n * from.lead_stride[0]; }
  AF_HD int64_t to_offset(int64_t n) const { return n * to.lead_stride[0]; }
};

// CPU: frames [begin, end) of `to`, so that the caller chooses the threads.
void temporal_shift_fwd_cpu(const TemporalShift& p, int64_t begin, int64_t end);

// CUDA: launches its kernel on a stream (a cudaStream_t) and returns an error text, or null.
const char* temporal_shift_fwd_cuda(const TemporalShift& p, void* stream);

}  // namespace adafocus

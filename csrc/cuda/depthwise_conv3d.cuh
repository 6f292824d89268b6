// What the CUDA kernels of depthwise_conv3d share: which axis a thread sums several outputs along, and how
// threads are laid over a clip.
#pragma once

#include "adafocus/depthwise_conv3d.h"
#include "cuda/intrinsics.h"
#include "cuda/warp.cuh"

namespace adafocus {

// Neighbouring channels of a place, moved by one instruction.
template <class T, int kLanes>
struct alignas(kLanes * sizeof(T)) ConvVector {
  T value[kLanes];
};

// The axis along which a thread has several outputs, `along`, and the two others, outer first.
struct ConvOrder {
  int along, outer, inner;
};

inline ConvOrder conv_order(int along) { return {along, along == 0 ? 1 : 0, along == 2 ? 1 : 2}; }

// A clip's channels as vectors of kLanes, if they lie and step so.
inline bool has_vectors(const Clips& clips, int64_t lanes) {
  if (lanes == 1) return true;
  const int64_t bytes = lanes * size_of(clips.dtype);
  int64_t misaligned = int64_t(reinterpret_cast<uintptr_t>(clips.data) % bytes) | clips.channels % lanes |
                       clips.stride_n % lanes;
  for (const int64_t stride : clips.stride) misaligned |= stride % lanes;
  return clips.stride_c == 1 && misaligned == 0;
}

// The reason why no kernel can take a call, or null: places are numbered in 32 bits.
inline const char* why_not_launched(const DepthwiseConv3d& p) {
  for (const Clips& clips : {p.x, p.y}) {
    if (double(clips.channels) * double(clips.places()) > 2e9) return "one clip has more than 2e9 elements";
    if (clips.count > INT32_MAX) return "there are more than 2^31 clips";
  }
  return nullptr;
}

}  // namespace adafocus

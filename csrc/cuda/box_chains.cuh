// The boxes of each frame, found once for all blocks that gather a frame's gradient.
#pragma once

#include "adafocus/crop_resize.h"
#include "cuda/intrinsics.h"
#include "cuda/warp.cuh"

namespace adafocus {
namespace {

// Grid: (warps of all frames). A warp looks through frame_index for its frame, a box a lane, and chains those
// that are valid.
template <class C>
__launch_bounds__(kThreads) AF_KERNEL box_chains_kernel(const CropResize p) {
  const int64_t n = int64_t(blockIdx.x) * kWarps + threadIdx.y;
  if (n >= p.frames.count) return;
  const int lane = int(threadIdx.x);
  int32_t* link = p.chains.first + n;  // that the next box goes to
  for (int64_t start = 0; start < p.num_boxes(); start += kWarp) {
    const int64_t k = start + lane;
    const bool mine = k < p.num_boxes() && p.frame_of(k) == n && p.box<C>(k).finite();
    const unsigned found = __ballot_sync(kAllLanes, mine);
    if (found == 0) continue;
    if (lane == 0) *link = int32_t(start) + __ffs(found) - 1;
    const unsigned after = found & ~((2u << lane) - 1);
    if (mine && after != 0) p.chains.next[k] = int32_t(start) + __ffs(after) - 1;
    link = p.chains.next + start + (kWarp - 1 - __clz(found));
  }
  if (lane == 0) *link = -1;
}

// Fills the chains of a call that has a frame_index. `chains` has N + K places.
const char* chain_boxes(CropResize& p, int32_t* chains, void* stream) {
  if (p.index_type == IndexType::kNone) return nullptr;
  p.chains = {chains, chains + p.frames.count};
  const unsigned blocks = unsigned(divide_up(p.frames.count, kWarps));
  return visit_compute(p.double_precision, [&](auto tag) {
    return launch(box_chains_kernel<typename decltype(tag)::type>, dim3(blocks), dim3(kWarp, kWarps), 0,
                  stream, p);
  });
}

}  // namespace
}  // namespace adafocus

// depthwise_conv3d on CUDA, backward to x: the same sums as forward, with the taps the other way round.
#include "adafocus/depthwise_conv3d.h"
#include "cuda/depthwise_conv3d_taps.cuh"

namespace adafocus {

const char* depthwise_conv3d_bwd_x_cuda(const DepthwiseConv3d& p, void* stream) {
  return sum_taps_of<false>(p, stream);
}

}  // namespace adafocus

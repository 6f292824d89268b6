// depthwise_conv3d on CUDA: forward here, in the kernels of depthwise_conv3d_taps.cuh.
#include "adafocus/depthwise_conv3d.h"
#include "cuda/depthwise_conv3d_taps.cuh"

namespace adafocus {

const char* depthwise_conv3d_fwd_cuda(const DepthwiseConv3d& p, void* stream) {
  return sum_taps_of<true>(p, stream);
}

}  // namespace adafocus

// A view of a batch of images of any strides.
#pragma once

#include "adafocus/dtype.h"

namespace adafocus {

// Most leading dimensions that a batch may have (those before C, H, W).
constexpr int kMaxLeadDims = 5;

// [lead..., C, H, W]; strides in elements. Image n counts through the leading dimensions in order, so
// that sliced or permuted batches are read in place.
struct ImageBatch {
  void* data;
  DType dtype;
  int lead_dims;
  int64_t lead_size[kMaxLeadDims], lead_stride[kMaxLeadDims];
  int64_t count;  // product of lead_size
  int64_t channels, height, width;
  int64_t stride_c, stride_y, stride_x;

  // Offset of the first element of image n, 0 <= n < count.
  AF_HD int64_t offset(int64_t n) const {
    int64_t offset = 0;
    for (int d = lead_dims - 1; d > 0; --d) {
      offset += n % lead_size[d] * lead_stride[d];
      n /= lead_size[d];
    }
    return offset + n * lead_stride[0];
  }
};

}  // namespace adafocus

// Arrays as the kernels take them, made as csrc/bindings/tensor.h makes them from tensors. What it checks for
// its callers is not checked here.
#pragma once

#include "adafocus/image_batch.h"
#include "adafocus/matrix.h"
#include "array.h"

namespace adafocus {

using cuda_on_host::Array;
using cuda_on_host::raise_if;

inline DType dtype_of(const Array& array) {
  for (const auto& [name, dtype] : {std::pair("uint8", DType::kUInt8),
                                    {"float16", DType::kFloat16},
                                    {"bfloat16", DType::kBFloat16},
                                    {"float32", DType::kFloat32},
                                    {"float64", DType::kFloat64}}) {
    if (array.dtype == name) return dtype;
  }
  throw std::runtime_error("no kernel takes the dtype " + array.dtype);
}

// Views [lead..., C, H, W] as a batch of images.
inline ImageBatch images(const Array& array) {
  ImageBatch batch{};
  batch.data = array.data();
  batch.dtype = dtype_of(array);
  batch.lead_dims = int(array.sizes.size()) - 3;
  batch.count = 1;
  for (int d = 0; d < batch.lead_dims; ++d) {
    batch.lead_size[d] = array.sizes[d];
    batch.lead_stride[d] = array.strides[d];
    batch.count *= array.sizes[d];
  }
  const int64_t* const size = array.sizes.data() + batch.lead_dims;
  const int64_t* const stride = array.strides.data() + batch.lead_dims;
  batch.channels = size[0];
  batch.height = size[1];
  batch.width = size[2];
  batch.stride_c = stride[0];
  batch.stride_y = stride[1];
  batch.stride_x = stride[2];
  return batch;
}

inline Matrix matrix(const Array& array) {
  return {array.data(), dtype_of(array), array.sizes[0], array.sizes[1], array.strides[0], array.strides[1]};
}

}  // namespace adafocus

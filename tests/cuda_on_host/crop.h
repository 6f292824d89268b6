// The parameters of the ops over boxes, made from arrays as csrc/bindings makes them from tensors. What it
// checks for its callers is not checked here.
#pragma once

#include "adafocus/crop_resize.h"
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
  throw std::runtime_error("no images have the dtype " + array.dtype);
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

// Everything but the patches. A call without frames to read has no valid box.
inline CropResize parameters(const ImageBatch& frames, const Array& boxes, const Array* frame_index,
                             const Array* affine, const std::string& padding) {
  CropResize p{};
  p.frames = frames;
  p.boxes = boxes.data();
  p.double_precision = boxes.dtype == "float64";
  p.border = padding == "border";
  if (frame_index) {
    p.frame_index = frame_index->data();
    p.index_type = frame_index->dtype == "int32" ? IndexType::kInt32 : IndexType::kInt64;
  }
  if (affine) p.affine = affine->data();
  if (frames.count * frames.channels * frames.height * frames.width == 0) p.frames.count = 0;
  return p;
}

}  // namespace adafocus

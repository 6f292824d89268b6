// From stable-ABI tensors to the plain structs of the kernels.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>

#include "adafocus/dtype.h"
#include "adafocus/image_batch.h"

namespace adafocus {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline DType dtype_of(ScalarType type) {
  switch (type) {
    case ScalarType::Byte:
      return DType::kUInt8;
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Double:
      return DType::kFloat64;
    default:
      STD_TORCH_CHECK(false, "images must be uint8, float16, bfloat16, float32 or float64");
  }
}

// Views [lead..., C, H, W] as a batch of images.
inline ImageBatch image_batch(const Tensor& t, void* data) {
  const int lead_dims = static_cast<int>(t.dim()) - 3;
  STD_TORCH_CHECK(lead_dims >= 1 && lead_dims <= kMaxLeadDims, "images must be [..., C, H, W] with 4 to ",
                  kMaxLeadDims + 3, " dimensions, got ", t.dim());
  ImageBatch batch{};
  batch.data = data;
  batch.dtype = dtype_of(t.scalar_type());
  batch.lead_dims = lead_dims;
  batch.count = 1;
  for (int d = 0; d < lead_dims; ++d) {
    batch.lead_size[d] = t.size(d);
    batch.lead_stride[d] = t.stride(d);
    batch.count *= t.size(d);
  }
  batch.channels = t.size(lead_dims);
  batch.height = t.size(lead_dims + 1);
  batch.width = t.size(lead_dims + 2);
  batch.stride_c = t.stride(lead_dims);
  batch.stride_y = t.stride(lead_dims + 1);
  batch.stride_x = t.stride(lead_dims + 2);
  return batch;
}

inline ImageBatch readable(const Tensor& t) { return image_batch(t, const_cast<void*>(t.const_data_ptr())); }
inline ImageBatch writable(const Tensor& t) { return image_batch(t, t.mutable_data_ptr()); }

// An uninitialised [N, C, H, W] on the device of `like`.
inline Tensor empty_images(const Tensor& like, int64_t n, int64_t c, int64_t h, int64_t w, ScalarType dtype,
                           bool channels_last) {
  const auto format = channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                    : torch::headeronly::MemoryFormat::Contiguous;
  return torch::stable::empty({n, c, h, w}, dtype, std::nullopt, like.device(), std::nullopt, format);
}

}  // namespace adafocus

// Stable-ABI tensors as the plain structs of the kernels, checks of tensors, and the kernels' threads and
// streams.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>

#include "adafocus/dtype.h"
#include "adafocus/image_batch.h"
#include "adafocus/matrix.h"

#ifdef USE_CUDA
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#endif

namespace adafocus {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline std::string name_of(torch::stable::Device device) {
  return device.is_cpu() ? "cpu" : (device.is_cuda() ? "cuda:" : "device ") + std::to_string(device.index());
}

inline void check_same_device(const char* name, const Tensor& t, const char* other_name,
                              const Tensor& other) {
  STD_TORCH_CHECK(t.device() == other.device(), name, " must be on the device of ", other_name, ", ",
                  name_of(other.device()), ", got ", name_of(t.device()));
}

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
      STD_TORCH_CHECK(false, "a dtype must be uint8, float16, bfloat16, float32 or float64 here");
  }
}

// The type of an index, which errors call `name`.
inline IndexType index_type_of(const char* name, ScalarType type) {
  STD_TORCH_CHECK(type == ScalarType::Int || type == ScalarType::Long, name, " must be int32 or int64");
  return type == ScalarType::Int ? IndexType::kInt32 : IndexType::kInt64;
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

// The memory format that a result like t has: channels_last(_3d) where t is that and not contiguous.
inline torch::headeronly::MemoryFormat memory_format_of(const Tensor& t) {
  using torch::headeronly::MemoryFormat;
  const int64_t dims = t.dim();
  if ((dims != 4 && dims != 5) || t.is_contiguous()) return MemoryFormat::Contiguous;
  int64_t stride = 1;
  for (int64_t step = 0; step < dims; ++step) {
    const int64_t d = step == 0 ? 1 : step == dims - 1 ? 0 : dims - step;  // C, W, H, (D,) N
    if (t.size(d) != 1 && t.stride(d) != stride) return MemoryFormat::Contiguous;
    stride *= t.size(d);
  }
  return dims == 4 ? MemoryFormat::ChannelsLast : MemoryFormat::ChannelsLast3d;
}

inline bool is_compute_type(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Double;
}

inline void check_floating(const char* name, ScalarType type) {
  STD_TORCH_CHECK(type != ScalarType::Byte, name, " must be floating point");
}

// Views a floating-point [rows, columns] as a matrix.
inline Matrix matrix(const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.dim() == 2, name, " must have two dimensions, got ", t.dim());
  check_floating(name, t.scalar_type());
  return {const_cast<void*>(t.const_data_ptr()),
          dtype_of(t.scalar_type()),
          t.size(0),
          t.size(1),
          t.stride(0),
          t.stride(1)};
}

// Calls f(begin, end) for ranges of items, in threads, of which each has enough elements to be worth it.
template <class F>
void parallel_over(int64_t items, int64_t elements_of_an_item, const F& f) {
  constexpr int64_t kMinElementsPerThread = 32768;
  const int64_t least = elements_of_an_item > 0 ? 1 + kMinElementsPerThread / elements_of_an_item : 1;
  torch::stable::parallel_for(0, items, least, f);
}

#ifdef USE_CUDA
// Calls launch(stream), a launcher of csrc/cuda, on the device of a tensor and its current stream.
template <class F>
void launch_on_device_of(const Tensor& t, const F& launch) {
  const int32_t device = t.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  const char* const error = launch(stream);
  STD_TORCH_CHECK(!error, "CUDA: ", error);
}
#endif

}  // namespace adafocus

// The things that a kernel needs from its compiler and from the runtime. Only this file and intrinsics.h know
// which compiler reads the kernels: nvcc for the GPU, or a C++ compiler for the tests, which run them on
// the host with twins of the CUDA names from cuda_on_host.h (threadIdx, __syncthreads, __shfl_xor_sync, ...).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define AF_KERNEL __global__ void
#define AF_DEVICE __device__ __forceinline__
// Static array in shared memory. The line of a declaration ends with its shape, who writes and who reads it.
#define AF_SHARED(type, name, count) __shared__ type name[count]
#else
#include "cuda_on_host.h"
#define AF_KERNEL void
#if defined(CUDA_ON_HOST_RACES)
#define AF_DEVICE \
  inline __attribute__((always_inline))  // none that was compiled without the detector's calls
#else
#define AF_DEVICE inline
#endif
#define AF_SHARED(type, name, count) CUDA_ON_HOST_SHARED(type, name, count)
#endif

namespace adafocus {

// Threads of a block, unless its kernel names another number and says why.
constexpr int kThreads = 256;

// Blocks of a grid along x and along y.
constexpr int64_t kMaxGridX = INT32_MAX, kMaxGridY = 65535;

// Bytes of shared memory that a block may have on every architecture from sm_80 on: sm_86, sm_89 and sm_120
// set the limit. A launch has kDefaultShared without asking for more, of which kStaticShared are left to
// static arrays.
constexpr size_t kMaxShared = 99 * 1024, kDefaultShared = 48 * 1024, kStaticShared = 4 * 1024;

// Dynamic shared memory, of the size given to launch, 16-byte aligned.
AF_DEVICE unsigned char* dynamic_shared() {
#if defined(__CUDACC__)
  extern __shared__ __align__(16) unsigned char af_dynamic_shared[];
  return af_dynamic_shared;
#else
  return cuda_on_host::dynamic_shared();
#endif
}

namespace detail {

// Keeps a parameter from taking part in deduction.
template <class T>
struct Same {
  using type = T;
};

#if defined(__CUDACC__)
// Lets the kernel have up to kMaxShared: the same for every launch, since others may launch it at once.
inline cudaError_t allow_max_shared(const void* kernel) {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return error;
  const int limit = static_cast<int>(kMaxShared - attributes.sharedSizeBytes);
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit);
}

template <class... Parameters>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, const Parameters&... parameters) {
  if (shared_bytes > kDefaultShared - kStaticShared) {
    const cudaError_t error = allow_max_shared(reinterpret_cast<const void*>(kernel));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, parameters...);
}

inline const char* message_of(cudaError_t error) {
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();  // the error is reported here, not by whoever calls the runtime next
  return cudaGetErrorString(error);
}
#endif

}  // namespace detail

// Launches a kernel on a stream (a cudaStream_t) and does not wait for it; returns an error's text, or null.
template <class... Parameters>
const char* launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, void* stream,
                   const typename detail::Same<Parameters>::type&... parameters) {
#if defined(__CUDACC__)
  return detail::message_of(
      detail::launch(kernel, grid, block, shared_bytes, static_cast<cudaStream_t>(stream), parameters...));
#else
  static_cast<void>(stream);
  return cuda_on_host::run(reinterpret_cast<const void*>(kernel), grid, block, shared_bytes,
                           [&] { kernel(parameters...); });
#endif
}

// Writes zeros into memory of the device on a stream; returns as launch does.
inline const char* clear_memory(void* memory, size_t bytes, void* stream) {
#if defined(__CUDACC__)
  return detail::message_of(cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream)));
#else
  static_cast<void>(stream);
  memset(memory, 0, bytes);
  return nullptr;
#endif
}

}  // namespace adafocus

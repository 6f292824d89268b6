// Function qualifiers for code that runs on the host and on the device.
#pragma once

#if defined(__CUDACC__)
#define AF_HD __host__ __device__ __forceinline__
#else
// Always inlined: the CPU kernels are compiled for several instruction sets, and a shared copy of an
// inline function could carry instructions that the processor lacks.
#define AF_HD inline __attribute__((always_inline))
#endif

// Unrolls the next loop, of few iterations: compilers vectorise loops around it then.
#if defined(__CUDACC__)
#define AF_UNROLL _Pragma("unroll")
#else
#define AF_UNROLL _Pragma("GCC unroll 16")
#endif

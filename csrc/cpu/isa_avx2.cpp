// The CPU kernels for processors with AVX2, FMA and F16C.
#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
#define AF_ISA avx2
#define AF_VECTOR_BYTES 32
#include "cpu/kernels.inl"
#endif

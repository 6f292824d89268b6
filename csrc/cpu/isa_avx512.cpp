// The CPU kernels for processors with AVX-512.
#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#define AF_ISA avx512
#define AF_VECTOR_BYTES 64
#include "cpu/kernels.inl"
#endif

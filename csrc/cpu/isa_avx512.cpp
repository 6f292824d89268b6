// The CPU kernels for processors with AVX-512.
#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#define AF_ISA avx512
#include "cpu/crop_mean.inl"
#include "cpu/crop_resize.inl"
#include "cpu/exit_gate.inl"
#include "cpu/expected_value.inl"
#include "cpu/quantile_frames.inl"
#include "cpu/weighted_sample.inl"
#endif

// The CPU kernels of each instruction set, and which of them this processor runs.
#pragma once

#include "adafocus/crop_mean.h"
#include "adafocus/crop_resize.h"
#include "adafocus/depthwise_conv3d.h"
#include "adafocus/exit_gate.h"
#include "adafocus/expected_value.h"
#include "adafocus/quantile_frames.h"
#include "adafocus/weighted_sample.h"

namespace adafocus {

#define AF_CPU_KERNEL(result, name, parameters, arguments) result name parameters;

namespace baseline {
#include "cpu/kernels.def"
}  // namespace baseline

#if defined(__x86_64__)
namespace avx2 {
#include "cpu/kernels.def"
}  // namespace avx2

namespace avx512 {
#include "cpu/kernels.def"
}  // namespace avx512
#endif

#undef AF_CPU_KERNEL

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best that this processor runs, or what ADAFOCUS_CPU_ISA (baseline, avx2, avx512) limits it to.
Isa isa();
const char* isa_name();

}  // namespace adafocus

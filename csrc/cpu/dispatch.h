// The CPU kernels of each instruction set. A kernel `name` is declared here once for all of them.
#pragma once

#include "adafocus/crop_mean.h"
#include "adafocus/crop_resize.h"

#define AF_DECLARE_KERNELS(isa)                                                                     \
  namespace isa {                                                                                   \
  void crop_resize_fwd(const CropResize& p, int64_t begin, int64_t end);                            \
  void crop_resize_bwd_boxes(const CropResize& p, void* d_boxes, int64_t begin, int64_t end);       \
  int64_t crop_resize_bwd_frames_tasks(const CropResize& p);                                        \
  void crop_resize_bwd_frames(const CropResize& p, BoxesByFrame boxes, int64_t begin, int64_t end); \
  void crop_mean_fwd(const CropMean& p, int64_t begin, int64_t end);                                \
  void crop_mean_bwd_boxes(const CropMean& p, void* d_boxes, int64_t begin, int64_t end);           \
  void crop_mean_bwd_frames(const CropMean& p, BoxesByFrame boxes, int64_t begin, int64_t end);     \
  }

namespace adafocus {

AF_DECLARE_KERNELS(baseline)
#if defined(__x86_64__)
AF_DECLARE_KERNELS(avx2)
AF_DECLARE_KERNELS(avx512)
#endif

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best that this processor runs, or what ADAFOCUS_CPU_ISA (baseline, avx2, avx512) limits it to.
Isa isa();
const char* isa_name();

}  // namespace adafocus

// Calls `kernel` of the instruction set in use.
#if defined(__x86_64__)
#define AF_DISPATCH(kernel, ...)                       \
  (isa() == Isa::kAvx512 ? avx512::kernel(__VA_ARGS__) \
   : isa() == Isa::kAvx2 ? avx2::kernel(__VA_ARGS__)   \
                         : baseline::kernel(__VA_ARGS__))
#else
#define AF_DISPATCH(kernel, ...) baseline::kernel(__VA_ARGS__)
#endif

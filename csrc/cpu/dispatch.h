// The CPU kernels of each instruction set. A kernel `name` is declared here once for all of them.
#pragma once

#include "adafocus/crop_mean.h"
#include "adafocus/crop_resize.h"
#include "adafocus/exit_gate.h"
#include "adafocus/expected_value.h"
#include "adafocus/quantile_frames.h"
#include "adafocus/weighted_sample.h"

#define AF_DECLARE_KERNELS(isa)                                                                             \
  namespace isa {                                                                                           \
  void crop_resize_fwd(const CropResize& p, int64_t begin, int64_t end);                                    \
  void crop_resize_bwd_boxes(const CropResize& p, void* d_boxes, int64_t begin, int64_t end);               \
  int64_t crop_resize_bwd_frames_tasks(const CropResize& p);                                                \
  void crop_resize_bwd_frames(const CropResize& p, BoxesByFrame boxes, int64_t begin, int64_t end);         \
  void crop_mean_fwd(const CropMean& p, int64_t begin, int64_t end);                                        \
  void crop_mean_bwd_boxes(const CropMean& p, void* d_boxes, int64_t begin, int64_t end);                   \
  void crop_mean_bwd_frames(const CropMean& p, BoxesByFrame boxes, int64_t begin, int64_t end);             \
  void exit_gate_fwd_scores(const ExitGate& p, int64_t begin, int64_t end);                                 \
  void exit_gate_fwd_compact(const ExitGate& p);                                                            \
  void weighted_sample_fwd(const WeightedSample& p, int64_t begin, int64_t end);                            \
  void expected_value_fwd(const ExpectedValue& p, const Matrix& out, int64_t begin, int64_t end);           \
  void expected_value_bwd_values(const ExpectedValue& p, const Matrix& grad, void* d_values, int64_t begin, \
                                 int64_t end);                                                              \
  void expected_value_bwd_weights(const ExpectedValue& p, const Matrix& grad, bool normaliser_grad,         \
                                  const Matrix& d_weights, int64_t begin, int64_t end);                     \
  void quantile_frames_fwd(const QuantileFrames& p, int64_t begin, int64_t end);                            \
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

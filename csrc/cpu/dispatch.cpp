#include "cpu/dispatch.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace adafocus {
namespace {

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    default:
      return "baseline";
  }
}

Isa detect() {
  Isa best = Isa::kBaseline;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
    best = Isa::kAvx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      best = Isa::kAvx512;
    }
  }
#endif
  const char* limit = std::getenv("ADAFOCUS_CPU_ISA");
  if (!limit) return best;
  const Isa known[] = {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512};
  for (Isa wanted : known) {
    if (!std::strcmp(limit, name_of(wanted))) return wanted < best ? wanted : best;
  }
  std::fprintf(stderr, "ADAFOCUS_CPU_ISA must be baseline, avx2 or avx512, got '%s'; it is ignored\n", limit);
  return best;
}

}  // namespace

Isa isa() {
  static const Isa chosen = detect();
  return chosen;
}

const char* isa_name() { return name_of(isa()); }

void crop_resize_fwd_cpu(const CropResize& p, int64_t begin, int64_t end) {
  AF_DISPATCH(crop_resize_fwd, p, begin, end);
}

void crop_resize_bwd_boxes_cpu(const CropResize& p, void* d_boxes, int64_t begin, int64_t end) {
  AF_DISPATCH(crop_resize_bwd_boxes, p, d_boxes, begin, end);
}

int64_t crop_resize_bwd_frames_tasks(const CropResize& p) {
  return AF_DISPATCH(crop_resize_bwd_frames_tasks, p);
}

void crop_resize_bwd_frames_cpu(const CropResize& p, BoxesByFrame boxes, int64_t begin, int64_t end) {
  AF_DISPATCH(crop_resize_bwd_frames, p, boxes, begin, end);
}

void crop_mean_fwd_cpu(const CropMean& p, int64_t begin, int64_t end) {
  AF_DISPATCH(crop_mean_fwd, p, begin, end);
}

void crop_mean_bwd_boxes_cpu(const CropMean& p, void* d_boxes, int64_t begin, int64_t end) {
  AF_DISPATCH(crop_mean_bwd_boxes, p, d_boxes, begin, end);
}

void crop_mean_bwd_frames_cpu(const CropMean& p, BoxesByFrame boxes, int64_t begin, int64_t end) {
  AF_DISPATCH(crop_mean_bwd_frames, p, boxes, begin, end);
}

void exit_gate_fwd_scores_cpu(const ExitGate& p, int64_t begin, int64_t end) {
  AF_DISPATCH(exit_gate_fwd_scores, p, begin, end);
}

void exit_gate_fwd_compact_cpu(const ExitGate& p) { AF_DISPATCH(exit_gate_fwd_compact, p); }

void weighted_sample_fwd_cpu(const WeightedSample& p, int64_t begin, int64_t end) {
  AF_DISPATCH(weighted_sample_fwd, p, begin, end);
}

void expected_value_fwd_cpu(const ExpectedValue& p, const Matrix& out, int64_t begin, int64_t end) {
  AF_DISPATCH(expected_value_fwd, p, out, begin, end);
}

void expected_value_bwd_values_cpu(const ExpectedValue& p, const Matrix& grad, void* d_values, int64_t begin,
                                   int64_t end) {
  AF_DISPATCH(expected_value_bwd_values, p, grad, d_values, begin, end);
}

void expected_value_bwd_weights_cpu(const ExpectedValue& p, const Matrix& grad, bool normaliser_grad,
                                    const Matrix& d_weights, int64_t begin, int64_t end) {
  AF_DISPATCH(expected_value_bwd_weights, p, grad, normaliser_grad, d_weights, begin, end);
}

void quantile_frames_fwd_cpu(const QuantileFrames& p, int64_t begin, int64_t end) {
  AF_DISPATCH(quantile_frames_fwd, p, begin, end);
}

}  // namespace adafocus

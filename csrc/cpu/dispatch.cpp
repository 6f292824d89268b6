#include "cpu/dispatch.h"

#include <cstdlib>
#include <cstring>

namespace adafocus {
namespace {

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
  Isa wanted = best;
  if (!std::strcmp(limit, "baseline")) wanted = Isa::kBaseline;
  if (!std::strcmp(limit, "avx2")) wanted = Isa::kAvx2;
  return wanted < best ? wanted : best;
}

}  // namespace

Isa isa() {
  static const Isa chosen = detect();
  return chosen;
}

const char* isa_name() {
  switch (isa()) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    default:
      return "baseline";
  }
}

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

}  // namespace adafocus

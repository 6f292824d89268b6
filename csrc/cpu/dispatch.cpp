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

// name_cpu for every kernel of the list: the one of the instruction set in use.
#if defined(__x86_64__)
#define AF_CPU_KERNEL(result, name, parameters, arguments)   \
  result name##_cpu parameters {                             \
    return isa() == Isa::kAvx512 ? avx512::name arguments    \
           : isa() == Isa::kAvx2 ? avx2::name arguments      \
                                 : baseline::name arguments; \
  }
#else
#define AF_CPU_KERNEL(result, name, parameters, arguments) \
  result name##_cpu parameters { return baseline::name arguments; }
#endif

#include "cpu/kernels.def"

}  // namespace adafocus

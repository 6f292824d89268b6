// Operations of the lanes of a warp together.
#pragma once

#include "adafocus/dtype.h"
#include "adafocus/geometry.h"
#include "cuda/launch.h"

namespace adafocus {

constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr uint32_t kAllLanes = 0xffffffffu;  // the mask of a whole warp

AF_DEVICE int thread_index() { return int(threadIdx.y * blockDim.x + threadIdx.x); }

// The values of all lanes combined, in an order that never changes; every lane has the result.
template <class T, class F>
AF_DEVICE T warp_reduce(T x, const F& combined) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    x = combined(x, __shfl_xor_sync(kAllLanes, x, distance));
  }
  return x;
}

template <class C>
AF_DEVICE C warp_sum(C x) {
  return warp_reduce(x, [](C a, C b) { return a + b; });
}

AF_DEVICE uint32_t warp_min(uint32_t x) { return __reduce_min_sync(kAllLanes, x); }

// The largest of numbers that are not negative: as floats they order like their bits.
AF_DEVICE float warp_max(float x) { return float_of(__reduce_max_sync(kAllLanes, bits_of(x))); }

AF_DEVICE double warp_max(double x) {
  return warp_reduce(x, [](double a, double b) { return max_of(a, b); });
}

// The values of the lanes up to this one combined.
template <class T, class F>
AF_DEVICE T warp_scan(T x, const F& combined) {
  const int lane = thread_index() % kWarp;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const T before = __shfl_up_sync(kAllLanes, x, distance);
    if (lane >= distance) x = combined(before, x);
  }
  return x;
}

}  // namespace adafocus

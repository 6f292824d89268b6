// Instructions that C++ has no words for.
#pragma once

#include <cstdint>

#include "cuda/launch.h"

namespace adafocus {

// Sixteen bytes, moved by one instruction.
struct alignas(16) Bytes16 {
  uint32_t word[4];
};

AF_DEVICE Bytes16 load_16(const void* from) {
  const uint4 value = *static_cast<const uint4*>(from);
  return {{value.x, value.y, value.z, value.w}};
}

AF_DEVICE void store_16(void* to, Bytes16 value) {
  *static_cast<uint4*>(to) = uint4{value.word[0], value.word[1], value.word[2], value.word[3]};
}

// Starts to copy 16 bytes, both ends 16-byte aligned, past registers and the L1 cache. They have arrived
// after copy_async_wait_all in the same thread, and for other threads after a barrier that follows it.
AF_DEVICE void copy_async_16(void* shared, const void* global) {
#if defined(__CUDACC__)
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
                 "l"(__cvta_generic_to_global(global))
               : "memory");
#else
  cuda_on_host::copy_async(shared, global, 16);
#endif
}

// Waits for all copies that this thread has started.
AF_DEVICE void copy_async_wait_all() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_all;" : : : "memory");
#else
  cuda_on_host::copy_async_wait_all();
#endif
}

// Four of the eight bytes b[3..0] a[3..0]: result byte i is number (selector >> 4 i) & 7, counted from a[0].
AF_DEVICE uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector) {
  return __byte_perm(a, b, selector);
}

// The low word of (high:low) >> bits; the low five bits of `bits` count.
AF_DEVICE uint32_t funnel_shift_right(uint32_t low, uint32_t high, uint32_t bits) {
  return __funnelshift_r(low, high, bits);
}

}  // namespace adafocus

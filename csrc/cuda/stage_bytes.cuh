// Copies between global and shared memory in 16-byte pieces, of bytes that begin anywhere. Both ends must
// have the same offset from a 16-byte boundary; the bytes before the first boundary and behind the last one
// go singly.
#pragma once

#include "cuda/crop.cuh"

namespace adafocus {

// Copies `count` bytes to shared memory; the lanes of a warp share the work. They have arrived after
// copy_async_wait_all in every lane.
AF_DEVICE void stage_bytes(unsigned char* to, const unsigned char* from, int count, int lane) {
  const int head = min_of(int(-reinterpret_cast<uintptr_t>(from) & 15), count), pieces = (count - head) / 16;
  if (lane < head) to[lane] = from[lane];
#pragma unroll 1  // a few rounds: unrolled code would only be longer
  for (int n = lane; n < pieces; n += kWarp) copy_async_16(to + head + 16 * n, from + head + 16 * n);
  const int tail = head + 16 * pieces;
  if (tail + lane < count) to[tail + lane] = from[tail + lane];
}

// Copies `count` bytes from shared memory; the threads of the block share the work.
AF_DEVICE void unstage_bytes(unsigned char* to, const unsigned char* from, int count) {
  const int head = min_of(int(-reinterpret_cast<uintptr_t>(to) & 15), count), pieces = (count - head) / 16;
  const int thread = thread_index(), tail = head + 16 * pieces;
  if (thread < head) to[thread] = from[thread];
#pragma unroll 1
  for (int n = thread; n < pieces; n += kThreads) store_16(to + head + 16 * n, load_16(from + head + 16 * n));
  if (tail + thread < count) to[tail + thread] = from[tail + thread];
}

}  // namespace adafocus

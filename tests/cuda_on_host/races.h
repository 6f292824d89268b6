// What the execution of kernels tells the race detector, and what it asks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace cuda_on_host {

constexpr unsigned kWarp = 32;

namespace races {

// Whether the kernels were compiled to announce their accesses; else nothing of this is there.
#ifdef CUDA_ON_HOST_RACES
constexpr bool kOn = true;
#else
constexpr bool kOn = false;
#endif

// Memory of a thread alone (its stack), of its block, or of all.
enum class Memory { kOwn, kShared, kGlobal };

// The thread that runs and its block, and what kind of memory an address is; kOwn for what the host does
// between threads. Defined beside the blocks.
struct Now {
  Memory memory;
  uint64_t block = 0;
  unsigned thread = 0;
  uint32_t barriers = 0, warp_barriers = 0;
};
Now now_of(const void* data);

void begin_launch();
void note_read(const void* data, size_t bytes, const void* place);
void note_write(void* data, size_t bytes, const void* place);
void note_atomic(void* data, size_t bytes, const void* place);
void note_fence();
void note_barrier(uint64_t block);

// "file:line" of the place of a call.
std::string line_of(const void* place);

// The races since the last call, a line each.
std::vector<std::string> take();

}  // namespace races
}  // namespace cuda_on_host

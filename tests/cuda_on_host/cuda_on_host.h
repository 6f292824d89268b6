// Runs the source of CUDA kernels on the host, under AddressSanitizer and UBSan, to test what they do.
//
// A launch begins its blocks in a random order, and has up to three of them alive at a time. Their threads
// are fibers on one system thread: one runs until it waits at a barrier, takes part in a warp operation, adds
// atomically or ends, then a random one of those that can go on does, of any of these blocks. So what a
// kernel gets right by luck, without the barrier that it needs, some order gets wrong; the order follows from
// the seed. Shared memory holds 0xff bytes (NaN) when a block starts, a copy_async has no effect before its
// wait, and its destination may not be touched in between. A launch fails, with a message that says where its
// threads are, if
//   - no thread can go on (a deadlock), or threads wait at two different barriers of the block;
//   - a mask of a warp operation lacks the calling lane, or names one that has ended or does not exist, or a
//     shuffle reads a lane that is not in the mask;
//   - a thread ends with copies that it did not wait for;
//   - the GPU would refuse its grid, block or shared memory.
// A mistake that the sanitizers find, such as an access beside an array in global or shared memory, by up to
// 64 KiB (guarded.h), ends the process. Not modelled: two threads that run at the same time between barriers,
// memory order between blocks, how many registers a kernel takes, and time; what the first two can spoil, the
// race detector (races.h) finds, which takes the place of the sanitizers where it is asked for. Beside it,
// the bank conflicts of a call can be counted (banks.h).
//
// This header gives the kernels the names that nvcc would; the rest is in cuda_on_host.cpp and fibers.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "banks.h"

struct uint3 {
  unsigned x, y, z;
};

// Has a constructor, so that one that is stored is made before: else its words would be stored one by one.
struct alignas(16) uint4 {
  unsigned x, y, z, w;
  uint4(unsigned x, unsigned y, unsigned z, unsigned w) : x(x), y(y), z(z), w(w) {}
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

#define __launch_bounds__(...)

namespace cuda_on_host {

// Begins a call of the harness: sets the seed of all orders in its launches, forgets the earlier ones, and
// counts bank conflicts or not.
void begin_call(uint64_t seed, bool count_conflicts);

// Names of the kernels that have been launched since the call began, as the debugger knows them.
std::vector<std::string> launched();

// Races since the call began, where the kernels were compiled to find them (races.h).
std::vector<std::string> found_races();

// Bank conflicts since the call began, where it counts them and the kernels were compiled to find races.
std::vector<banks::Line> bank_conflicts();

// Launches a kernel: `thread` is called once for each thread, and runs the function at `kernel`. Returns an
// error's text, or null.
const char* run(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
                const std::function<void()>& thread);

// All that follows is for kernels.

unsigned char* dynamic_shared();

void copy_async(void* shared, const void* global, size_t bytes);
void copy_async_wait_all();

// Ends the launch with a message.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// The static shared memory of one declaration.
class SharedMemory {
 public:
  explicit constexpr SharedMemory(size_t bytes) : bytes_(bytes) {}
  // To be called where a thread comes by the declaration; returns the memory, which its block has by itself.
  void* enter() const;

 private:
  size_t bytes_;
};

#define CUDA_ON_HOST_SHARED(type, name, count)                                         \
  static constexpr ::cuda_on_host::SharedMemory name##_memory(sizeof(type) * (count)); \
  type(&name)[count] = *static_cast<type(*)[count]>(name##_memory.enter())

// A synchronising call in the source of a kernel.
struct Call {
  const char* name;
  const char* file;
  int line;
  bool operator==(const Call& other) const {
    return line == other.line && same(file, other.file) && same(name, other.name);
  }

 private:
  static bool same(const char* a, const char* b) { return a == b || strcmp(a, b) == 0; }
};

#define CUDA_ON_HOST_WHERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// Waits for the whole block; returns how many threads came to the barrier, and how many with a true value.
struct Count {
  unsigned threads, voted;
};
Count sync_block(Call call, bool vote);

// Waits for the lanes of a mask; returns the bits of the lane `source`, the lanes whose bits are not 0, and
// the least, the greatest and the sum of all lanes' bits as 32-bit numbers.
struct Exchange {
  uint64_t bits;
  uint32_t voted, least, greatest, sum;
};
Exchange sync_warp(Call call, uint32_t mask, uint64_t bits, unsigned source);

// To be called before what other threads may see in another order.
void let_others_run();

unsigned lane();

template <class T>
T shuffle(Call call, uint32_t mask, T value, unsigned source) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "as CUDA's overloads");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = sync_warp(call, mask, bits, source).bits;
  memcpy(&value, &bits, sizeof(T));
  return value;
}

inline uint32_t ballot(Call call, uint32_t mask, bool vote) {
  return sync_warp(call, mask, vote, lane()).voted;
}

template <class T>
Exchange reduce(Call call, uint32_t mask, T value) {
  static_assert(std::is_same_v<T, unsigned>, "of CUDA's overloads the one that the kernels use");
  return sync_warp(call, mask, value, lane());
}

// The last lane of this lane's group of `width`.
inline unsigned last_of_group(int width) { return lane() | (width - 1); }

}  // namespace cuda_on_host

inline void __syncthreads(CUDA_ON_HOST_WHERE) {
  cuda_on_host::sync_block({"__syncthreads", file, line}, false);
}

inline int __syncthreads_count(int vote, CUDA_ON_HOST_WHERE) {
  return cuda_on_host::sync_block({"__syncthreads_count", file, line}, vote != 0).voted;
}

inline int __syncthreads_or(int vote, CUDA_ON_HOST_WHERE) {
  return cuda_on_host::sync_block({"__syncthreads_or", file, line}, vote != 0).voted > 0;
}

inline int __syncthreads_and(int vote, CUDA_ON_HOST_WHERE) {
  const cuda_on_host::Count count = cuda_on_host::sync_block({"__syncthreads_and", file, line}, vote != 0);
  return count.voted == count.threads;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_ON_HOST_WHERE) {
  cuda_on_host::ballot({"__syncwarp", file, line}, mask, false);
}

inline unsigned __ballot_sync(unsigned mask, int vote, CUDA_ON_HOST_WHERE) {
  return cuda_on_host::ballot({"__ballot_sync", file, line}, mask, vote != 0);
}

inline int __any_sync(unsigned mask, int vote, CUDA_ON_HOST_WHERE) {
  return cuda_on_host::ballot({"__any_sync", file, line}, mask, vote != 0) != 0;
}

inline int __all_sync(unsigned mask, int vote, CUDA_ON_HOST_WHERE) {
  return cuda_on_host::ballot({"__all_sync", file, line}, mask, vote != 0) == mask;
}

// Groups of `width` lanes shuffle among themselves; a lane whose source lies past its group reads itself.

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_ON_HOST_WHERE) {
  const unsigned first = cuda_on_host::lane() & ~unsigned(width - 1);
  return cuda_on_host::shuffle({"__shfl_sync", file, line}, mask, value, first | (source & (width - 1)));
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_HOST_WHERE) {
  const unsigned lane = cuda_on_host::lane(), within = lane & (width - 1);
  return cuda_on_host::shuffle({"__shfl_up_sync", file, line}, mask, value,
                               delta <= within ? lane - delta : lane);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_HOST_WHERE) {
  const unsigned lane = cuda_on_host::lane(), source = lane + delta;
  return cuda_on_host::shuffle({"__shfl_down_sync", file, line}, mask, value,
                               source <= cuda_on_host::last_of_group(width) ? source : lane);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, CUDA_ON_HOST_WHERE) {
  const unsigned lane = cuda_on_host::lane(), source = lane ^ unsigned(bits);
  return cuda_on_host::shuffle({"__shfl_xor_sync", file, line}, mask, value,
                               source <= cuda_on_host::last_of_group(width) ? source : lane);
}

template <class T>
unsigned __reduce_min_sync(unsigned mask, T value, CUDA_ON_HOST_WHERE) {
  return cuda_on_host::reduce({"__reduce_min_sync", file, line}, mask, value).least;
}

template <class T>
unsigned __reduce_max_sync(unsigned mask, T value, CUDA_ON_HOST_WHERE) {
  return cuda_on_host::reduce({"__reduce_max_sync", file, line}, mask, value).greatest;
}

template <class T>
unsigned __reduce_add_sync(unsigned mask, T value, CUDA_ON_HOST_WHERE) {
  return cuda_on_host::reduce({"__reduce_add_sync", file, line}, mask, value).sum;
}

// One thread runs at a time.

#ifdef CUDA_ON_HOST_RACES
namespace cuda_on_host {
void fence();
void atomic_access(unsigned* at);
}  // namespace cuda_on_host
#endif

inline void __threadfence() {
#ifdef CUDA_ON_HOST_RACES
  cuda_on_host::fence();
#endif
}

__attribute__((no_sanitize("thread"))) inline unsigned atomicAdd(unsigned* at, unsigned value) {
  cuda_on_host::let_others_run();
#ifdef CUDA_ON_HOST_RACES
  cuda_on_host::atomic_access(at);
#endif
  const unsigned before = *at;
  *at += value;
  return before;
}

__attribute__((no_sanitize("thread"))) inline unsigned atomicOr(unsigned* at, unsigned bits) {
#ifdef CUDA_ON_HOST_RACES
  cuda_on_host::atomic_access(at);
#endif
  const unsigned before = *at;
  *at |= bits;
  return before;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(x); }

inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  if (selector & ~0x7777u)
    cuda_on_host::fail("__byte_perm: selector %#x has bits that mean nothing", selector);
  const uint64_t bytes = uint64_t(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) result |= unsigned(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return result;
}

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned bits) {
  return unsigned((uint64_t(high) << 32 | low) >> (bits & 31));
}

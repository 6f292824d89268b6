// Kernels that do one thing each, right or wrong by choice, to test the harness itself.
#include "adafocus/dtype.h"
#include "cuda/intrinsics.h"
#include "cuda/move_elements.cuh"
#include "selftest.h"

namespace adafocus {
namespace {

constexpr unsigned kAll = 0xffffffffu;

AF_DEVICE uint32_t* words() { return reinterpret_cast<uint32_t*>(dynamic_shared()); }

// Choice: 0 with the barrier that it needs, 1 without.
AF_KERNEL reverse(const uint32_t* in, uint32_t* out, int choice) {
  words()[threadIdx.x] = in[threadIdx.x];
  if (choice == 0) __syncthreads();
  out[threadIdx.x] = words()[blockDim.x - 1 - threadIdx.x];
}

// Within each warp. Choice: as above.
AF_KERNEL reverse_warp(const uint32_t* in, uint32_t* out, int choice) {
  words()[threadIdx.x] = in[threadIdx.x];
  if (choice == 0) __syncwarp();
  out[threadIdx.x] = words()[threadIdx.x ^ 31];
}

// Lanes read a neighbour's word and overwrite their own. Choice: 0 with the barrier that it needs between, 1
// without, 2 with a shuffle, which waits for the lanes but orders nothing.
AF_KERNEL overwritten(const uint32_t* in, uint32_t* out, int choice) {
  words()[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  uint32_t found = words()[threadIdx.x ^ 1];
  if (choice == 0) __syncwarp();
  if (choice == 2) found += __shfl_xor_sync(kAll, found, 1);
  words()[threadIdx.x] = 0;
  out[threadIdx.x] = found;
}

// Each thread reads an element, `choice` of them behind that of the thread before it. Shared memory: choice +
// 1 elements for each thread, written side by side.
template <int kBytes>
AF_KERNEL strided(const uint32_t*, uint32_t* out, int choice) {
  using Element = element_t<kBytes>;
  Element* const shared = reinterpret_cast<Element*>(dynamic_shared());
  for (unsigned n = threadIdx.x; n < blockDim.x * (choice + 1); n += blockDim.x) {
    if constexpr (kBytes == 16) {
      store_16(shared + n, {});
    } else {
      shared[n] = 0;
    }
  }
  __syncthreads();
  const Element* const from = shared + threadIdx.x * choice;
  if constexpr (kBytes == 16) {
    out[threadIdx.x] = load_16(from).word[0];
  } else {
    out[threadIdx.x] = uint32_t(*from);
  }
}

// The block that comes last to the ticket, out[0], reads what all have written. Choice: 0 rightly, 1 without
// the barrier before the ticket, 2 without the fence before it, 3 without that after it.
AF_KERNEL last_block(const uint32_t* in, uint32_t* out, int choice) {
  AF_SHARED(uint32_t, ticket, 1);
  const uint32_t own = blockIdx.x * blockDim.x + threadIdx.x, all = gridDim.x * blockDim.x;
  if (own > 0) out[own] = in[own];
  if (choice != 1) __syncthreads();
  if (threadIdx.x == 0) {
    if (choice != 2) __threadfence();
    ticket[0] = atomicAdd(&out[0], 1u);
    if (choice != 3) __threadfence();
  }
  __syncthreads();
  if (ticket[0] != gridDim.x - 1) return;
  uint32_t sum = 0;
  for (uint32_t n = threadIdx.x + blockDim.x; n < all; n += blockDim.x) sum += out[n];
  words()[threadIdx.x] = sum;
}

// Each block writes a word, and the one that comes last to the ticket, out[0], adds those of all. Choice: 0
// rightly, 1 the ticket is taken before the word is written, 2 the block that comes first adds.
AF_KERNEL words_of_blocks(const uint32_t* in, uint32_t* out, int choice) {
  AF_SHARED(uint32_t, ticket, 1);
  const auto take_ticket = [&] {
    if (threadIdx.x == 0) {
      __threadfence();
      ticket[0] = atomicAdd(&out[0], 1u);
      __threadfence();
    }
    __syncthreads();
  };
  if (choice == 1) take_ticket();
  if (threadIdx.x == 0) out[1 + blockIdx.x] = in[blockIdx.x];
  __syncthreads();
  if (choice != 1) take_ticket();
  if (threadIdx.x > 0 || ticket[0] != (choice == 2 ? 0 : gridDim.x - 1)) return;
  uint32_t sum = 0;
  for (unsigned n = 0; n < gridDim.x; ++n) sum += out[1 + n];
  out[1 + gridDim.x] = sum;
}

// Choice: 0 dynamic shared memory, 1 static.
AF_KERNEL untouched(const uint32_t*, uint32_t* out, int choice) {
  AF_SHARED(uint32_t, array, 32);
  uint32_t* const shared = choice == 0 ? words() : array;
  const uint32_t found = shared[threadIdx.x];
  shared[threadIdx.x] = 0;
  out[blockIdx.x * blockDim.x + threadIdx.x] = found;
}

// Threads of even number leave before the barrier, which does not wait for them.
AF_KERNEL some_leave(const uint32_t*, uint32_t* out, int) {
  if (threadIdx.x % 2 == 0) return;
  out[threadIdx.x] = __syncthreads_count(1);
}

AF_KERNEL votes(const uint32_t* in, uint32_t* out, int choice) {
  const int vote = in[threadIdx.x];
  switch (choice) {
    case 0:
      out[threadIdx.x] = __syncthreads_count(vote);
      break;
    case 1:
      out[threadIdx.x] = __syncthreads_or(vote);
      break;
    case 2:
      out[threadIdx.x] = __syncthreads_and(vote);
      break;
    case 3:
      out[threadIdx.x] = __ballot_sync(kAll, vote);
      break;
    case 4:
      out[threadIdx.x] = __any_sync(kAll, vote);
      break;
    case 5:
      out[threadIdx.x] = __all_sync(kAll, vote);
      break;
  }
}

// Over each half of the warps by itself. Choice: which.
AF_KERNEL reductions(const uint32_t* in, uint32_t* out, int choice) {
  const unsigned mask = threadIdx.x % 32 < 16 ? 0xffffu : 0xffff0000u;
  const uint32_t value = in[threadIdx.x];
  switch (choice) {
    case 0:
      out[threadIdx.x] = __reduce_min_sync(mask, value);
      break;
    case 1:
      out[threadIdx.x] = __reduce_max_sync(mask, value);
      break;
    case 2:
      out[threadIdx.x] = __reduce_add_sync(mask, value);
      break;
  }
}

// Every thread takes a place in a list.
AF_KERNEL places(const uint32_t* in, uint32_t* out, int) {
  AF_SHARED(uint32_t, count, 1);
  if (threadIdx.x == 0) count[0] = 0;
  __syncthreads();
  out[atomicAdd(&count[0], 1u)] = in[threadIdx.x];
}

// By 3 lanes, in groups of 8. Choice: which.
AF_KERNEL shuffles(const uint32_t* in, uint32_t* out, int choice) {
  const uint32_t value = in[threadIdx.x];
  switch (choice) {
    case 0:
      out[threadIdx.x] = __shfl_sync(kAll, value, 3, 8);
      break;
    case 1:
      out[threadIdx.x] = __shfl_up_sync(kAll, value, 3, 8);
      break;
    case 2:
      out[threadIdx.x] = __shfl_down_sync(kAll, value, 3, 8);
      break;
    case 3:
      out[threadIdx.x] = __shfl_xor_sync(kAll, value, 3, 8);
      break;
  }
}

template <class T>
AF_DEVICE bool shuffled_whole() {
  const T value = T(threadIdx.x) * T(0x1p20) * T(sizeof(T) == 8 ? 0x1p20 : 1) + T(7);
  return __shfl_xor_sync(kAll, value, 1) ==
         T(threadIdx.x ^ 1) * T(0x1p20) * T(sizeof(T) == 8 ? 0x1p20 : 1) + T(7);
}

AF_KERNEL shuffled_types(const uint32_t*, uint32_t* out, int) {
  out[threadIdx.x] = shuffled_whole<int>() + shuffled_whole<unsigned>() + shuffled_whole<int64_t>() +
                     shuffled_whole<float>() + shuffled_whole<double>();
}

// Half a warp shuffles by itself. Choice: 0 rightly, 1 with a mask that lacks the caller, 2 reads a lane that
// is not in the mask, 3 names lanes that have ended, 4 names lanes that wait elsewhere.
AF_KERNEL half_warp(const uint32_t* in, uint32_t* out, int choice) {
  if (choice == 3 && threadIdx.x >= 16) return;
  if (threadIdx.x < 16) {
    const uint32_t mask = choice == 1 ? 0xff00u : choice < 3 ? 0xffffu : kAll;
    out[threadIdx.x] = __shfl_xor_sync(mask, in[threadIdx.x], choice == 2 ? 16 : 1);
  } else {
    out[threadIdx.x] = 0;
  }
  __syncthreads();
}

// The halves of a block meet at two barriers of different lines.
AF_KERNEL two_barriers(const uint32_t*, uint32_t*, int) {
  if (threadIdx.x < blockDim.x / 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

// Choice: 0 rightly, 1 reads before the wait, 2 never waits, 3 from a misaligned address.
AF_KERNEL copies(const uint32_t* in, uint32_t* out, int choice) {
  uint32_t* const shared = words() + 4 * threadIdx.x;
  copy_async_16(shared, in + 4 * threadIdx.x + (choice == 3));
  if (choice == 1) out[0] = shared[1];
  if (choice != 2) copy_async_wait_all();
  if (choice == 0) store_16(out + 4 * threadIdx.x, load_16(shared));
}

// Choice: 0 reads past the input, 1 writes before the output, 2 reads past the dynamic and 3 past the static
// shared memory, 4 loads 16 bytes from a misaligned address, 5 shifts by too much, 6 converts NaN to a
// number, 7 writes into the input.
AF_KERNEL stray(const uint32_t* in, uint32_t* out, int choice) {
  AF_SHARED(uint32_t, array, 32);
  const uint32_t* const shared = choice == 2 ? words() : array;
  const int n = int(blockDim.x);
  switch (choice) {
    case 0:
      out[0] = in[n];
      break;
    case 1:
      out[-1] = 0;
      break;
    case 2:
    case 3:
      out[0] = shared[n];
      break;
    case 4:
      store_16(out, load_16(in + 1));
      break;
    case 5:
      out[0] = 1 << 32 * n;
      break;
    case 6:
      out[0] = int(float_of(kAll));
      break;
    case 7:
      const_cast<uint32_t*>(in)[0] = 7;
      break;
  }
}

// Reads `choice` words behind the input or the dynamic shared memory, of a word for each thread; where that
// is negative, before it.
template <bool kShared>
AF_KERNEL far(const uint32_t* in, uint32_t* out, int choice) {
  const uint32_t* const array = kShared ? words() : in;
  out[0] = array[choice < 0 ? choice : int(blockDim.x) + choice];
}

// The order in which the threads of all blocks come by: out[i] is the number of the i-th.
AF_KERNEL order(const uint32_t*, uint32_t* out, int) {
  const uint32_t at = out[0]++;
  out[1 + at] = blockIdx.x * blockDim.x + threadIdx.x;
}

AF_KERNEL bits(const uint32_t* in, uint32_t* out, int choice) {
  const uint32_t a = in[0], b = in[1];
  out[0] = byte_permute(a, b, choice);
  out[1] = funnel_shift_right(a, b, 8);
  out[2] = __popc(a);
  out[3] = __ffs(a);
  out[4] = __clz(a);
}

using Kernel = void (*)(const uint32_t*, uint32_t*, int);

template <Kernel kernel>
const char* launcher(dim3 grid, dim3 block, size_t shared_bytes, const uint32_t* in, uint32_t* out,
                     int choice) {
  return launch(kernel, grid, block, shared_bytes, nullptr, in, out, choice);
}

}  // namespace
}  // namespace adafocus

#define SELF_TEST(name) {#name, adafocus::launcher<adafocus::name>}
const SelfTest kSelfTests[] = {
    SELF_TEST(reverse),        SELF_TEST(reverse_warp), SELF_TEST(untouched),    SELF_TEST(some_leave),
    SELF_TEST(votes),          SELF_TEST(reductions),   SELF_TEST(places),       SELF_TEST(shuffles),
    SELF_TEST(shuffled_types), SELF_TEST(half_warp),    SELF_TEST(two_barriers), SELF_TEST(copies),
    SELF_TEST(stray),          SELF_TEST(order),        SELF_TEST(bits),         SELF_TEST(overwritten),
    SELF_TEST(last_block),     SELF_TEST(strided<1>),   SELF_TEST(strided<4>),   SELF_TEST(strided<8>),
    SELF_TEST(strided<16>),    SELF_TEST(far<false>),   SELF_TEST(far<true>),    SELF_TEST(words_of_blocks),
};
const int kSelfTestCount = sizeof(kSelfTests) / sizeof(kSelfTests[0]);

// Loops of the kernels that only move memory: gather_rows, scatter_rows, temporal_shift.
#pragma once

#include "adafocus/geometry.h"
#include "cuda/intrinsics.h"

namespace adafocus {

constexpr int kMoves = 4;  // loads that a thread starts before it stores what they bring

// Element of memory, which is moved by one instruction.
template <int kBytes>
struct Element;
template <>
struct Element<1> {
  using type = uint8_t;
};
template <>
struct Element<2> {
  using type = uint16_t;
};
template <>
struct Element<4> {
  using type = uint32_t;
};
template <>
struct Element<8> {
  using type = uint64_t;
};
template <>
struct Element<16> {
  using type = Bytes16;
};
template <int kBytes>
using element_t = typename Element<kBytes>::type;

// Calls store(i, load(i)) for i in [0, count), in all blocks of the same blockIdx.x and threads of the same
// threadIdx.y.
template <class Load, class Store>
AF_DEVICE void move_elements(uint32_t count, const Load& load, const Store& store) {
  const uint32_t chunk = kMoves * blockDim.x;
  for (uint32_t first = blockIdx.y * chunk + threadIdx.x; first < count; first += gridDim.y * chunk) {
    decltype(load(0u)) value[kMoves];
#pragma unroll
    for (int m = 0; m < kMoves; ++m) {
      const uint32_t i = first + m * blockDim.x;
      if (i < count) value[m] = load(i);
    }
#pragma unroll
    for (int m = 0; m < kMoves; ++m) {
      const uint32_t i = first + m * blockDim.x;
      if (i < count) store(i, value[m]);
    }
  }
}

constexpr int64_t kMaxMoved = INT32_MAX;  // elements that move_elements counts

// Blocks in the grid's second dimension, of `columns` threads each.
inline unsigned move_blocks(int64_t count, int64_t columns) {
  const int64_t chunk = kMoves * columns;
  return unsigned(clamp_to<int64_t>((count + chunk - 1) / chunk, 1, kMaxGridY));
}

}  // namespace adafocus

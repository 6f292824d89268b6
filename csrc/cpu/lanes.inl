// Short vectors of numbers, compiled once for each instruction set.
#pragma once

#include <cstdint>

#include "adafocus/macros.h"
#include "cpu/isa.h"

namespace adafocus {
namespace AF_ISA {
namespace {

constexpr int64_t kLanes = 4;

// Lanes at any address. Buffers are padded by kLanes, so that a pixel of fewer channels may be read and
// written as four.
template <class C>
struct Lanes {
  typedef C type __attribute__((vector_size(kLanes * sizeof(C)), aligned(alignof(C)), may_alias));
};
template <class C>
using lanes_t = typename Lanes<C>::type;

template <class C>
AF_HD lanes_t<C> load_lanes(const C* p) {
  return *reinterpret_cast<const lanes_t<C>*>(p);
}

template <class C>
AF_HD void store_lanes(C* p, lanes_t<C> v) {
  *reinterpret_cast<lanes_t<C>*>(p) = v;
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)  // GCC from 12 on
#define AF_LANE_PAIRS

// The lanes of two pixels, one after the other.
template <class C>
struct LanePair {
  typedef C type __attribute__((vector_size(2 * kLanes * sizeof(C)), aligned(alignof(C)), may_alias));
};
template <class C>
using lane_pair_t = typename LanePair<C>::type;

template <class C>
AF_HD lane_pair_t<C> load_lane_pair(const C* p) {
  return *reinterpret_cast<const lane_pair_t<C>*>(p);
}

template <class C>
AF_HD lane_pair_t<C> load_lane_pair(const C* first, const C* second) {
  return __builtin_shufflevector(load_lanes(first), load_lanes(second), 0, 1, 2, 3, 4, 5, 6, 7);
}

template <class C>
AF_HD void store_lane_pair(C* first, C* second, lane_pair_t<C> v) {
  store_lanes<C>(first, __builtin_shufflevector(v, v, 0, 1, 2, 3));
  store_lanes<C>(second, __builtin_shufflevector(v, v, 4, 5, 6, 7));
}
#endif
#endif

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

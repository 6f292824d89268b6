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

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

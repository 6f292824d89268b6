// Vectors as long as the registers of the instruction set.
#pragma once

#include <cstdint>

#include "adafocus/macros.h"
#include "cpu/isa.h"

namespace adafocus {
namespace AF_ISA {
namespace {

constexpr int64_t kWideBytes = AF_VECTOR_BYTES;

template <class C>
constexpr int64_t kWide = kWideBytes / int64_t(sizeof(C));  // lanes

// Lanes at any address.
template <class C>
struct Wide {
  typedef C type __attribute__((vector_size(kWideBytes), aligned(alignof(C)), may_alias));
};
template <class C>
using wide_t = typename Wide<C>::type;

template <class C>
AF_HD wide_t<C> load_wide(const C* p) {
  return *reinterpret_cast<const wide_t<C>*>(p);
}

template <class C>
AF_HD void store_wide(C* p, wide_t<C> v) {
  *reinterpret_cast<wide_t<C>*>(p) = v;
}

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

// Element types, their conversion to and from the types of arithmetic, and the visitors over them: every
// choice of a kernel by a type is made by one of these.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "adafocus/macros.h"

namespace adafocus {

enum class DType : int8_t { kUInt8, kFloat16, kBFloat16, kFloat32, kFloat64 };

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

template <class T>
struct TypeTag {
  using type = T;
};

// The type of the arithmetic on elements of type T.
template <class T>
using compute_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Calls f(TypeTag<T>{}) with the C++ type of a dtype.
template <class F>
AF_HD void visit(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kUInt8:
      return f(TypeTag<uint8_t>{});
    case DType::kFloat16:
      return f(TypeTag<Half>{});
    case DType::kBFloat16:
      return f(TypeTag<BFloat16>{});
    case DType::kFloat32:
      return f(TypeTag<float>{});
    case DType::kFloat64:
      return f(TypeTag<double>{});
  }
}

// Returns f(TypeTag<T>{}) with the type of a dtype that is not uint8.
template <class F>
auto visit_float(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kFloat16:
      return f(TypeTag<Half>{});
    case DType::kBFloat16:
      return f(TypeTag<BFloat16>{});
    case DType::kFloat32:
      return f(TypeTag<float>{});
    default:
      return f(TypeTag<double>{});
  }
}

// A floating-point type of at most four bytes.
AF_HD bool is_small_float(DType dtype) { return dtype != DType::kUInt8 && dtype != DType::kFloat64; }

// Returns f(TypeTag<T>{}) with the type of a dtype that is a small float.
#if defined(__CUDACC__)
#pragma nv_exec_check_disable  // f may be of the host alone, or of the device
#endif
template <class F>
AF_HD auto visit_small_float(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kFloat16:
      return f(TypeTag<Half>{});
    case DType::kBFloat16:
      return f(TypeTag<BFloat16>{});
    default:
      return f(TypeTag<float>{});
  }
}

// Returns f(TypeTag<T>{}) with the type of a dtype that is not float64.
template <class F>
auto visit_small(DType dtype, const F& f) {
  return dtype == DType::kUInt8 ? f(TypeTag<uint8_t>{}) : visit_small_float(dtype, f);
}

// Returns f(TypeTag<C>{}) with the type of the arithmetic.
template <class F>
auto visit_compute(bool double_precision, const F& f) {
  return double_precision ? f(TypeTag<double>{}) : f(TypeTag<float>{});
}

// Returns f(std::bool_constant<value>{}).
template <class F>
auto visit_bool(bool value, const F& f) {
  return value ? f(std::true_type{}) : f(std::false_type{});
}

// Returns f(std::integral_constant<int, n>{}) with a number n, one of kValues.
template <int kValue, int... kValues, class F>
auto visit_int(int64_t n, const F& f) {
  if constexpr (sizeof...(kValues) > 0) {
    if (n != kValue) return visit_int<kValues...>(n, f);
  }
  return f(std::integral_constant<int, kValue>{});
}

// Returns f(std::integral_constant<int, n>{}) with the size n of an element in bytes, one of kSizes.
template <int... kSizes, class F>
auto visit_bytes(int64_t size, const F& f) {
  return visit_int<kSizes...>(size, f);
}

// The integers of an index; kNone: there is none.
enum class IndexType : int8_t { kNone, kInt32, kInt64 };

AF_HD int64_t load_index(const void* index, IndexType type, int64_t i) {
  return type == IndexType::kInt64 ? static_cast<const int64_t*>(index)[i]
                                   : static_cast<const int32_t*>(index)[i];
}

AF_HD int64_t size_of(DType dtype) {
  int64_t size = 0;
  visit(dtype, [&](auto tag) { size = sizeof(typename decltype(tag)::type); });
  return size;
}

AF_HD uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}

AF_HD float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

template <class C>
AF_HD C load_as(uint8_t x) {
  return C(x);
}

template <class C>
AF_HD C load_as(BFloat16 x) {
  return C(float_of(uint32_t(x.bits) << 16));
}

#if defined(__CUDA_ARCH__)
template <class C>
AF_HD C load_as(Half x) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return C(value);
}
#else
// Without a branch, so that compilers vectorise it: shifting exponent and mantissa into place makes
// the value 2^-112 too small, subnormals included; the product rescales it. Infinity and NaN, whose
// exponent must stay all ones, come out at 2^16 or more and get theirs back.
template <class C>
AF_HD C load_as(Half x) {
  const uint32_t magnitude = uint32_t(x.bits & 0x7fffu) << 13;
  const float scaled = float_of(magnitude) * 0x1p112f;
  const uint32_t special = scaled >= 65536.0f ? 0x7f800000u : 0u;
  return C(float_of(bits_of(scaled) | special | uint32_t(x.bits & 0x8000u) << 16));
}
#endif

template <class C>
AF_HD C load_as(float x) {
  return C(x);
}

template <class C>
AF_HD C load_as(double x) {
  return C(x);
}

template <class T>
struct Store;

template <>
struct Store<float> {
  static AF_HD float from(double x) { return float(x); }
  static AF_HD float from(float x) { return x; }
};

template <>
struct Store<double> {
  static AF_HD double from(double x) { return x; }
};

// Rounded half to even and saturated; NaN becomes 0. Adding 1.5 * 2^(mantissa bits) leaves the rounded
// integer in the low bits, without a call.
template <>
struct Store<uint8_t> {
  static AF_HD uint8_t from(float x) { return uint8_t(bits_of(saturated(x) + 0x1.8p23f)); }
  static AF_HD uint8_t from(double x) {
    const double shifted = saturated(x) + 0x1.8p52;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof(bits));
    return uint8_t(bits);
  }
  template <class C>
  static AF_HD C saturated(C x) {
    x = x > C(0) ? x : C(0);
    return x < C(255) ? x : C(255);
  }
};

// Rounded half to even. NaN keeps its sign and becomes quiet.
template <>
struct Store<BFloat16> {
  static AF_HD BFloat16 from(double x) { return from(float(x)); }
  static AF_HD BFloat16 from(float x) {
#if defined(__CUDA_ARCH__)
    BFloat16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
#else
    const uint32_t bits = bits_of(x);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t quiet = (bits >> 16) | 0x40u;
    return BFloat16{uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded)};
#endif
  }
};

// Rounded half to even, without a branch. Normal results: rebias the exponent and round the 13 bits
// that go. Subnormal results: adding 0.5 aligns the value to the 2^-24 grid and rounds it in hardware.
template <>
struct Store<Half> {
  static AF_HD Half from(double x) { return from(float(x)); }
  static AF_HD Half from(float x) {
#if defined(__CUDA_ARCH__)
    Half result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
#else
    const uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
    const uint32_t overflow = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    uint32_t half = magnitude < (113u << 23) ? subnormal : normal;
    half = magnitude >= 0x477ff000u ? overflow : half;  // 65520 and more round to infinity
    return Half{uint16_t(half | (bits >> 16 & 0x8000u))};
#endif
  }
};

}  // namespace adafocus

// A kernel for each floating-point type.
#pragma once

#include "adafocus/dtype.h"

namespace adafocus {

// Returns f(tag), a TypeTag, with the type of a dtype that is not uint8.
template <class F>
const char* with_floating(DType dtype, const F& f) {
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

}  // namespace adafocus

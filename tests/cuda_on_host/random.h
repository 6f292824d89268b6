// The source of an op's random words, as the kernels take it.
#pragma once

#include "adafocus/weighted_sample.h"
#include "views.h"

namespace adafocus {

inline RowRandom random_of(const Array* seed, const Array* row_id) {
  return {seed ? static_cast<const int64_t*>(seed->data()) : nullptr,
          row_id ? static_cast<const int64_t*>(row_id->data()) : nullptr};
}

}  // namespace adafocus

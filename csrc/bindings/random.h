// Checks and parameters of the random words of an op.
#pragma once

#include "adafocus/weighted_sample.h"
#include "bindings/tensor.h"

namespace adafocus {

// Checks that there are k of T things to draw, from each row of weights [B, T].
inline void check_draws(int64_t k, int64_t items) {
  STD_TORCH_CHECK(1 <= k && k <= items, "k must be from 1 to T = ", items, ", got ", k);
  STD_TORCH_CHECK(items < (int64_t(1) << 31), "weights must have fewer than 2^31 items, got ", items);
}

inline void check_num_samples(int64_t num_samples) {
  STD_TORCH_CHECK(1 <= num_samples && num_samples < (int64_t(1) << 31),
                  "num_samples must be from 1 to 2^31 - 1, got ", num_samples);
}

// The source of a row's random words. The tensors outlive the call that uses the result.
inline RowRandom row_random(const Tensor& seed, const OptionalTensor& row_id, const Tensor& weights) {
  check_same_device("seed", seed, "weights", weights);
  STD_TORCH_CHECK(seed.scalar_type() == ScalarType::Long && seed.numel() == 1,
                  "seed must be an int64 tensor of one element");
  RowRandom random{static_cast<const int64_t*>(seed.const_data_ptr()), nullptr};
  if (row_id) {
    check_same_device("row_id", *row_id, "weights", weights);
    STD_TORCH_CHECK(row_id->scalar_type() == ScalarType::Long && row_id->dim() == 1 &&
                        row_id->size(0) == weights.size(0) && row_id->is_contiguous(),
                    "row_id must be a contiguous [B] of int64");
    random.row_id = static_cast<const int64_t*>(row_id->const_data_ptr());
  }
  return random;
}

}  // namespace adafocus

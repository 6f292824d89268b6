// weighted_sample: sampling without replacement, as the race of race.h, on any device.
#pragma once

#include "adafocus/matrix.h"
#include "adafocus/race.h"

namespace adafocus {

// The source of the random words of a row.
struct RowRandom {
  const int64_t* seed;    // one number, on the device
  const int64_t* row_id;  // [rows], or null for the row's number

  AF_HD int64_t row(int64_t b) const { return row_id ? row_id[b] : b; }
};

struct WeightedSample {
  Matrix weights;          // [B, T], 1 <= T < 2^31
  int64_t k, num_samples;  // 1 <= k <= T; fewer than 2^31 samples
  RowRandom random;
  int64_t* out;  // [B, num_samples, k], contiguous
};

// CPU: samples [begin, end) of the B num_samples, so that the caller chooses the threads.
void weighted_sample_fwd_cpu(const WeightedSample& p, int64_t begin, int64_t end);

// CUDA: launches its kernel on a stream (a cudaStream_t) and returns an error text, or null.
const char* weighted_sample_fwd_cuda(const WeightedSample& p, void* stream);

}  // namespace adafocus

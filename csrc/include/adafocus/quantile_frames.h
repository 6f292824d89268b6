// quantile_frames: frames at the quantiles of a piecewise linear distribution, on any device.
//
// Bit for bit alike everywhere: the cumulative sums are of the weights in double, each rounded to the compute
// type C (float, or double for double weights) with the last one replaced by 1, and the rest is single
// additions, multiplications and correctly rounded divisions in C.
#pragma once

#include "adafocus/geometry.h"
#include "adafocus/weighted_sample.h"

namespace adafocus {

struct QuantileFrames {
  Matrix weights;  // [B, T]; clean_weight of each counts
  int64_t num_frames, k;
  Matrix jitter;     // [B, k], clean_jitter of each counts; data is null if there is none
  RowRandom random;  // if seed is not null: jitter 1 - uniform(word i of draw 0 of Stream::kJitter)
  int64_t* out;      // [B, k], contiguous

  AF_HD bool double_precision() const { return weights.dtype == DType::kFloat64; }
};

// The jitter in [0, 1]; NaN counts as the middle.
template <class C>
AF_HD C clean_jitter(C jitter) {
  return jitter == jitter ? clamp_to(jitter, C(0), C(1)) : C(0.5);
}

// The quantile i of k, for a jitter in [0, 1] (1/2: the middle).
template <class C>
AF_HD C quantile(int64_t i, C jitter, int64_t k) {
  return (C(i) + jitter) / C(k);
}

// The frame in which the distribution reaches a quantile, bin b of `bins` being the first whose end does:
// low = c_b and high = c_{b+1} are its cumulative sums.
template <class C>
AF_HD int64_t frame_at(C quantile, int64_t bin, C low, C high, int64_t bins, int64_t num_frames) {
  const C inside = high > low ? (quantile - low) / (high - low) : C(0);
  const C clamped = inside > C(0) ? (inside < C(1) ? inside : C(1)) : C(0);
  return int64_t(C(double(num_frames) / double(bins)) * (C(bin) + clamped));
}

// CPU: rows [begin, end), so that the caller chooses the threads.
void quantile_frames_fwd_cpu(const QuantileFrames& p, int64_t begin, int64_t end);

// CUDA: launches its kernel on a stream (a cudaStream_t) and returns an error text, or null.
const char* quantile_frames_fwd_cuda(const QuantileFrames& p, void* stream);

}  // namespace adafocus

// quantile_frames on the CPU: quantiles never fall, so that one walk along the bins finds them all.
#pragma once

#include <cstdint>

#include "adafocus/geometry.h"
#include "adafocus/quantile_frames.h"
#include "cpu/dispatch.h"
#include "cpu/isa.h"
#include "cpu/matrix.inl"
#include "cpu/scratch.h"

namespace adafocus {
namespace AF_ISA {
namespace {

// cdf [T + 1]: the cumulative sums of the weights of row b, which end the bins.
template <class C>
void cumulate(const Matrix& weights, int64_t b, C* cdf) {
  cdf[0] = C(0);
  read_clean_weights(weights, b, cdf + 1);
  double sum = 0;
  for (int64_t t = 1; t < weights.columns; ++t) {
    sum += double(cdf[t]);
    cdf[t] = C(sum);
  }
  cdf[weights.columns] = C(1);
}

// jitter [k] of row b, given, random or in the middle.
template <class C>
void set_jitter(const QuantileFrames& p, int64_t b, C* jitter) {
  if (p.random.seed) {
    Words4 words;
    for (int64_t i = 0; i < p.k; ++i) {
      if (i % 4 == 0)
        words = random_words(*p.random.seed, p.random.row(b), Stream::kJitter, 0, uint32_t(i / 4));
      jitter[i] = C(1.0f - uniform(words.word[i % 4]));
    }
  } else if (p.jitter.data) {
    read_row(p.jitter, b, jitter);
    for (int64_t i = 0; i < p.k; ++i) jitter[i] = clean_jitter(jitter[i]);
  } else {
    for (int64_t i = 0; i < p.k; ++i) jitter[i] = C(0.5);
  }
}

// out [k]: the frames at the quantiles of a row with cdf [T + 1] and jitter [k].
template <class C>
void frames_of_row(const QuantileFrames& p, const C* cdf, const C* jitter, int64_t* out) {
  const int64_t bins = p.weights.columns;
  int64_t bin = 0, least = 0;  // least: the frame after the last one
  for (int64_t i = 0; i < p.k; ++i) {
    const C q = quantile(i, jitter[i], p.k);
    while (bin < bins - 1 && cdf[bin + 1] < q) ++bin;
    const int64_t frame = max_of(least, frame_at(q, bin, cdf[bin], cdf[bin + 1], bins, p.num_frames));
    out[i] = min_of(frame, p.num_frames - p.k + i);
    least = frame + 1;
  }
}

template <class C>
void quantile_frames_range(const QuantileFrames& p, int64_t begin, int64_t end) {
  Scratch scratch;
  C* const cdf = scratch.take<C>(p.weights.columns + 1);  // [T + 1]
  C* const jitter = scratch.take<C>(p.k);                 // [k]
  for (int64_t b = begin; b < end; ++b) {
    cumulate(p.weights, b, cdf);
    set_jitter(p, b, jitter);
    frames_of_row(p, cdf, jitter, p.out + b * p.k);
  }
}

}  // namespace
}  // namespace AF_ISA

void AF_ISA::quantile_frames_fwd(const QuantileFrames& p, int64_t begin, int64_t end) {
  visit_compute(p.double_precision(),
                [&](auto tag) { quantile_frames_range<typename decltype(tag)::type>(p, begin, end); });
}

}  // namespace adafocus

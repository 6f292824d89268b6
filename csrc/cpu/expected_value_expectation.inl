// The expectation of expected_value on the CPU: the coefficient of each item, and its derivative by the
// weights.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>

#include "adafocus/expected_value.h"
#include "cpu/expected_value_prefixes.inl"
#include "cpu/isa.h"
#include "cpu/scratch.h"

namespace adafocus {
namespace AF_ISA {
namespace {

// sum [count] = the sum over the lanes of lanes [count][kRaces], which it overwrites.
template <class C>
void sum_lanes(C* __restrict__ lanes, int64_t count, C* __restrict__ sum) {
  for (int64_t t = 0; t < count; ++t) {
    C* const lane = lanes + t * kRaces;
    AF_UNROLL
    for (int half = kRaces / 2; half > 0; half /= 2) {
      for (int l = 0; l < half; ++l) lane[l] += lane[half + l];
    }
    sum[t] = lane[0];
  }
}

// out [count]: the sum of all others, without a subtraction.
template <class C>
void sum_others(const C* __restrict__ x, int64_t count, C* __restrict__ out) {
  C before = 0, after = 0;
  for (int64_t t = 0; t < count; ++t) {
    out[t] = before;
    before += x[t];
  }
  for (int64_t t = count - 1; t >= 0; --t) {
    out[t] += after;
    after += x[t];
  }
}

// The expectation of a row of weights: sampled, all sums in a fixed order, or in closed form for k <= 2.
template <class C>
class Expectation {
 public:
  Expectation(Scratch& scratch, const ExpectedValue& p)
      : p_(p), T_(p.weights.columns), term_(scratch.take<C>(T_)), others_(scratch.take<C>(T_)) {
    if (p.k == 1 || p.num_samples == 0) return;
    total_ = scratch.take<C>(T_ * kRaces);
    prefixes_.emplace(scratch, p);
  }

  // q [T] of row b, of its clean weights [T].
  void coefficients(int64_t b, const C* weight, C* q) {
    if (p_.k == 1) {
      for (int64_t t = 0; t < T_; ++t) q[t] = C(1);
    } else if (prefixes_) {
      sum_samples(b, weight, q, [&] { prefixes_->add_inverses(total_); });
    } else {  // the item drawn first, with its probability, is not left for the second draw
      sum_others(weight, T_, others_);
      for (int64_t t = 0; t < T_; ++t) {
        term_[t] = weight[t] * InverseRest<C>(C(1) - weight[t], others_[t]).value;
      }
      sum_others(term_, T_, others_);
      for (int64_t t = 0; t < T_; ++t) q[t] = (C(1) + others_[t]) / C(2);
    }
  }

  // slope [T] of row b: the derivative of the sum over t of q_t x_t by each weight as a part of the S.
  void slopes(int64_t b, const C* weight, const C* x, C* slope) {
    if (p_.k == 1) {
      for (int64_t t = 0; t < T_; ++t) slope[t] = C(0);
    } else if (prefixes_) {
      sum_samples(b, weight, slope, [&] { prefixes_->add_slopes(x, total_); });
    } else {
      sum_others(x, T_, others_);
      for (int64_t t = 0; t < T_; ++t) {
        slope[t] = weight[t] * others_[t] * InverseRest<C>(C(1) - weight[t], C(0)).slope / C(2);
      }
    }
  }

 private:
  // mean [T]: the mean over samples and steps of what `add` adds to total_ for kRaces samples.
  template <class F>
  void sum_samples(int64_t b, const C* weight, C* mean, const F& add) {
    memset(total_, 0, T_ * kRaces * sizeof(C));
    for (int64_t m = 0; m < p_.num_samples; m += kRaces) {
      prefixes_->draw(b, m, weight);
      add();
    }
    sum_lanes(total_, T_, mean);
    for (int64_t t = 0; t < T_; ++t) mean[t] /= C(p_.k) * C(p_.num_samples);
  }

  const ExpectedValue& p_;
  const int64_t T_;
  C* term_;                              // [T] of the closed form
  C* others_;                            // [T] sum over all other items
  C* total_ = nullptr;                   // [T][kRaces] sum over samples and steps, if sampled
  std::optional<Prefixes<C>> prefixes_;  // if sampled
};

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

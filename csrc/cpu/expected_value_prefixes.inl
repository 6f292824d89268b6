// The prefixes of expected_value on the CPU: what is drawn before each step of kRaces samples at a time, and
// the sums over steps that follow from it, in a fixed order.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafocus/expected_value.h"
#include "adafocus/geometry.h"
#include "cpu/isa.h"
#include "cpu/race.inl"
#include "cpu/scratch.h"

namespace adafocus {
namespace AF_ISA {
namespace {

// The prefixes of kRaces samples of a row, a lane each. Step i, from 0 on, has the first i draws as its
// prefix, and S_i = 1 - the sum of their weights. A lane of one row of 8 items, k = 4, in which items 3, 0
// and 5 arrive first:
//
//   item             0     1     2     3     4     5     6     7
//   weight         .30   .10   .05   .20   .05   .15   .05   .10
//
//   step i   prefix   draw_   rest_   inverse_   slope_   left_ = the sum of x over the items
//     0      none       3      1.00     1.00      1.00    0  1  2  3  4  5  6  7
//     1      3          0       .80     1.25      1.56    0  1  2     4  5  6  7
//     2      3 0        5       .50     2.00      4.00       1  2     4  5  6  7
//     3      3 0 5      -       .35     2.86      8.16       1  2     4     6  7
//
// The draw of step i is the item that the prefix of step i + 1 has in addition; the last step needs none. In
// this lane item 0 is left in steps 0 and 1 (add_inverses gives it 1.00 + 1.25) and drawn in steps 2 and 3
// (add_slopes gives it 4.00 left_[2] + 8.16 left_[3]); item 1 is left in all steps.
template <class C>
class Prefixes {
 public:
  Prefixes(Scratch& scratch, const ExpectedValue& p)
      : p_(p),
        races_(scratch, p.weights, p.random),
        draw_(scratch.take<int32_t>((p.k - 1) * kRaces)),
        rest_(take_zeros<C>(scratch, p.k * kRaces)),
        left_(take_zeros<C>(scratch, p.k * kRaces)),
        inverse_(take_zeros<C>(scratch, p.k * kRaces)),
        slope_(take_zeros<C>(scratch, p.k * kRaces)) {}

  // Draws the prefixes of samples m, m + 1, .. of row b, whose clean weights [T] are given. Lanes beyond the
  // last sample add nothing to the sums below.
  void draw(int64_t b, int64_t m, const C* weight) {
    for (int l = 0; l < kRaces; ++l) races_.set(l, b, m + l);
    races_.run();
    for (int64_t i = 0; i < p_.k - 1; ++i) races_.next(draw_ + i * kRaces);
    if (!set_rests(weight)) sum_left(weight);
    set_inverses(p_.num_samples - m);
  }

  // total [T][kRaces] += for every item the sum of 1 / S over the steps that find it left.
  void add_inverses(C* __restrict__ total) const {
    C sum[kRaces] = {};
    for (int64_t i = 0; i < p_.k; ++i) {
      for (int l = 0; l < kRaces; ++l) sum[l] += inverse_[i * kRaces + l];
    }
    for (int64_t t = 0; t < p_.weights.columns; ++t) {
      const int64_t* const key = races_.keys(t);
      for (int l = 0; l < kRaces; ++l) total[t * kRaces + l] += key[l] == Races::kDrawn ? C(0) : sum[l];
    }
    for (C& s : sum) s = C(0);
    for (int64_t i = 0; i < p_.k - 1; ++i) {  // draw i is left until step i
      for (int l = 0; l < kRaces; ++l) sum[l] += inverse_[i * kRaces + l];
      add_to_draws(i, sum, total);
    }
  }

  // total [T][kRaces] += for every item the sum of X / S^2 over the steps that find it drawn, X being the sum
  // of x [T] over the items left: the derivative by its weight of the sum of X / S over all steps.
  void add_slopes(const C* x, C* __restrict__ total) {
    sum_left(x);
    C sum[kRaces] = {};
    for (int64_t i = p_.k - 2; i >= 0; --i) {  // draw i is drawn from step i + 1 on
      const int64_t step = (i + 1) * kRaces;
      for (int l = 0; l < kRaces; ++l) sum[l] += left_[step + l] * slope_[step + l];
      add_to_draws(i, sum, total);
    }
  }

 private:
  AF_HD void add_to_draws(int64_t i, const C* sum, C* total) const {
    for (int l = 0; l < kRaces; ++l) total[draw_[i * kRaces + l] * int64_t(kRaces) + l] += sum[l];
  }

  // Sets rest_, and returns true if all are more than what rounding leaves.
  bool set_rests(const C* weight) {
    C sum[kRaces] = {}, least = C(1);
    for (int l = 0; l < kRaces; ++l) rest_[l] = C(1);
    for (int64_t i = 1; i < p_.k; ++i) {
      for (int l = 0; l < kRaces; ++l) {
        sum[l] += weight[draw_[(i - 1) * kRaces + l]];
        rest_[i * kRaces + l] = C(1) - sum[l];
        least = min_of(least, rest_[i * kRaces + l]);
      }
    }
    return least >= kLeastRest<C>;
  }

  // left_ = the sum of x [T] over the items that each step finds left, without a subtraction.
  void sum_left(const C* x) {
    C sum[kRaces] = {};
    for (int64_t t = 0; t < p_.weights.columns; ++t) {
      const int64_t* const key = races_.keys(t);
      for (int l = 0; l < kRaces; ++l) sum[l] += key[l] == Races::kDrawn ? C(0) : x[t];
    }
    for (int64_t i = p_.k - 1;; --i) {
      memcpy(left_ + i * kRaces, sum, sizeof(sum));
      if (i == 0) return;
      for (int l = 0; l < kRaces; ++l) sum[l] += x[draw_[(i - 1) * kRaces + l]];
    }
  }

  // Sets inverse_ and slope_ of the first lanes, and zeros in the others.
  void set_inverses(int64_t lanes) {
    for (int64_t i = 0; i < p_.k; ++i) {
      for (int l = 0; l < kRaces; ++l) {
        const int64_t step = i * kRaces + l;
        const InverseRest<C> inverse(rest_[step], left_[step]);
        inverse_[step] = l < lanes ? inverse.value : C(0);
        slope_[step] = l < lanes ? inverse.slope : C(0);
      }
    }
  }

  const ExpectedValue& p_;
  Races races_;
  int32_t* draw_;  // [k - 1][kRaces] item that is drawn in step i
  C* rest_;        // [k][kRaces] 1 - the sum of the weights of step i's prefix
  C* left_;     // [k][kRaces] sum over the items that step i finds left: of the weights, or of another x [T]
  C* inverse_;  // [k][kRaces] 1 / S_i, or 0 in lanes beyond the last sample
  C* slope_;    // [k][kRaces] derivative of inverse_ by the sum of the weights of step i's prefix
};

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

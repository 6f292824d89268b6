// expected_value on the CPU: kRaces samples of a row at a time, all sums in a fixed order.
#pragma once

#include <optional>

#include "adafocus/expected_value.h"
#include "cpu/race.inl"

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

// The prefixes of kRaces samples of a row. Step i, from 0 on, has the first i draws as its prefix, and S_i.
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

  // Draws those of samples m, m + 1, .. of row b, whose clean weights are given. Lanes beyond the last sample
  // add nothing to the sums below.
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

  // Sets rest_, and returns whether all are more than what rounding leaves.
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

  // Sets inverse_ and slope_ of the first lanes, and to zero those of the others.
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
  int32_t* draw_;  // [k - 1][kRaces]
  // Of each step, [k][kRaces]: 1 - the sum of the prefix's weights, the sum of something that is left, 1 / S,
  // and its derivative by the sum of the prefix's weights.
  C *rest_, *left_, *inverse_, *slope_;
};

// The expectation of a row of weights: sampled, or in closed form for k <= 2.
template <class C>
class Expectation {
 public:
  Expectation(Scratch& scratch, const ExpectedValue& p)
      : p_(p), T_(p.weights.columns), term_(scratch.take<C>(T_)), others_(scratch.take<C>(T_)) {
    if (p.k == 1 || p.num_samples == 0) return;
    total_ = scratch.take<C>(T_ * kRaces);
    prefixes_.emplace(scratch, p);
  }

  // q [T] of row b, of its clean weights.
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
  C *term_, *others_;   // [T]
  C* total_ = nullptr;  // [T][kRaces]
  std::optional<Prefixes<C>> prefixes_;
};

// Row b of the values as a matrix [T, D].
AF_HD Matrix values_of(const ExpectedValue& p, int64_t b) {
  Matrix values{};
  visit(p.values_dtype, [&](auto tag) {
    using V = typename decltype(tag)::type;
    values.data = static_cast<V*>(const_cast<void*>(p.values)) + b * p.value_strides[0];
  });
  values.dtype = p.values_dtype;
  values.rows = p.weights.columns;
  values.columns = p.depth;
  values.row_stride = p.value_strides[1];
  values.column_stride = p.value_strides[2];
  return values;
}

// sum [D] = the sum of rows, each times its q and its weight.
template <class C>
void sum_values(const Matrix& values, const C* q, const C* weight, C* __restrict__ sum) {
  memset(sum, 0, values.columns * sizeof(C));
  for (int64_t t = 0; t < values.rows; ++t) {
    const C scale = q[t] * weight[t];
    with_row(values, t, [&](const auto* value, auto stride) {
      for (int64_t d = 0; d < values.columns; ++d) sum[d] += scale * load_as<C>(value[d * stride]);
    });
  }
}

// The product of a row with g [D].
template <class C>
C dot_row(const Matrix& values, int64_t t, const C* __restrict__ g) {
  C sum = 0;
  with_row(values, t, [&](const auto* value, auto stride) {
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < values.columns; ++d) sum += load_as<C>(value[d * stride]) * g[d];
  });
  return sum;
}

template <class C>
C* coefficients_of(const ExpectedValue& p, int64_t b) {
  return static_cast<C*>(p.coefficients) + b * p.weights.columns;
}

template <class C>
void expected_value_range(const ExpectedValue& p, const Matrix& out, int64_t begin, int64_t end) {
  Scratch scratch;
  C* const weight = scratch.take<C>(p.weights.columns);
  C* const sum = scratch.take<C>(p.depth);
  Expectation<C> expectation(scratch, p);
  for (int64_t b = begin; b < end; ++b) {
    C* const q = coefficients_of<C>(p, b);
    read_clean_weights(p.weights, b, weight);
    expectation.coefficients(b, weight, q);
    sum_values(values_of(p, b), q, weight, sum);
    write_row(sum, out, b);
  }
}

template <class C>
void bwd_values_range(const ExpectedValue& p, const Matrix& grad, void* d_values, int64_t begin,
                      int64_t end) {
  const int64_t T = p.weights.columns, D = p.depth;
  Scratch scratch;
  C* const weight = scratch.take<C>(T);
  C* const g = scratch.take<C>(D);
  for (int64_t b = begin; b < end; ++b) {
    const C* const q = coefficients_of<C>(p, b);
    read_clean_weights(p.weights, b, weight);
    read_row(grad, b, g);
    visit(p.values_dtype, [&](auto tag) {
      using V = typename decltype(tag)::type;
      for (int64_t t = 0; t < T; ++t) {
        V* __restrict__ const to = static_cast<V*>(d_values) + (b * T + t) * D;
        const C scale = q[t] * weight[t];
        for (int64_t d = 0; d < D; ++d) to[d] = Store<V>::from(scale * g[d]);
      }
    });
  }
}

template <class C>
void bwd_weights_range(const ExpectedValue& p, const Matrix& grad, bool normaliser_grad,
                       const Matrix& d_weights, int64_t begin, int64_t end) {
  const int64_t T = p.weights.columns;
  Scratch scratch;
  C* const weight = scratch.take<C>(T);
  C* const g = scratch.take<C>(p.depth);
  C* const by_item = scratch.take<C>(T);  // <g, v>
  C* const weighted = scratch.take<C>(T);
  C* const slope = scratch.take<C>(T);
  C* const gradient = scratch.take<C>(T);
  std::optional<Expectation<C>> expectation;
  if (normaliser_grad) expectation.emplace(scratch, p);
  for (int64_t b = begin; b < end; ++b) {
    const C* const q = coefficients_of<C>(p, b);
    const Matrix values = values_of(p, b);
    read_row(grad, b, g);
    for (int64_t t = 0; t < T; ++t) by_item[t] = dot_row(values, t, g);
    if (expectation) {
      read_clean_weights(p.weights, b, weight);
      for (int64_t t = 0; t < T; ++t) weighted[t] = weight[t] * by_item[t];
      expectation->slopes(b, weight, weighted, slope);
    }
    read_row(p.weights, b, weight);
    for (int64_t t = 0; t < T; ++t) {
      const C by_weight = q[t] * by_item[t] + (expectation ? slope[t] : C(0));
      gradient[t] = weight[t] >= C(0) ? by_weight : C(0);
    }
    write_row(gradient, d_weights, b);
  }
}

}  // namespace

void expected_value_fwd(const ExpectedValue& p, const Matrix& out, int64_t begin, int64_t end) {
  p.double_precision ? expected_value_range<double>(p, out, begin, end)
                     : expected_value_range<float>(p, out, begin, end);
}

void expected_value_bwd_values(const ExpectedValue& p, const Matrix& grad, void* d_values, int64_t begin,
                               int64_t end) {
  p.double_precision ? bwd_values_range<double>(p, grad, d_values, begin, end)
                     : bwd_values_range<float>(p, grad, d_values, begin, end);
}

void expected_value_bwd_weights(const ExpectedValue& p, const Matrix& grad, bool normaliser_grad,
                                const Matrix& d_weights, int64_t begin, int64_t end) {
  p.double_precision ? bwd_weights_range<double>(p, grad, normaliser_grad, d_weights, begin, end)
                     : bwd_weights_range<float>(p, grad, normaliser_grad, d_weights, begin, end);
}

}  // namespace AF_ISA
}  // namespace adafocus

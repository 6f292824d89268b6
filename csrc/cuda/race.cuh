// The race of race.h between up to kMaxItems items of a row, run by one warp in registers.
#pragma once

#include <type_traits>

#include "adafocus/weighted_sample.h"
#include "cuda/random.cuh"
#include "cuda/warp.cuh"

namespace adafocus {

constexpr int kMaxItemsPerLane = 32, kMaxItems = kWarp * kMaxItemsPerLane;

// The time of what no longer races: as bits, it is later than infinity.
constexpr uint32_t kNever = 0xffffffffu;

// The type of the arithmetic on weights of type T, up to the race's.
template <class T>
using WeightOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

// a / b, correctly rounded, given 1 / b, as long as nothing over- or underflows: the first step leaves less
// than one unit in the last place, from where the second is exact (Markstein).
AF_DEVICE float divide(float a, float b, float inverse) {
  float quotient = a * inverse;
  quotient = fused_multiply_add(fused_multiply_add(-b, quotient, a), inverse, quotient);
  return fused_multiply_add(fused_multiply_add(-b, quotient, a), inverse, quotient);
}

// R items a lane; threads are (lane, warp). The items of a lane are in runs: items that follow one another,
// so that one call of random_words serves them, and whose times are kept in order, so that only the first one
// of each run is looked at. Those beyond the last item have no weight and come after all others.
template <int R>
class WarpRace {
 public:
  static constexpr int kRun = R < 4 ? R : 4;  // items of a run

  AF_DEVICE WarpRace(const Matrix& weights, const RowRandom& random, int64_t b)
      : seed_(*random.seed), row_(random.row(b)) {
    visit(weights.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      using W = WeightOf<T>;
      W weight[R], largest = 0;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const T* const from = static_cast<const T*>(weights.data) + weights.offset(b, item(r));
        weight[r] = item(r) < weights.columns ? clean_weight(load_as<W>(*from)) : W(0);
        largest = max_of(largest, weight[r]);
      }
      const W scale = race_scale(warp_max(largest));
#pragma unroll
      for (int r = 0; r < R; ++r) {
        weight_[r] = race_weight(weight[r], scale);
        inverse_[r] = 1 / weight_[r];
      }
    });
  }

  // The number of item r of this lane.
  AF_DEVICE static uint32_t item(int r) { return (r / kRun * kWarp + threadIdx.x) * kRun + r % kRun; }

  // All items start, for a draw of the row.
  AF_DEVICE void start(uint32_t draw) {
    left_ = ~0u;
#pragma unroll
    for (int run = 0; run < R / kRun; ++run) {
      const Words4 words = random_words(seed_, row_, Stream::kRace, draw, item(run * kRun) / 4);
#pragma unroll
      for (int r = run * kRun; r < (run + 1) * kRun; ++r) {
        const float time = divide(exponential(word_of(words, item(r) % 4)), weight_[r], inverse_[r]);
        time_[r] = bits_of(weight_[r] > 0 ? time : arrival(0, 0));
      }
      sort(run);
    }
  }

  // The number of the next item to arrive, which is taken then. There must be one.
  AF_DEVICE uint32_t next() {
    uint32_t time = kNever, next = kNever;
#pragma unroll
    for (int run = 0; run < R / kRun; ++run) time = min_of(time, time_[run * kRun]);
    time = warp_min(time);
#pragma unroll
    for (int run = R / kRun - 1; run >= 0; --run) next = time_[run * kRun] == time ? first_of(run) : next;
    next = warp_min(next);
#pragma unroll
    for (int run = 0; run < R / kRun; ++run) {
      if (first_of(run) == next) remove_first(run);
    }
    return next;
  }

  // Whether item r of this lane has not been taken.
  AF_DEVICE bool is_left(int r) const { return left_ >> r & 1; }

  // The sum over all items that are left, of values by their number.
  template <class C>
  AF_DEVICE C sum_of_left(const C* values) const {
    C sum = 0;
#pragma unroll
    for (int r = 0; r < R; ++r) sum += is_left(r) ? values[item(r)] : C(0);
    return warp_sum(sum);
  }

 private:
  // Orders a run by time; items of the same time stay in the order of their numbers.
  AF_DEVICE void sort(int run) {
    uint32_t* const time = time_ + run * kRun;
    uint32_t place[kRun];
#pragma unroll
    for (int i = 0; i < kRun; ++i) place[i] = i;
#pragma unroll
    for (int end = kRun - 1; end > 0; --end) {
#pragma unroll
      for (int i = 0; i < end; ++i) {
        const bool late = time[i] > time[i + 1];
        const uint32_t time_i = time[i], place_i = place[i];
        time[i] = late ? time[i + 1] : time_i;
        place[i] = late ? place[i + 1] : place_i;
        time[i + 1] = late ? time_i : time[i + 1];
        place[i + 1] = late ? place_i : place[i + 1];
      }
    }
    order_[run] = 0;
#pragma unroll
    for (int i = 0; i < kRun; ++i) order_[run] |= place[i] << 2 * i;
  }

  // The number of the item of a run that arrives first, if not all have been taken.
  AF_DEVICE uint32_t first_of(int run) const { return item(run * kRun) | order_[run] % 4; }

  AF_DEVICE void remove_first(int run) {
    left_ &= ~(1u << (run * kRun + order_[run] % 4));
#pragma unroll
    for (int r = run * kRun; r < (run + 1) * kRun - 1; ++r) time_[r] = time_[r + 1];
    time_[(run + 1) * kRun - 1] = kNever;
    order_[run] >>= 2;
  }

  int64_t seed_, row_;
  float weight_[R], inverse_[R];
  uint32_t time_[R];          // of each run the items that have not been taken, then kNever
  uint32_t order_[R / kRun];  // and, two bits each, which items of the run they are
  uint32_t left_;             // a bit for each item of this lane
};

// Calls f(number), an integral_constant, with the least R that a race of so many items takes.
template <class F>
const char* with_items_per_lane(int64_t items, const F& f) {
  if (items <= kWarp) return f(std::integral_constant<int, 1>{});
  if (items <= 2 * kWarp) return f(std::integral_constant<int, 2>{});
  if (items <= 4 * kWarp) return f(std::integral_constant<int, 4>{});
  if (items <= 8 * kWarp) return f(std::integral_constant<int, 8>{});
  if (items <= 16 * kWarp) return f(std::integral_constant<int, 16>{});
  return f(std::integral_constant<int, 32>{});
}

}  // namespace adafocus

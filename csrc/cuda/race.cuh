// The race of race.h between up to kMaxItems items of a row, run by one warp in registers. A race goes
// through four phases, of which the last two repeat until as many items as wanted have been taken:
//   1. load     (the constructor) each item gets its weight, once for all races of the row,
//   2. start    each item gets its time of arrival, and the items of each run are sorted by it,
//   3. find     the earliest time among the heads of all runs, of the lane and then of the warp,
//   4. remove   the run that has it moves up by one.
//
// Example of 8 items in two lanes with R = 4, so that a lane has one run of four. Times are small numbers
// here, "-" is kNever, and order_ is written as its digits, the places of the times' items in the run:
//
//              lane 0: items 0 1 2 3      lane 1: items 4 5 6 7
//              time_        order_        time_        order_
//   times      5  2  9  4                 7  3  8  6
//   start      2  4  5  9   1 3 0 2       3  6  7  8   1 3 0 2
//   find       head 2                     head 3                     2 is less: next() is item 0 + 1
//   remove     4  5  9  -   3 0 2         3  6  7  8   1 3 0 2       lane 0 clears bit 1 of left_
//   find       head 4                     head 3                     3 is less: next() is item 4 + 1
//   remove     4  5  9  -   3 0 2         6  7  8  -   3 0 2         lane 1 clears bit 1 of left_
#pragma once

#include "adafocus/weighted_sample.h"
#include "cuda/random.cuh"
#include "cuda/warp.cuh"

namespace adafocus {

constexpr int kMaxItemsPerLane = 32, kMaxItems = kWarp * kMaxItemsPerLane;

// Time of an item that no longer races: as bits, it is later than infinity.
constexpr uint32_t kNever = 0xffffffffu;

// Quotient a / b, correctly rounded, given 1 / b, as long as nothing over- or underflows: the first step
// leaves less than one unit in the last place, from where the second is exact (Markstein).
AF_DEVICE float divide(float a, float b, float inverse) {
  float quotient = a * inverse;
  quotient = fused_multiply_add(fused_multiply_add(-b, quotient, a), inverse, quotient);
  return fused_multiply_add(fused_multiply_add(-b, quotient, a), inverse, quotient);
}

// Race of R items a lane; threads are (lane, warp). The items of a lane are in runs: items that follow one
// another, so that one call of random_words serves them, and whose times are kept in order, so that only the
// head of each run is looked at. Items beyond the last one of the row have no weight and come after all
// others.
template <int R>
class WarpRace {
 public:
  static constexpr int kRun = R < 4 ? R : 4;  // items of a run

  AF_DEVICE WarpRace(const Matrix& weights, const RowRandom& random, int64_t b)
      : seed_(*random.seed), row_(random.row(b)) {
    visit(weights.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      using W = compute_t<T>;
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

  // Starts all items, for a draw of the row.
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

  // Takes the next item to arrive and returns its number. There must be one.
  AF_DEVICE uint32_t next() {
    const uint32_t next = find_next();
#pragma unroll
    for (int run = 0; run < R / kRun; ++run) {
      if (head_of(run) == next) remove_head(run);
    }
    return next;
  }

  // True until item r of this lane is taken.
  AF_DEVICE bool is_left(int r) const { return left_ >> r & 1; }

  // Sum over all items that are left, of `values` by their number.
  template <class C>
  AF_DEVICE C sum_of_left(const C* values) const {
    C sum = 0;
#pragma unroll
    for (int r = 0; r < R; ++r) sum += is_left(r) ? values[item(r)] : C(0);
    return warp_sum(sum);
  }

 private:
  // The number of the item that arrives first: of several at once, the one of the lowest number.
  AF_DEVICE uint32_t find_next() const {
    uint32_t time = kNever, next = kNever;
#pragma unroll
    for (int run = 0; run < R / kRun; ++run) time = min_of(time, time_[run * kRun]);
    time = warp_min(time);
#pragma unroll
    for (int run = R / kRun - 1; run >= 0; --run) next = time_[run * kRun] == time ? head_of(run) : next;
    return warp_min(next);
  }

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
  AF_DEVICE uint32_t head_of(int run) const { return item(run * kRun) | order_[run] % 4; }

  AF_DEVICE void remove_head(int run) {
    left_ &= ~(1u << (run * kRun + order_[run] % 4));
#pragma unroll
    for (int r = run * kRun; r < (run + 1) * kRun - 1; ++r) time_[r] = time_[r + 1];
    time_[(run + 1) * kRun - 1] = kNever;
    order_[run] >>= 2;
  }

  int64_t seed_;  // of all rows
  int64_t row_;   // the key of this row
  // By item of the lane, in the order of the items' numbers:
  float weight_[R];   // [R]: the item's weight in the race
  float inverse_[R];  // [R]: 1 / weight_
  // By run, in the order of arrival: when an item is taken, the ones behind it move up.
  uint32_t time_[R];          // [runs, kRun]: bits of the times of the run's items that are left, then kNever
  uint32_t order_[R / kRun];  // [runs]: two bits for each of these times, the place of its item in the run
  uint32_t left_;             // a bit for each item of the lane, 1 until it is taken
};

// Returns f(std::integral_constant<int, R>{}) with the least R that a race of so many items takes.
template <class F>
const char* visit_items_per_lane(int64_t items, const F& f) {
  int per_lane = 1;
  while (per_lane < kMaxItemsPerLane && int64_t(per_lane) * kWarp < items) per_lane *= 2;
  return visit_int<1, 2, 4, 8, 16, 32>(per_lane, f);
}

}  // namespace adafocus

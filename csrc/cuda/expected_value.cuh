// Parts that the kernels of expected_value share: a block for each row, whose warps share the samples.
#pragma once

#include "adafocus/expected_value.h"
#include "cuda/channel_group.cuh"
#include "cuda/race.cuh"

namespace adafocus {

static_assert(kMaxItems >= kMaxExpectedValueItems, "a warp races all items of a row");

// Warps of a row's block: more than kWarps, since a row has many samples, but fewer of them where each lane
// has many items in registers.
template <int R>
constexpr int kRowWarps = R <= 8 ? 16 : 8;

AF_DEVICE int thread_count() { return int(blockDim.y * kWarp); }

// Writes the clean weights of a row, and zeros up to `size`.
template <class C>
AF_DEVICE void load_weights(const Matrix& weights, int64_t b, int size, C* to) {
  visit(weights.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* const from = static_cast<const T*>(weights.data);
    for (int t = thread_index(); t < size; t += thread_count()) {
      to[t] = t < weights.columns ? C(clean_weight(load_as<compute_t<T>>(from[weights.offset(b, t)]))) : C(0);
    }
  });
}

// Sum of x [count] without x[t].
template <class C>
AF_DEVICE C sum_of_others(const C* x, int count, int t) {
  C sum = 0;
  for (int n = 0; n < count; ++n) sum += n == t ? C(0) : x[n];
  return sum;
}

// Inverse 1 / S of the step after item t has been drawn first.
template <class C>
AF_DEVICE InverseRest<C> inverse_without(const C* weight, int count, int t) {
  const C rest = 1 - weight[t];
  return InverseRest<C>(rest, rest >= kLeastRest<C> ? C(0) : sum_of_others(weight, count, t));
}

// Calls f(race, InverseRest) for all steps but the first of the samples that are this warp's, while the items
// of the step's prefix are taken. (In the first steps, S = 1 and all items are left.)
template <int R, class C, class F>
AF_DEVICE void for_each_step(const ExpectedValue& p, int64_t b, const C* weight, const F& f) {
  WarpRace<R> race(p.weights, p.random, b);
  const int k = int(p.k), samples = int(p.num_samples);
  for (int m = threadIdx.y; m < samples; m += kRowWarps<R>) {
    race.start(m);
    C rest = 1;
    for (int step = 1; step < k; ++step) {
      rest -= weight[race.next()];
      f(race, InverseRest<C>(rest, rest >= kLeastRest<C> ? C(0) : race.sum_of_left(weight)));
    }
  }
}

// Calls f(t, sum) in one of the block's threads for each item t of the row, with the sum of all warps'
// of_warp; `partial` has room for a group of each thread. Begins and ends with all threads in step.
template <int R, class C, class F>
AF_DEVICE void sum_over_warps(const C (&of_warp)[R], int64_t items, ChannelGroup<C>* partial, const F& f) {
  constexpr int kRun = WarpRace<R>::kRun, kItems = kWarp * kRun;
#pragma unroll
  for (int run = 0; run < R / kRun; ++run) {
#pragma unroll
    for (int i = 0; i < kRun; ++i) partial[thread_index()][i] = of_warp[run * kRun + i];
    __syncthreads();
    const int n = thread_index(), t = run * kItems + n;
    if (n < kItems && t < items) {
      C sum = 0;
      for (int warp = 0; warp < kRowWarps<R>; ++warp) sum += partial[warp * kWarp + n / kRun][n % kRun];
      f(t, sum);
    }
    __syncthreads();
  }
}

// Returns f(TypeTag<C>{}, std::integral_constant<int, R>{}) with the type of the arithmetic and a lane's
// items.
template <class F>
const char* visit_row(const ExpectedValue& p, const F& f) {
  if (p.weights.rows > kMaxGridX) return "there are more than 2^31 rows";
  return visit_items_per_lane(p.weights.columns, [&](auto items) {
    return visit_compute(p.double_precision, [&](auto tag) { return f(tag, items); });
  });
}

}  // namespace adafocus

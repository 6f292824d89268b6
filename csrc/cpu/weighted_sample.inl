// weighted_sample on the CPU: races side by side, or one after another where they are long or few.
#pragma once

#include <cstdint>

#include "adafocus/weighted_sample.h"
#include "cpu/dispatch.h"
#include "cpu/isa.h"
#include "cpu/race.inl"
#include "cpu/scratch.h"

namespace adafocus {
namespace AF_ISA {
namespace {

constexpr int64_t kMostItemsSideBySide = 1024;  // their keys fit the second-level cache

bool side_by_side(const WeightedSample& p, int64_t races) {
  return p.weights.columns <= kMostItemsSideBySide && races >= kRaces / 2;
}

// Calls f(race, row, sample) for races [begin, end).
template <class F>
AF_HD void for_each_race(const WeightedSample& p, int64_t begin, int64_t end, const F& f) {
  int64_t b = begin / p.num_samples, m = begin % p.num_samples;
  for (int64_t race = begin; race < end; ++race) {
    f(race, b, m);
    if (++m == p.num_samples) {
      m = 0;
      ++b;
    }
  }
}

}  // namespace
}  // namespace AF_ISA

void AF_ISA::weighted_sample_fwd(const WeightedSample& p, int64_t begin, int64_t end) {
  Scratch scratch;
  if (!side_by_side(p, end - begin)) {
    LongRace race(scratch, p.weights, p.random, p.k);
    for_each_race(p, begin, end, [&](int64_t r, int64_t b, int64_t m) { race.draw(b, m, p.out + r * p.k); });
    return;
  }
  Races races(scratch, p.weights, p.random);
  int32_t draw[kRaces];  // draw i of each race
  for (int64_t first = begin; first < end; first += kRaces) {
    const int64_t last = min_of(first + kRaces, end);
    for_each_race(p, first, last, [&](int64_t r, int64_t b, int64_t m) { races.set(int(r - first), b, m); });
    races.run();
    for (int64_t i = 0; i < p.k; ++i) {
      races.next(draw);
      for (int64_t r = first; r < last; ++r) p.out[r * p.k + i] = draw[r - first];
    }
  }
}

}  // namespace adafocus

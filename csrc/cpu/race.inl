// The races of race.h on the CPU. Compilers vectorise loops over kRaces lanes, which have no branches; a lane
// is a race (Races), or four items of a single one (LongRace).
//
// A race of 8 items, of which 3 are drawn. A key is a time's bits and, below them, the item's number, so that
// keys are in the order of arrival. (The row's scale of race.h, a power of two, is left out.)
//
//   item            0     1     2     3     4     5     6     7
//   weight        .30   .10   .05   .20   .05   .15   .05   .10
//   exponential   .36   .90  1.40   .12   .50   .21  2.30   .70     from the item's random word
//   time          1.2   9.0  28.0   0.6  10.0   1.4  46.0   7.0     exponential / weight
//   keys        1.2|0 9.0|1  28|2 0.6|3  10|4 1.4|5  46|6 7.0|7
//   1st draw                      drawn                             item 3, the smallest key
//   2nd draw    drawn                                               item 0, the smallest of those left
//   3rd draw                                  drawn                 item 5
#pragma once

#include <climits>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "adafocus/geometry.h"
#include "adafocus/weighted_sample.h"
#include "cpu/isa.h"
#include "cpu/matrix.inl"
#include "cpu/scratch.h"
#include "cpu/sort.h"

namespace adafocus {
namespace AF_ISA {
namespace {

constexpr int kRaces = 16;
constexpr int kWords = 4;                      // random words from one call of the generator
constexpr int kItemsAtOnce = kRaces * kWords;  // items of a long race that are in the lanes at a time

// Arguments of random_words in each lane.
struct Counters {
  int64_t row[kRaces] = {};
  uint32_t draw[kRaces] = {}, group[kRaces] = {};
};

// keys [kWords][kRaces]: race_key of items 4 group .. 4 group + 3 of each lane. The weight of item j of lane
// l is weight[j * kItemStride + l * kLaneStride].
template <int kItemStride, int kLaneStride>
AF_HD void race_four(int64_t seed, const Counters& __restrict__ at, const float* __restrict__ weight,
                     int64_t* __restrict__ keys) {
  for (int l = 0; l < kRaces; ++l) {
    const Words4 words = random_words(seed, at.row[l], Stream::kRace, at.draw[l], at.group[l]);
    AF_UNROLL
    for (int j = 0; j < kWords; ++j) {
      const float time = arrival(words.word[j], weight[j * kItemStride + l * kLaneStride]);
      keys[j * kRaces + l] = int64_t(race_key(time, kWords * at.group[l] + j));
    }
  }
}

// The race weights [T] of a row, made in the weights' own compute type.
void read_race_weights(const Matrix& weights, int64_t row, float* __restrict__ out) {
  with_row(weights, row, [&](const auto* elements, auto stride) {
    using C = compute_t<std::decay_t<decltype(*elements)>>;
    C largest = 0;
    for (int64_t t = 0; t < weights.columns; ++t) {
      largest = max_of(largest, clean_weight(load_as<C>(elements[t * stride])));
    }
    const C scale = race_scale(largest);
    for (int64_t t = 0; t < weights.columns; ++t) {
      out[t] = race_weight(load_as<C>(elements[t * stride]), scale);
    }
  });
}

template <class T>
T* take_zeros(Scratch& scratch, int64_t count) {
  T* const block = scratch.take<T>(count);
  memset(block, 0, count * sizeof(T));
  return block;
}

AF_HD int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// kRaces races side by side, of any rows and samples, in three phases:
//   1. set    gives each lane its row and sample, and the row's race weights,
//   2. run    makes the keys of all items in all lanes,
//   3. next   takes the smallest key of each lane, as often as there are draws to make.
class Races {
 public:
  Races(Scratch& scratch, const Matrix& weights, const RowRandom& random)
      : weights_(weights),
        random_(random),
        row_weight_(take_zeros<float>(scratch, padded_items())),
        weight_(take_zeros<float>(scratch, padded_items() * kRaces)),
        keys_(scratch.take<int64_t>(padded_items() * kRaces)) {
    for (int64_t& row : row_) row = -1;
  }

  // Phase 1: lane l is sample m of row b in the races to come.
  void set(int l, int64_t b, int64_t m) {
    at_.draw[l] = uint32_t(m);
    if (row_[l] == b) return;
    row_[l] = b;
    at_.row[l] = random_.row(b);
    if (read_ != b) read_race_weights(weights_, b, row_weight_);
    read_ = b;
    for (int64_t t = 0; t < weights_.columns; ++t) weight_[t * kRaces + l] = row_weight_[t];
  }

  // Phase 2: all items start.
  void run() {
    for (int64_t t = 0; t < weights_.columns; t += kWords) {
      for (uint32_t& group : at_.group) group = uint32_t(t / kWords);
      race_four<kRaces, 1>(*random_.seed, at_, weight_ + t * kRaces, keys_ + t * kRaces);
    }
  }

  // Phase 3: draw [kRaces] is the next item to arrive in each race.
  void next(int32_t* __restrict__ draw) {
    int64_t first[kRaces];
    for (int64_t& key : first) key = kDrawn;
    for (int64_t t = 0; t < weights_.columns; ++t) {
      for (int l = 0; l < kRaces; ++l) first[l] = min_of(first[l], keys_[t * kRaces + l]);
    }
    for (int l = 0; l < kRaces; ++l) {
      draw[l] = int32_t(first[l]);  // the index, which is the low half of a key
      keys_[draw[l] * int64_t(kRaces) + l] = kDrawn;
    }
  }

  // Keys [kRaces] of item t in each race; kDrawn where it has been drawn.
  const int64_t* keys(int64_t t) const { return keys_ + t * kRaces; }
  static constexpr int64_t kDrawn = INT64_MAX;  // larger than every key

 private:
  int64_t padded_items() const { return round_up(weights_.columns, kWords); }

  const Matrix& weights_;
  const RowRandom& random_;
  float* row_weight_;    // [padded T] race weights of row read_
  float* weight_;        // [padded T][kRaces] race weights of each lane's row
  int64_t* keys_;        // [padded T][kRaces] race_key, or kDrawn
  int64_t row_[kRaces];  // row of each lane
  int64_t read_ = -1;    // row that was read last
  Counters at_;
};

// One race of any number of items, kItemsAtOnce of them at a time:
//   1. race_four   makes their keys,
//   2. keep        appends the keys that may be among the first k, which are below limit_, to kept_,
//   3. discard     if there are more than 2 k, cuts kept_ down to the k smallest, whose largest is the new
//   limit_.
// In the end the k that are left are sorted.
class LongRace {
 public:
  LongRace(Scratch& scratch, const Matrix& weights, const RowRandom& random, int64_t k)
      : weights_(weights),
        random_(random),
        k_(k),
        weight_(take_zeros<float>(scratch, padded_items())),
        kept_(scratch.take<int64_t>(2 * k + kItemsAtOnce)) {}

  // out [k]: the draws of sample m of row b.
  void draw(int64_t b, int64_t m, int64_t* out) {
    if (read_ != b) read_race_weights(weights_, b, weight_);
    read_ = b;
    Counters at;
    for (int l = 0; l < kRaces; ++l) {
      at.row[l] = random_.row(b);
      at.draw[l] = uint32_t(m);
      at.group[l] = uint32_t(l);
    }
    count_ = 0;
    limit_ = INT64_MAX;
    for (int64_t t = 0; t < weights_.columns; t += kItemsAtOnce) {
      alignas(64) int64_t keys[kItemsAtOnce];  // [kWords][kRaces]
      race_four<1, kWords>(*random_.seed, at, weight_ + t, keys);
      keep(keys);
      for (uint32_t& group : at.group) group += kRaces;
    }
    discard();
    sort(kept_, k_);
    for (int64_t i = 0; i < k_; ++i) out[i] = int64_t(uint32_t(kept_[i]));
  }

 private:
  int64_t padded_items() const { return round_up(weights_.columns, kItemsAtOnce); }

  // Phase 2: keeps the keys [kItemsAtOnce] that are below the limit.
  void keep(const int64_t* keys) {
    const int64_t limit = limit_;
    int64_t count = count_;
    for (int j = 0; j < kWords; ++j, keys += kRaces) {
      int64_t least = limit;
      for (int l = 0; l < kRaces; ++l) least = min_of(least, keys[l]);
      if (least == limit) continue;
      for (int l = 0; l < kRaces; ++l) {
        kept_[count] = keys[l];
        count += keys[l] < limit;
      }
    }
    count_ = count;
    if (count_ > 2 * k_) discard();
  }

  // Phase 3: leaves the first k of the keys that were kept, the last of them at the end.
  void discard() {
    select_smallest(kept_, count_, k_);
    count_ = k_;
    limit_ = kept_[k_ - 1];
  }

  const Matrix& weights_;
  const RowRandom& random_;
  const int64_t k_;
  float* weight_;  // [padded T] race weights, padded with zeros, which lose against all others
  int64_t* kept_;  // [2 k + kItemsAtOnce] keys, of which count_ are there
  int64_t count_;
  int64_t limit_;      // a larger key is not among the first k
  int64_t read_ = -1;  // row that was read last
};

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

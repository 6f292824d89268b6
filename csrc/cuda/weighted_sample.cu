// weighted_sample on CUDA: a warp for each sample of few items, a block for each sample of any number of
// them. ADAFOCUS_CUDA_KERNEL=any in the environment takes the latter for every call (kernel_choice.h).
#include "adafocus/weighted_sample.h"
#include "cuda/kernel_choice.h"
#include "cuda/race.cuh"

namespace adafocus {
namespace {

// ---------------------------------------------------------------------------------------------------
// A warp for each sample

constexpr int kRaceWarps = 4;  // warps of a block: they share nothing, and small blocks end early

// Warps that keep a GPU busy: if there are more samples, a warp makes several, for which it reads the row
// once, but not so many that its last ones would be waited for.
constexpr int64_t kBusyWarps = 4096, kMaxSamplesOfWarp = 4;

// Draws from which on it costs less to sort all items than to find the earliest one again and again.
constexpr int64_t kMaxWarpDraws = 192;

// Grid: (warps of all rows). A warp makes `share` samples of one row.
template <int R>
__launch_bounds__(kWarp* kRaceWarps) AF_KERNEL
    weighted_sample_fwd_warp_kernel(const WeightedSample p, int64_t warps_of_row, int share) {
  const int64_t warp = int64_t(blockIdx.x) * kRaceWarps + threadIdx.y;
  const int64_t b = warp / warps_of_row, first = warp % warps_of_row * share;
  if (b >= p.weights.rows) return;
  const int k = int(p.k), samples = int(min_of<int64_t>(share, p.num_samples - first));
  int64_t* out = p.out + (b * p.num_samples + first) * k;
  WarpRace<R> race(p.weights, p.random, b);
  for (int sample = 0; sample < samples; ++sample, out += k) {
    race.start(uint32_t(first) + sample);
#pragma unroll(R <= 4 ? 8 : 1)
    for (int j = 0; j < k; ++j) {
      const uint32_t item = race.next();
      if (threadIdx.x == 0) out[j] = item;
    }
  }
}

const char* launch_warps(const WeightedSample& p, void* stream) {
  const int64_t samples = p.weights.rows * p.num_samples;
  const int64_t share = clamp_to<int64_t>(samples / kBusyWarps, 1, kMaxSamplesOfWarp);
  const int64_t warps_of_row = (p.num_samples + share - 1) / share;
  const int64_t blocks = (p.weights.rows * warps_of_row + kRaceWarps - 1) / kRaceWarps;
  return visit_items_per_lane(p.weights.columns, [&](auto items) {
    return launch(weighted_sample_fwd_warp_kernel<items()>, dim3(unsigned(blocks)), dim3(kWarp, kRaceWarps),
                  0, stream, p, warps_of_row, int(share));
  });
}

// ---------------------------------------------------------------------------------------------------
// A block for each sample, in rounds: the earliest keys are found by their digits, gathered and sorted. Keys
// are made anew each time they are read.

constexpr int kSortThreads = 512;  // threads of a block: more than kThreads, since they sort a list together
constexpr int kMaxSorted = 4096;   // keys of one round
constexpr int kDigitBits = 11, kDigits = 1 << kDigitBits;
constexpr int kKeyBits = 63;  // of race_key: times are not negative

// Keys of one sample.
template <class T>
class Keys {
 public:
  AF_DEVICE Keys(const WeightedSample& p, int64_t b, int64_t draw)
      : weights_(p.weights), b_(b), seed_(*p.random.seed), row_(p.random.row(b)), draw_(uint32_t(draw)) {
    AF_SHARED(W, of_warp, kSortThreads / kWarp);  // [warps], each warp's first lane writes, all threads read
    W largest = 0;
    for (int64_t t = thread_index(); t < weights_.columns; t += kSortThreads) {
      largest = max_of(largest, clean_weight(weight(t)));
    }
    largest = warp_max(largest);  // (the last sample's have been read before its rounds)
    if (threadIdx.x == 0) of_warp[threadIdx.y] = largest;
    __syncthreads();
    largest = 0;
    for (int warp = 0; warp < kSortThreads / kWarp; ++warp) largest = max_of(largest, of_warp[warp]);
    scale_ = race_scale(largest);
  }

  // Calls f(key) with all keys, each in one of the block's threads.
  template <class F>
  AF_DEVICE void for_each(const F& f) const {
    for (int64_t first = 4 * thread_index(); first < weights_.columns; first += 4 * kSortThreads) {
      const Words4 words = random_words(seed_, row_, Stream::kRace, draw_, uint32_t(first / 4));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t t = first + i;
        if (t < weights_.columns) {
          f(race_key(arrival(words.word[i], race_weight(weight(t), scale_)), uint32_t(t)));
        }
      }
    }
  }

 private:
  using W = compute_t<T>;

  AF_DEVICE W weight(int64_t t) const {
    return load_as<W>(static_cast<const T*>(weights_.data)[weights_.offset(b_, t)]);
  }

  const Matrix& weights_;
  int64_t b_, seed_, row_;
  uint32_t draw_;
  W scale_;
};

// Value of a digit, and the numbers of keys before those that have it, and through those.
struct Digit {
  uint64_t value;
  uint32_t before, through;
};

// The end of a round: at least `wanted` of the keys from `begin` on are before it, but no more than
// kMaxSorted. It is found digit by digit, the highest first. Here a digit has 2 bits, 5 keys are wanted, and
// 6 can be sorted:
//
//   first digit      0    1    2    3
//   keys             2    9    0    4     all from `begin` on
//   through          2   11               digit 1 reaches 5, but 11 are too many: on from its first key,
//                        |                base, which 2 keys precede: skipped
//   second digit     0    1    2    3
//   keys             1    3    1    4     those with first digit 1
//   through          3    6               digit 1 reaches 5, and 6 can be sorted: the end lies behind it
template <class T>
AF_DEVICE uint64_t end_of_round(const Keys<T>& keys, uint64_t begin, uint32_t wanted) {
  AF_SHARED(uint32_t, histogram, kDigits);  // [kDigits], all threads add, the first warp reads
  AF_SHARED(Digit, found, 1);               // [1], a lane of the first warp writes, all threads read
  uint64_t base = 0;                        // the keys from here on are counted by their digits
  uint32_t skipped = 0;                     // keys from `begin` on that are before it
  for (int shift = kKeyBits - kDigitBits;; shift = max_of(shift - kDigitBits, 0)) {
    for (int n = thread_index(); n < kDigits; n += kSortThreads) histogram[n] = 0;
    __syncthreads();
    keys.for_each([&](uint64_t key) {
      const uint64_t digit = (key - base) >> shift;
      if (key >= begin && key >= base && digit < kDigits) atomicAdd(&histogram[digit], 1u);
    });
    __syncthreads();
    if (threadIdx.y == 0) {
      uint32_t sum = skipped;
      for (int first = 0; sum < wanted; first += kWarp) {
        const uint32_t count = histogram[first + threadIdx.x];
        const uint32_t through = sum + warp_scan(count, [](uint32_t a, uint32_t b) { return a + b; });
        if (through >= wanted && through - count < wanted) {
          found[0] = {first + threadIdx.x, through - count, through};
        }
        sum = __shfl_sync(kAllLanes, through, kWarp - 1);
      }
    }
    __syncthreads();
    base += found[0].value << shift;
    if (found[0].through <= kMaxSorted) return base + (uint64_t(1) << shift);
    skipped = found[0].before;
  }
}

// Sorts keys [size], size a power of two, in a bitonic network. Ends with a barrier.
AF_DEVICE void sort(uint64_t* keys, int size) {
  for (int length = 2; length <= size; length *= 2) {
    for (int distance = length / 2; distance > 0; distance /= 2) {
      for (int n = thread_index(); n < size / 2; n += kSortThreads) {
        const int low = 2 * n - n % distance, high = low + distance;
        const uint64_t a = keys[low], b = keys[high];
        const bool rising = (low & length) == 0;
        keys[low] = rising == (a < b) ? a : b;
        keys[high] = rising == (a < b) ? b : a;
      }
      __syncthreads();
    }
  }
}

// Grid: (samples of all rows).
template <class T>
__launch_bounds__(kSortThreads, 1) AF_KERNEL weighted_sample_fwd_block_kernel(const WeightedSample p) {
  AF_SHARED(uint64_t, sorted, kMaxSorted);  // [keys of the round, padded], all threads write, sort and read
  AF_SHARED(uint32_t, gathered, 1);         // [1]: keys in `sorted`, all threads count, then read
  for (int64_t sample = blockIdx.x; sample < p.weights.rows * p.num_samples; sample += gridDim.x) {
    const Keys<T> keys(p, sample / p.num_samples, sample % p.num_samples);
    uint64_t begin = 0;  // the keys before it have been drawn
    for (int64_t drawn = 0; drawn < p.k;) {
      const int64_t wanted = min_of<int64_t>(p.k - drawn, kMaxSorted / 2);
      const uint64_t end = p.weights.columns - drawn <= kMaxSorted
                               ? uint64_t(1) << kKeyBits
                               : end_of_round(keys, begin, uint32_t(wanted));
      if (thread_index() == 0) gathered[0] = 0;
      __syncthreads();
      keys.for_each([&](uint64_t key) {
        if (key >= begin && key < end) sorted[atomicAdd(&gathered[0], 1u)] = key;
      });
      __syncthreads();
      const int count = int(gathered[0]);
      int size = 1;
      while (size < count) size *= 2;
      for (int n = count + thread_index(); n < size; n += kSortThreads) sorted[n] = ~uint64_t(0);
      __syncthreads();
      sort(sorted, size);
      const int64_t written = min_of<int64_t>(p.k - drawn, count);
      for (int64_t n = thread_index(); n < written; n += kSortThreads) {
        p.out[sample * p.k + drawn + n] = int64_t(uint32_t(sorted[n]));
      }
      drawn += count;  // (the next round waits before it gathers where these have been read)
      begin = end;
    }
  }
}

const char* launch_blocks(const WeightedSample& p, void* stream) {
  const int64_t blocks = min_of(p.weights.rows * p.num_samples, kMaxGridX);
  return visit_float(p.weights.dtype, [&](auto tag) {
    return launch(weighted_sample_fwd_block_kernel<typename decltype(tag)::type>, dim3(unsigned(blocks)),
                  dim3(kWarp, kSortThreads / kWarp), 0, stream, p);
  });
}

}  // namespace

const char* weighted_sample_fwd_cuda(const WeightedSample& p, void* stream) {
  if (p.weights.rows * p.num_samples == 0) return nullptr;
  return launch_fast_or_any(
      p.weights.columns <= kMaxItems && p.k <= kMaxWarpDraws, [&] { return launch_warps(p, stream); },
      [&] { return launch_blocks(p, stream); });
}

}  // namespace adafocus

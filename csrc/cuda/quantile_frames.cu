// quantile_frames on CUDA: a warp for each row, which walks along bins and quantiles, 32 of each at a time.
#include "adafocus/quantile_frames.h"
#include "cuda/random.cuh"
#include "cuda/warp.cuh"

namespace adafocus {
namespace {

constexpr int kRows = 4;  // rows of a block, a warp each

// Bins of a row, up to 32, one a lane.
template <class C>
struct Bins {
  int64_t first;  // number of the first bin
  int count;
  bool last;   // these are the last bins of the row
  double sum;  // of the weights of the row up to the last of these bins
  C start;     // the quantile at which the first bin starts
  C end;       // the quantile at which this lane's bin ends

  // Sums weights from left to right, which everywhere gives the same: the order decides what is rounded.
  AF_DEVICE Bins(const Matrix& weights, int64_t b, int64_t first, double sum_before)
      : first(first),
        count(int(min_of<int64_t>(weights.columns - first, kWarp))),
        last(first + kWarp >= weights.columns),
        sum(sum_before),
        start(C(sum_before)) {
    const int lane = threadIdx.x;
    double weight = 0;
    if (lane < count) {
      visit(weights.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        weight = double(
            clean_weight(load_as<C>(static_cast<const T*>(weights.data)[weights.offset(b, first + lane)])));
      });
    }
    double up_to = sum;
    for (int n = 0; n < count; ++n) {
      sum += __shfl_sync(kAllLanes, weight, n);
      if (n == lane) up_to = sum;
    }
    end = last && lane == count - 1 ? C(1) : C(up_to);
  }

  // The largest quantile that these bins reach.
  AF_DEVICE C reach() const { return __shfl_sync(kAllLanes, end, count - 1); }

  // The frame of a quantile that these bins reach, or that is in the last bin of the row.
  AF_DEVICE int64_t frame_of(C quantile, int64_t bins, int64_t num_frames) const {
    int bin = 0;  // the number of bins, of the first count - 1, that end before the quantile
    for (int step = kWarp / 2; step > 0; step /= 2) {
      const int probed = bin + step - 1;
      const C probe = __shfl_sync(kAllLanes, end, probed);
      if (probed < count - 1 && probe < quantile) bin += step;
    }
    const C before = __shfl_sync(kAllLanes, end, max_of(bin - 1, 0)), high = __shfl_sync(kAllLanes, end, bin);
    return frame_at(quantile, first + bin, bin == 0 ? start : before, high, bins, num_frames);
  }
};

template <class C>
AF_DEVICE C jitter_of(const QuantileFrames& p, int64_t b, int64_t i) {
  C jitter = C(0.5);
  if (p.random.seed) {
    const Words4 words = random_words(*p.random.seed, p.random.row(b), Stream::kJitter, 0, uint32_t(i / 4));
    jitter = C(1.0f - uniform(word_of(words, uint32_t(i % 4))));
  } else if (p.jitter.data) {
    visit(p.jitter.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      jitter = clean_jitter(load_as<C>(static_cast<const T*>(p.jitter.data)[p.jitter.offset(b, i)]));
    });
  }
  return jitter;
}

// Grid: (rows, kRows to a block).
template <class C>
__launch_bounds__(kWarp* kRows, 1) AF_KERNEL quantile_frames_fwd_kernel(const QuantileFrames p) {
  const int64_t b = int64_t(blockIdx.x) * kRows + threadIdx.y;
  if (b >= p.weights.rows) return;
  const int64_t bins = p.weights.columns;
  double sum = 0;
  int64_t done = 0;           // quantiles so far: they never fall, and are found in their order
  int64_t least = INT64_MIN;  // the maximum of index_i - i so far, and its minimum for the next ones
  for (int64_t first = 0; done < p.k; first += kWarp) {
    const Bins<C> chunk(p.weights, b, first, sum);
    sum = chunk.sum;
    const C reach = chunk.reach();
    int found;
    do {
      const int64_t i = done + threadIdx.x;
      const C at = i < p.k ? quantile(i, jitter_of<C>(p, b, i), p.k) : C(1);
      const bool here = i < p.k && (chunk.last || at <= reach);
      found = __popc(__ballot_sync(kAllLanes, here));
      int64_t ahead = chunk.frame_of(at, bins, p.num_frames) - i;
      ahead = max_of(least, warp_scan(ahead, [](int64_t a, int64_t b) { return max_of(a, b); }));
      if (here) p.out[b * p.k + i] = min_of(ahead + i, p.num_frames - p.k + i);
      if (found > 0) least = __shfl_sync(kAllLanes, ahead, found - 1);
      done += found;
    } while (found == kWarp);
  }
}

template <class C>
const char* fwd(const QuantileFrames& p, void* stream) {
  const int64_t blocks = (p.weights.rows + kRows - 1) / kRows;
  return launch(quantile_frames_fwd_kernel<C>, dim3(unsigned(blocks)), dim3(kWarp, kRows), 0, stream, p);
}

}  // namespace

const char* quantile_frames_fwd_cuda(const QuantileFrames& p, void* stream) {
  if (p.weights.rows == 0) return nullptr;
  return visit_compute(p.weights.dtype == DType::kFloat64,
                       [&](auto tag) { return fwd<typename decltype(tag)::type>(p, stream); });
}

}  // namespace adafocus

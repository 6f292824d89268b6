// exit_gate on CUDA: a warp scores a row at a time, and the last block to finish lists the rows.
//
//   block 0   scores rows 0-7, 16-23, ..., and flags them    takes ticket 0
//   block 1   scores rows 8-15, 24-31, ..., and flags them   takes ticket 1, the last: sees all flags, and
//                                                            lists the rows
//
// The lists keep the order of the rows. In the last block each warp counts the flags of its own rows by
// votes; the sum of the warps before it is where its rows begin in a list, and the votes of the lower lanes
// are where a lane's row is. Two warps of 4 lanes, one row a lane (s: stays, l: leaves, -: does not run):
//
//              warp 0        warp 1
//   rows       0 1 2 3       4 5 6 7
//   flags      s l s -       l s s l
//   counts     2 s, 1 l      2 s, 2 l      of_warp
//   begin at   0 s, 0 l      2 s, 1 l      the sums of the counts before
//   keep       0 2           5 6
//   leave      1             4 7
#include <cfloat>

#include "adafocus/exit_gate.h"
#include "cuda/intrinsics.h"
#include "cuda/warp.cuh"

namespace adafocus {
namespace {

constexpr int kLoneThreads = 1024;  // threads of a block that does all: no other one helps it
constexpr int64_t kMaxBlocks = 2048;
constexpr int64_t kLoneRows = 32;  // rows up to which one block is quicker than several that must meet
constexpr int kRounds = 8;         // rows that a lane lists at a time

// Bits of a row's flag.
constexpr uint8_t kLeaves = 1, kRuns = 2;

// The memory that a call has of its own, exit_gate_scratch_words of it.
struct Scratch {
  uint32_t* words;

  AF_HD uint8_t* flags() const { return reinterpret_cast<uint8_t*>(words); }  // [N]
  AF_HD uint32_t* ticket(int64_t rows) const { return words + exit_gate_scratch_words(rows) - 1; }
};

// Sums Z = sum exp x and S = sum x exp x over x = z - max, of the logits z so far. The maximum of no logits
// may be any finite number.
template <class C>
struct SoftmaxSums {
  C max = C(sizeof(C) == 8 ? -DBL_MAX : -FLT_MAX), Z = 0, S = 0;

  AF_DEVICE void raise(C to) {
    const C by = below_max(max, to), scale = counted(by, std::exp(by));
    S = scale * (S + by * Z);
    Z *= scale;
    max = to;
  }

  // Adds a logit that is no larger than the maximum, or NaN.
  AF_DEVICE void add(C z) {
    const C x = below_max(z, max), e = counted(x, std::exp(x));
    Z += e;
    S += x * e;
  }
};

// Logits of 16 bytes.
template <class T>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / sizeof(T);
  T value[kSize];
};

// Adds one lane's vectors of a row. It loads kVectors, 32 apart, before it uses any; more would not fit its
// registers.
template <class C, class T>
AF_DEVICE void add_vectors(SoftmaxSums<C>& sums, const Vector<T>* row, uint32_t vectors, uint32_t lane) {
  constexpr int kSize = Vector<T>::kSize, kVectors = sizeof(T) == 4 ? 4 : 2;
  for (uint32_t first = 0; first < vectors; first += kWarp * kVectors) {
    Vector<T> loaded[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const uint32_t at = first + v * kWarp + lane;
      if (at < vectors) loaded[v] = row[at];
    }
    C z[kVectors][kSize], max = sums.max;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const bool exists = first + v * kWarp + lane < vectors;
#pragma unroll
      for (int e = 0; e < kSize; ++e) {
        z[v][e] = exists ? load_as<C>(loaded[v].value[e]) : -C(__builtin_inf());
        max = max_of(z[v][e], max);
      }
    }
    sums.raise(max);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (first + v * kWarp >= vectors) break;  // for all lanes
#pragma unroll
      for (int e = 0; e < kSize; ++e) sums.add(z[v][e]);
    }
  }
}

// Score of a row, in every lane of a warp.
template <class C, class T>
AF_DEVICE C score_of(const ExitGate& p, int64_t n, uint32_t lane) {
  constexpr uint32_t kSize = Vector<T>::kSize;
  const T* const row = static_cast<const T*>(p.logits.data) + n * p.logits.row_stride;
  const int64_t stride = p.logits.column_stride;
  const uint32_t classes = uint32_t(p.logits.columns);
  // The first logits, up to the first whole vector in memory, and those after the last are taken singly.
  const uint32_t to_aligned = uint32_t(-reinterpret_cast<intptr_t>(row) & 15) / uint32_t(sizeof(T));
  const uint32_t head = stride == 1 ? min_of(to_aligned, classes) : classes;
  const uint32_t vectors = (classes - head) / kSize;
  SoftmaxSums<C> sums;
  add_vectors(sums, reinterpret_cast<const Vector<T>*>(row + head), vectors, lane);
  for (uint32_t i = lane; i < classes - vectors * kSize; i += kWarp) {
    const C z = load_as<C>(row[(i < head ? i : i + vectors * kSize) * stride]);
    sums.raise(max_of(z, sums.max));
    sums.add(z);
  }
  sums.raise(warp_reduce(sums.max, [](C a, C b) { return max_of(a, b); }));
  return exit_score(p.confidence, warp_sum(sums.Z), warp_sum(sums.S));
}

// Numbers of rows that stay and that leave.
struct Counts {
  uint32_t stay, leave;
};

// Writes a warp's rows into a list from place `at` on: those of `first` and on whose lane's bit in `rows` is
// set.
AF_DEVICE void append(int64_t* list, int64_t capacity, uint32_t rows, int64_t at, int64_t first,
                      uint32_t lane) {
  const int64_t place = at + __popc(rows & ((1u << lane) - 1));
  if ((rows >> lane & 1) && place < capacity) list[place] = first + lane;
}

// Flags the rows of the list as running. A row that the list has twice is flagged twice, maybe by two
// threads.
AF_DEVICE void flag_listed(const ExitGate& p, Scratch scratch) {
  for (int64_t i = threadIdx.x; i < p.num_active; i += blockDim.x) {
    const int64_t row = p.active_row(i);
    if (row >= 0) atomicOr(scratch.words + row / 4, uint32_t(kRuns) << row % 4 * 8);
  }
}

// Lists the rows by their flags, in order. The threads of the block take kRounds times their number of rows
// at a time.
AF_DEVICE void list_rows(const ExitGate& p, const uint8_t* flags) {
  AF_SHARED(Counts, of_warp, kLoneThreads / kWarp);  // [warps], each writes its own, all threads read
  const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  int64_t stay = 0, leave = 0;  // in the rows so far
  for (int64_t start = 0; start < p.logits.rows; start += int64_t(blockDim.x) * kRounds) {
    const int64_t first = start + warp * kWarp * kRounds;
    uint8_t flag[kRounds];
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const int64_t n = first + r * kWarp + lane;
      flag[r] = n < p.logits.rows ? flags[n] : 0;
    }
    uint32_t stays[kRounds], leaves[kRounds];
    Counts own{0, 0};
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const int64_t n = first + r * kWarp + lane;
      stays[r] = __ballot_sync(kAllLanes, flag[r] == kRuns);
      leaves[r] = __ballot_sync(kAllLanes, flag[r] == (kRuns | kLeaves));
      own.stay += __popc(stays[r]);
      own.leave += __popc(leaves[r]);
      if (n < p.logits.rows) p.exited[n] = flag[r] == (kRuns | kLeaves);
    }
    if (lane == 0) of_warp[warp] = own;
    __syncthreads();
    int64_t stay_at = stay, leave_at = leave;
    for (uint32_t w = 0; w < warps; ++w) {
      const Counts counts = of_warp[w];
      stay_at += w < warp ? counts.stay : 0;
      leave_at += w < warp ? counts.leave : 0;
      stay += counts.stay;
      leave += counts.leave;
    }
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      append(p.keep, p.capacity, stays[r], stay_at, first + r * kWarp, lane);
      append(p.leave, p.capacity, leaves[r], leave_at, first + r * kWarp, lane);
      stay_at += __popc(stays[r]);
      leave_at += __popc(leaves[r]);
    }
    __syncthreads();  // the counts are read before the next rows overwrite them
  }
  for (int64_t i = stay + threadIdx.x; i < p.capacity; i += blockDim.x) p.keep[i] = -1;
  for (int64_t i = leave + threadIdx.x; i < p.capacity; i += blockDim.x) p.leave[i] = -1;
  if (threadIdx.x == 0) {
    p.counts[0] = stay;
    p.counts[1] = leave;
  }
}

// True in the last block of the grid that comes here, which sees what all blocks wrote before.
AF_DEVICE bool is_last_block(uint32_t* ticket) {
  __syncthreads();
  bool last = true;
  if (gridDim.x > 1 && threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    __threadfence();
  }
  return __syncthreads_and(last);
}

// Threads that fit the registers: half as many for double.
template <class T>
constexpr int kThreadsThatFit = sizeof(T) == 8 ? kLoneThreads / 2 : kLoneThreads;

// Grid: as many warps as keep the rows busy. The ticket is 0 at the start, if there are several blocks.
template <class T>
__launch_bounds__(kThreadsThatFit<T>, 1) AF_KERNEL exit_gate_fwd_kernel(const ExitGate p, Scratch scratch) {
  using C = compute_t<T>;
  const uint32_t lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  const C threshold = p.threshold_as<C>();
  for (int64_t n = int64_t(blockIdx.x) * warps + threadIdx.x / kWarp; n < p.logits.rows;
       n += int64_t(gridDim.x) * warps) {
    const C score = score_of<C, T>(p, n, lane);
    if (lane != 0) continue;
    static_cast<C*>(p.score)[n] = score;
    const bool runs = p.active_kind == Active::kMask ? static_cast<const uint8_t*>(p.active)[n] != 0
                                                     : p.active_kind == Active::kAll;
    scratch.flags()[n] = uint8_t((p.leaves(score, threshold) ? kLeaves : 0) | (runs ? kRuns : 0));
  }
  if (!is_last_block(scratch.ticket(p.logits.rows))) return;
  if (p.active_kind == Active::kList) {
    flag_listed(p, scratch);
    __syncthreads();
  }
  list_rows(p, scratch.flags());
}

template <class T>
const char* fwd(const ExitGate& p, Scratch scratch, void* stream) {
  if (p.logits.rows <= kLoneRows) {
    return launch(exit_gate_fwd_kernel<T>, dim3(1), dim3(kThreadsThatFit<T>), 0, stream, p, scratch);
  }
  const int64_t blocks = min_of<int64_t>((p.logits.rows + kWarps - 1) / kWarps, kMaxBlocks);
  if (const char* why = clear_memory(scratch.ticket(p.logits.rows), sizeof(uint32_t), stream)) return why;
  return launch(exit_gate_fwd_kernel<T>, dim3(unsigned(blocks)), dim3(kThreads), 0, stream, p, scratch);
}

}  // namespace

const char* exit_gate_fwd_cuda(const ExitGate& p, uint32_t* scratch, void* stream) {
  if (p.logits.columns > INT32_MAX) return "there are more than 2^31 classes";
  return visit_float(p.logits.dtype, [&](auto tag) {
    return fwd<typename decltype(tag)::type>(p, Scratch{scratch}, stream);
  });
}

}  // namespace adafocus

// exit_gate on CUDA: a warp scores a row at a time and flags it, then the rows are listed by their flags.
//
// Of up to kManyRows, the last block of the same kernel to finish lists all:
//
//   block 0   scores rows 0-7, 16-23, ..., and flags them    takes ticket 0
//   block 1   scores rows 8-15, 24-31, ..., and flags them   takes ticket 1, the last: sees all flags, and
//                                                            lists the rows
//
// More are listed by a kernel of its own, each block a chunk of them. It counts all flags before its chunk
// for itself: for a row all blocks together execute no more than three instructions of a warp for that, while
// scoring it takes more than a hundred.
//
// The lists keep the order of the rows. In a block each warp counts the flags of its own rows by votes; the
// sum of the warps before it is where its rows begin in a list, and the votes of the lower lanes are where a
// lane's row is. Rows that are not in a list pad it, from the end: so each row has a place of its own in
// both lists, and no block needs the totals. Two warps of 4 lanes, one row a lane (s: stays, l: leaves, -:
// does not run):
//
//              warp 0        warp 1
//   rows       0 1 2 3       4 5 6 7
//   flags      s l s -       l s s l
//   counts     2 s, 1 l      2 s, 2 l      of_warp
//   begin at   0 s, 0 l      2 s, 1 l      the sums of the counts before
//   keep       0 2           5 6           places 0 to 3; rows 1, 3, 4, 7 write -1 into 7, 6, 5, 4
//   leave      1             4 7           places 0 to 2; rows 0, 2, 3, 5, 6 write -1 into 7 down to 3
#include <cfloat>

#include "adafocus/exit_gate.h"
#include "cuda/intrinsics.h"
#include "cuda/warp.cuh"

namespace adafocus {
namespace {

constexpr int kLoneThreads = 1024;  // threads of a block that does all: no other one helps it
constexpr int64_t kMaxBlocks = 2048;
constexpr int64_t kLoneRows = 32;  // rows up to which one block is quicker than several that must meet
constexpr int kRounds = 8;         // rows that a lane of the last block lists
constexpr int64_t kManyRows = kRounds * kThreads;  // rows up to which the last block lists all
constexpr int kListRounds = 2;                     // rows that a lane lists at a time where many blocks do
constexpr int64_t kListBlocks = 64;  // that list, at most: each looks at all flags before its own

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

// Flags the rows of the list as running, by as many threads as `step`, of which this is number `first`. A row
// that the list has twice is flagged twice, maybe by two threads.
AF_DEVICE void flag_listed(const ExitGate& p, Scratch scratch, int64_t first, int64_t step) {
  for (int64_t i = first; i < p.num_active; i += step) {
    const int64_t row = p.active_row(i);
    if (row >= 0) atomicOr(scratch.words + row / 4, uint32_t(kRuns) << row % 4 * 8);
  }
}

// Numbers of rows that stay and that leave.
template <class I>
struct Counts {
  I stay, leave;

  template <class J>
  AF_DEVICE void add(Counts<J> more) {
    stay += more.stay;
    leave += more.leave;
  }
};
using WarpCounts = Counts<uint32_t>;

// Adds to `at` the counts of the warps before this one, and to `all` those of all. `of_warp` is shared
// memory [warps] that no thread reads any more.
template <class Index>
AF_DEVICE void add_warps(WarpCounts own, WarpCounts* of_warp, Counts<Index>& at, Counts<Index>& all) {
  const uint32_t warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  if (threadIdx.x % kWarp == 0) of_warp[warp] = own;
  __syncthreads();
  for (uint32_t w = 0; w < warps; ++w) {
    const WarpCounts counts = of_warp[w];
    at.add(w < warp ? counts : WarpCounts{0, 0});
    all.add(counts);
  }
}

// Writes a lane's row n of `rows` where it belongs in a list of `capacity` that has `at` rows before the
// warp's: those whose lane's bit is set in `listed` one after the other, for any other a -1, from the end
// down.
template <class Index>
AF_DEVICE void put(int64_t* list, Index capacity, uint32_t listed, Index at, Index n, Index rows) {
  const uint32_t lane = threadIdx.x % kWarp;
  const bool is_listed = listed >> lane & 1;
  const Index before = at + __popc(listed & ((1u << lane) - 1));
  const Index place = is_listed ? before : before + (rows - 1 - n);
  if (n < rows && place < capacity) list[place] = is_listed ? n : -1;
}

// Lists the block's next rows from `start` on by their flags, kLaneRows times its threads, and adds them to
// the counts of the rows before. An Index holds any number of a row.
template <int kLaneRows, class Index>
AF_DEVICE void list_rows(const ExitGate& p, const uint8_t* flags, Index start, WarpCounts* of_warp,
                         Counts<Index>& counts) {
  const Index rows = Index(p.logits.rows), capacity = Index(min_of(p.capacity, p.logits.rows));
  const Index first = start + Index(threadIdx.x / kWarp * kWarp * kLaneRows + threadIdx.x % kWarp);
  uint8_t flag[kLaneRows];
#pragma unroll
  for (int r = 0; r < kLaneRows; ++r) {
    const Index n = first + r * kWarp;
    flag[r] = n < rows ? flags[n] : 0;
  }
  uint32_t stays[kLaneRows], leaves[kLaneRows];
  WarpCounts of_round[kLaneRows], own{0, 0};
#pragma unroll
  for (int r = 0; r < kLaneRows; ++r) {
    const Index n = first + r * kWarp;
    stays[r] = __ballot_sync(kAllLanes, flag[r] == kRuns);
    leaves[r] = __ballot_sync(kAllLanes, flag[r] == (kRuns | kLeaves));
    of_round[r] = {uint32_t(__popc(stays[r])), uint32_t(__popc(leaves[r]))};
    own.add(of_round[r]);
    if (n < rows) p.exited[n] = flag[r] == (kRuns | kLeaves);
  }
  Counts<Index> at = counts;
  add_warps(own, of_warp, at, counts);
#pragma unroll
  for (int r = 0; r < kLaneRows; ++r) {
    const Index n = first + r * kWarp;
    put(p.keep, capacity, stays[r], at.stay, n, rows);
    put(p.leave, capacity, leaves[r], at.leave, n, rows);
    at.add(of_round[r]);
  }
}

// Writes what no row has a place for: the padding of the lists beyond as many places as there are rows, by
// as many threads as `step`, of which this is number `first`.
AF_DEVICE void pad(const ExitGate& p, int64_t first, int64_t step) {
  for (int64_t i = p.logits.rows + first; i < p.capacity; i += step) p.keep[i] = p.leave[i] = -1;
}

template <class Index>
AF_DEVICE void write_counts(const ExitGate& p, Counts<Index> counts) {
  p.counts[0] = counts.stay;
  p.counts[1] = counts.leave;
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

// Scores and flags every row, by the grid's warps.
template <class T>
AF_DEVICE void score_rows(const ExitGate& p, uint8_t* flags) {
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
    flags[n] = uint8_t((p.leaves(score, threshold) ? kLeaves : 0) | (runs ? kRuns : 0));
  }
}

// Of up to kManyRows. Grid: as many warps as there are rows, or one block of up to kLoneRows. The ticket is 0
// at the start, if there are several blocks.
template <class T>
__launch_bounds__(kThreadsThatFit<T>, 1) AF_KERNEL exit_gate_fwd_kernel(const ExitGate p, Scratch scratch) {
  AF_SHARED(WarpCounts, of_warp, kLoneThreads / kWarp);  // [warps], each writes its own, all threads read
  score_rows<T>(p, scratch.flags());
  if (!is_last_block(scratch.ticket(p.logits.rows))) return;
  if (p.active_kind == Active::kList) {
    flag_listed(p, scratch, threadIdx.x, blockDim.x);
    __syncthreads();
  }
  Counts<int32_t> counts{0, 0};
  list_rows<kRounds, int32_t>(p, scratch.flags(), 0, of_warp, counts);
  pad(p, threadIdx.x, blockDim.x);
  if (threadIdx.x == 0) write_counts(p, counts);
}

// Of more than kManyRows, three kernels: the first. Grid: as many warps as keep the rows busy.
template <class T>
__launch_bounds__(kThreads) AF_KERNEL exit_gate_score_kernel(const ExitGate p, Scratch scratch) {
  score_rows<T>(p, scratch.flags());
}

// The second, if there is a list of the rows that run. Grid: a thread for each entry.
__launch_bounds__(kThreads) AF_KERNEL exit_gate_flag_kernel(const ExitGate p, Scratch scratch) {
  flag_listed(p, scratch, int64_t(blockIdx.x) * blockDim.x + threadIdx.x, int64_t(gridDim.x) * blockDim.x);
}

// Counts a thread's share of the rows before `end` by their flags, 16 at a time; `end` is a multiple of that.
// It loads kVectors times 16 before it uses any.
AF_DEVICE WarpCounts count_flags(const uint8_t* flags, int64_t end) {
  static_assert(kLeaves == 1 && kRuns == 2, "four flags take bits 0 and 1 of the bytes of a word");
  constexpr int kVectors = 8;
  WarpCounts counts{0, 0};
  for (int64_t first = threadIdx.x; first < end / 16; first += kVectors * kThreads) {
    Bytes16 loaded[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = first + v * kThreads;
      loaded[v] = at < end / 16 ? load_16(flags + 16 * at) : Bytes16{};
    }
#pragma unroll
    for (const Bytes16& of_16 : loaded) {
      const uint32_t bits = of_16.word[0] + 4 * of_16.word[1] + 16 * of_16.word[2] + 64 * of_16.word[3];
      const uint32_t run = bits >> 1 & 0x55555555;
      counts.add(WarpCounts{uint32_t(__popc(run & ~bits)), uint32_t(__popc(run & bits))});
    }
  }
  return counts;
}

// The last: lists the rows. Grid: a block for each chunk, which is a multiple of what a block lists at a
// time.
__launch_bounds__(kThreads) AF_KERNEL
    exit_gate_list_kernel(const ExitGate p, Scratch scratch, int64_t chunk) {
  AF_SHARED(WarpCounts, of_warp, 2 * kWarps);  // [2, warps] in turns, each writes its own, all threads read
  const uint8_t* const flags = scratch.flags();
  const int64_t begin = blockIdx.x * chunk, end = min_of(begin + chunk, p.logits.rows);
  const WarpCounts own = count_flags(flags, begin);
  Counts<int64_t> counts{0, 0}, unused = counts;
  add_warps({warp_sum(own.stay), warp_sum(own.leave)}, of_warp, unused, counts);
  uint32_t turn = 1;
  for (int64_t start = begin; start < end; start += kListRounds * kThreads, ++turn) {
    // The warps that write here have waited in the turn before for all that read here in the one before that.
    list_rows<kListRounds, int64_t>(p, flags, start, of_warp + turn % 2 * kWarps, counts);
  }
  pad(p, int64_t(blockIdx.x) * kThreads + threadIdx.x, int64_t(gridDim.x) * kThreads);
  if (end == p.logits.rows && threadIdx.x == 0) write_counts(p, counts);
}

// Flags the rows of a list and lists all, after they have been scored.
const char* list_by_many(const ExitGate& p, Scratch scratch, void* stream) {
  if (p.active_kind == Active::kList && p.num_active > 0) {
    const int64_t blocks = min_of(divide_up(p.num_active, kThreads), kMaxGridX);
    if (const char* why =
            launch(exit_gate_flag_kernel, dim3(unsigned(blocks)), dim3(kThreads), 0, stream, p, scratch)) {
      return why;
    }
  }
  constexpr int64_t kAtATime = kListRounds * kThreads;
  const int64_t chunk = divide_up(divide_up(p.logits.rows, kAtATime), kListBlocks) * kAtATime;
  return launch(exit_gate_list_kernel, dim3(unsigned(divide_up(p.logits.rows, chunk))), dim3(kThreads), 0,
                stream, p, scratch, chunk);
}

template <class T>
const char* fwd(const ExitGate& p, Scratch scratch, void* stream) {
  const int64_t rows = p.logits.rows;
  if (rows <= kLoneRows) {
    return launch(exit_gate_fwd_kernel<T>, dim3(1), dim3(kThreadsThatFit<T>), 0, stream, p, scratch);
  }
  const dim3 blocks(unsigned(min_of(divide_up(rows, kWarps), kMaxBlocks)));
  if (rows <= kManyRows) {
    if (const char* why = clear_memory(scratch.ticket(rows), sizeof(uint32_t), stream)) return why;
    return launch(exit_gate_fwd_kernel<T>, blocks, dim3(kThreads), 0, stream, p, scratch);
  }
  if (const char* why = launch(exit_gate_score_kernel<T>, blocks, dim3(kThreads), 0, stream, p, scratch)) {
    return why;
  }
  return list_by_many(p, scratch, stream);
}

}  // namespace

const char* exit_gate_fwd_cuda(const ExitGate& p, uint32_t* scratch, void* stream) {
  if (p.logits.columns > INT32_MAX) return "there are more than 2^31 classes";
  return visit_float(p.logits.dtype, [&](auto tag) {
    return fwd<typename decltype(tag)::type>(p, Scratch{scratch}, stream);
  });
}

}  // namespace adafocus

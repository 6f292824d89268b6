// exit_gate: which rows of a batch are certain enough to leave, on any device.
//
// The entropy of the softmax of z is H = log Z - S / Z with x = z - max z, Z = sum exp x, S = sum x exp x: no
// p log p on a p that underflowed. The confidence is 1 / Z.
#pragma once

#include <cmath>

#include "adafocus/geometry.h"
#include "adafocus/matrix.h"

namespace adafocus {

// Rows that still run: all, or those of a mask [N] of bytes, or those of a list of row numbers, of which the
// ones out of range (such as the -1 that pads the list) count for nothing.
enum class Active : int8_t { kAll, kMask, kList };

struct ExitGate {
  Matrix logits;          // [N, C], C >= 1
  bool confidence;        // the criterion, else entropy
  const void* threshold;  // one number on the device, or null for `bound`
  DType threshold_dtype;
  double bound;
  Active active_kind;
  IndexType active_type;  // integers of a list
  const void* active;     // [N] mask or [num_active] list, or null
  int64_t num_active;     // entries of a list
  int64_t capacity;       // entries of keep and leave
  void* score;            // [N] of the compute type, for every row, running or not
  uint8_t* exited;        // [N] 1 if the row was running and leaves
  int64_t *keep, *leave;  // [capacity] the rows that stay or leave, in order, padded with -1, or cut off
  int64_t* counts;        // [2] numbers of rows that stay and that leave

  AF_HD bool double_precision() const { return logits.dtype == DType::kFloat64; }

  // The threshold, rounded to the compute type.
  template <class C>
  AF_HD C threshold_as() const {
    C value = C(bound);
    if (threshold) {
      visit(threshold_dtype, [&](auto tag) {
        value = load_as<C>(*static_cast<const typename decltype(tag)::type*>(threshold));
      });
    }
    return value;
  }

  // NaN never leaves.
  template <class C>
  AF_HD bool leaves(C score, C at) const {
    return confidence ? score >= at : score <= at;
  }

  // Entry i of the list, or -1 if it is no row.
  AF_HD int64_t active_row(int64_t i) const {
    const int64_t row = load_index(active, active_type, i);
    return row >= 0 && row < logits.rows ? row : -1;
  }
};

// A logit that is this far below the maximum counts nothing, so that a sure row's entropy is exactly 0: exp
// of less is no normal number, which backends would round differently.
template <class C>
constexpr C kLeastLogit = sizeof(C) == 8 ? C(-708) : C(-87);

// x = z - max, bounded from below: a logit of -inf gives no x exp x = -inf * 0. NaN stays NaN, and so does
// the difference of two infinities.
template <class C>
AF_HD C below_max(C z, C max) {
  return max_of(kLeastLogit<C>, z - max);
}

// exp x of such an x, as far as it counts.
template <class C>
AF_HD C counted(C x, C exp_of_x) {
  return x == kLeastLogit<C> ? C(0) : exp_of_x;
}

// The score from Z and S. A row without a finite logit has none, NaN.
template <class C>
AF_HD C exit_score(bool confidence, C Z, C S) {
  if (!(Z >= C(1))) return C(__builtin_nan(""));  // the maximum itself adds 1
  return confidence ? C(1) / Z : std::log(Z) - S / Z;
}

// CPU. Scores of rows [begin, end), so that the caller chooses the threads; then once the rest.
void exit_gate_fwd_scores_cpu(const ExitGate& p, int64_t begin, int64_t end);
void exit_gate_fwd_compact_cpu(const ExitGate& p);

// Words of memory of its own that a call on CUDA takes: a byte for each row, and one word more.
AF_HD int64_t exit_gate_scratch_words(int64_t rows) { return (rows + 3) / 4 + 1; }

// CUDA: launches its kernels on a stream (a cudaStream_t) and returns an error text, or null. `scratch` has
// exit_gate_scratch_words(N), 16-byte aligned, which need not be initialised.
const char* exit_gate_fwd_cuda(const ExitGate& p, uint32_t* scratch, void* stream);

}  // namespace adafocus

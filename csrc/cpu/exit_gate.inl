// exit_gate on the CPU.
#pragma once

#include <cstdint>
#include <limits>

#include "adafocus/exit_gate.h"
#include "cpu/dispatch.h"
#include "cpu/exp.h"
#include "cpu/isa.h"
#include "cpu/matrix.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

// The score of a row of logits.
template <class C, class T, class Stride>
C score_of(const T* __restrict__ logits, Stride stride, int64_t classes, bool confidence) {
  static_assert(kLeastLogit<C> >= Exp<C>::kLeast, "exp of any x must be defined");
  C max = -std::numeric_limits<C>::infinity();
#pragma omp simd reduction(max : max)
  for (int64_t c = 0; c < classes; ++c) max = max_of(load_as<C>(logits[c * stride]), max);
  C Z = 0, S = 0;
#pragma omp simd reduction(+ : Z, S)
  for (int64_t c = 0; c < classes; ++c) {
    const C x = below_max(load_as<C>(logits[c * stride]), max), e = counted(x, exp_of_nonpositive(x));
    Z += e;
    S += x * e;
  }
  return exit_score(confidence, Z, S);
}

template <class C>
void scores(const ExitGate& p, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    with_row(p.logits, n, [&](const auto* logits, auto stride) {
      static_cast<C*>(p.score)[n] = score_of<C>(logits, stride, p.logits.columns, p.confidence);
    });
  }
}

// Sets exited[n] of each row that runs, and clears the others.
void mark_running(const ExitGate& p) {
  const uint8_t* const mask =
      p.active_kind == Active::kMask ? static_cast<const uint8_t*>(p.active) : nullptr;
  for (int64_t n = 0; n < p.logits.rows; ++n) p.exited[n] = mask ? mask[n] : p.active_kind == Active::kAll;
  if (p.active_kind != Active::kList) return;
  for (int64_t i = 0; i < p.num_active; ++i) {
    const int64_t row = p.active_row(i);
    if (row >= 0) p.exited[row] = 1;
  }
}

// A list of rows of limited capacity.
struct RowList {
  int64_t* rows;  // [capacity]
  int64_t capacity, count = 0;

  void add(int64_t row) {
    if (count < capacity) rows[count] = row;
    ++count;
  }

  void pad() {
    for (int64_t i = count; i < capacity; ++i) rows[i] = -1;
  }
};

template <class C>
void compact(const ExitGate& p) {
  const C* const score = static_cast<const C*>(p.score);
  const C threshold = p.threshold_as<C>();
  RowList keep{p.keep, p.capacity}, leave{p.leave, p.capacity};
  mark_running(p);
  for (int64_t n = 0; n < p.logits.rows; ++n) {
    if (!p.exited[n]) continue;
    p.exited[n] = p.leaves(score[n], threshold);
    (p.exited[n] ? leave : keep).add(n);
  }
  keep.pad();
  leave.pad();
  p.counts[0] = keep.count;
  p.counts[1] = leave.count;
}

}  // namespace
}  // namespace AF_ISA

void AF_ISA::exit_gate_fwd_scores(const ExitGate& p, int64_t begin, int64_t end) {
  visit_compute(p.double_precision(), [&](auto tag) { scores<typename decltype(tag)::type>(p, begin, end); });
}

void AF_ISA::exit_gate_fwd_compact(const ExitGate& p) {
  visit_compute(p.double_precision(), [&](auto tag) { compact<typename decltype(tag)::type>(p); });
}

}  // namespace adafocus

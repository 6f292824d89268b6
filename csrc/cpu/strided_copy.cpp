// Copies of strided blocks of memory, in plain loops: for runs that are short, and where the memory that they
// write was just allocated, they are quicker than memcpy. They need no more than every processor has.
#include "cpu/strided_copy.h"

#include <cstring>
#include <type_traits>

#include "adafocus/dtype.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace adafocus {
namespace {

// Strides of a StridedDim are in bytes in this file.

// Copies a run of memory of kBytes at least in moves of so many; the last may go over what is there already.
template <int kBytes>
void copy_run(const char* from, char* to, int64_t bytes) {
  int64_t at = 0;
  for (; at + kBytes <= bytes; at += kBytes) memcpy(to + at, from + at, kBytes);
  if (at < bytes) memcpy(to + bytes - kBytes, from + bytes - kBytes, kBytes);
}

template <int kBytes>
void copy_runs(const char* from, char* to, int64_t bytes, StridedDim rows) {
  for (int64_t r = 0; r < rows.size; ++r) {
    copy_run<kBytes>(from + r * rows.from_stride, to + r * rows.to_stride, bytes);
  }
}

// Copies elements of kBytes.
template <int kBytes>
void copy_elements(const char* from, char* to, StridedDim columns, StridedDim rows) {
  for (int64_t r = 0; r < rows.size; ++r) {
    const char* const row = from + r * rows.from_stride;
    char* const out = to + r * rows.to_stride;
    for (int64_t c = 0; c < columns.size; ++c) {
      memcpy(out + c * columns.to_stride, row + c * columns.from_stride, kBytes);
    }
  }
}

// Bytes of a line of the caches, and bytes that a line must be asked for ahead of its use, about: these
// copies read memory too widely scattered for the processor to foresee it.
constexpr int64_t kLine = 64, kAhead = 16384;

// Copies a line past the caches to an address that is a multiple of 16.
AF_HD void stream_line(const char* from, char* to) {
#if defined(__SSE2__)
  for (int at = 0; at < kLine; at += 16) {
    const __m128i value = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at));
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + at), value);
  }
#else
  memcpy(to, from, kLine);
#endif
}

// Calls f(constant) with the largest of 1, 2, 4, ..., kMost that is not above a number of bytes.
template <int kMost, class F>
void with_largest_move(int64_t bytes, const F& f) {
  if constexpr (kMost > 1) {
    if (bytes < kMost) return with_largest_move<kMost / 2>(bytes, f);
  }
  f(std::integral_constant<int, kMost>{});
}

// Calls f(from, to) for each index of dimensions [first, block.dims), at its addresses.
template <class F>
void for_each_index(const StridedBlock& block, int first, int64_t element_size, const char* from, char* to,
                    const F& f) {
  const auto visit = [&](const auto& self, int d, const char* from, char* to) -> void {
    if (d < first) return f(from, to);
    for (int64_t i = 0; i < block.size[d]; ++i) {
      self(self, d - 1, from + i * block.from_stride[d] * element_size,
           to + i * block.to_stride[d] * element_size);
    }
  };
  visit(visit, block.dims - 1, from, to);
}

}  // namespace

void copy_block(const StridedBlock& block, int64_t element_size, const void* from, void* to) {
  const auto dim = [&](int d) -> StridedDim {
    if (d >= block.dims) return {1, 0, 0};
    return {block.size[d], block.from_stride[d] * element_size, block.to_stride[d] * element_size};
  };
  const StridedDim columns = dim(0), rows = dim(1);
  const int64_t run = columns.size * element_size;
  for_each_index(block, 2, element_size, static_cast<const char*>(from), static_cast<char*>(to),
                 [&](const char* from, char* to) {
                   if (block.has_runs()) {
                     if (run == 0) return;
                     with_largest_move<32>(run, [&](auto size) { copy_runs<size>(from, to, run, rows); });
                   } else {
                     visit_bytes<1, 2, 4, 8, 16>(
                         element_size, [&](auto size) { copy_elements<size>(from, to, columns, rows); });
                   }
                 });
}

int64_t fetched_ahead(int64_t step) {
  if (step <= 0) return kAhead;
  return step < kAhead ? kAhead / step * step : step;
}

void stream_run(const char* from, char* to, int64_t bytes, int64_t ahead) {
  static constexpr char kZeros[kLine] = {};
  const int64_t to_aligned = -reinterpret_cast<intptr_t>(to) & 15,
                head = to_aligned < bytes ? to_aligned : bytes;
  const int64_t lines = (bytes - head) / kLine, tail = head + lines * kLine;
  if (head > 0) from ? memcpy(to, from, head) : memset(to, 0, head);
  if (from) {
    for (int64_t at = head; at < tail; at += kLine) {
      __builtin_prefetch(from + at + ahead);
      stream_line(from + at, to + at);
    }
  } else {
    for (int64_t at = head; at < tail; at += kLine) stream_line(kZeros, to + at);
  }
  if (tail < bytes) from ? memcpy(to + tail, from + tail, bytes - tail) : memset(to + tail, 0, bytes - tail);
}

void finish_streams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

void zero_block(const StridedBlock& block, int64_t element_size, void* to) {
  static constexpr char kZero[16] = {};
  StridedBlock zeros = block;
  for (int d = 0; d < block.dims; ++d) zeros.from_stride[d] = 0;
  copy_block(zeros, element_size, kZero, to);
}

}  // namespace adafocus

// Copies of rows of a batch, for gather_rows and scatter_rows.
#pragma once

#include "adafocus/gather_rows.h"
#include "cuda/move_elements.cuh"

namespace adafocus {

// Copies the row of this thread, or fills it with zeros: `from_row` is its number, or -1. Elements of kBytes.
template <int kBytes>
AF_DEVICE void copy_row(const RowCopy& p, uint32_t count, int64_t from_row, int64_t to_row) {
  using T = element_t<kBytes>;
  const T* const from = static_cast<const T*>(p.from) + from_row * p.from_row_stride;
  T* const to = static_cast<T*>(p.to) + to_row * p.to_row_stride;
  // Offset of element i, by the strides of either side.
  const auto offset = [&](uint32_t i, const int64_t* stride) {
    const int last = p.row.dims - 1;
    int64_t offset = 0;
#pragma unroll 1
    for (int d = 0; d < last; ++d) {
      const uint32_t size = uint32_t(p.row.size[d]);
      offset += i % size * stride[d];
      i /= size;
    }
    return offset + i * stride[last];
  };
  move_elements(
      count, [&](uint32_t i) { return from_row < 0 ? T{} : from[offset(i, p.row.from_stride)]; },
      [&](uint32_t i, T value) { to[offset(i, p.row.to_stride)] = value; });
}

// Entry of the index whose row this thread copies.
AF_DEVICE int64_t index_entry() { return int64_t(blockIdx.x) * blockDim.y + threadIdx.y; }

// The same copy in elements as wide as its sizes, strides and addresses allow.
inline RowCopy widened(RowCopy p) {
  const auto multiple_of_two = [&] {
    int64_t odd = p.row.size[0] | p.from_row_stride | p.to_row_stride;
    for (int d = 1; d < p.row.dims; ++d) odd |= p.row.from_stride[d] | p.row.to_stride[d];
    return odd % 2 == 0;
  };
  const auto address = reinterpret_cast<uintptr_t>(p.from) | reinterpret_cast<uintptr_t>(p.to);
  while (p.element_size < 16 && p.row.has_runs() && multiple_of_two() &&
         address % (2 * p.element_size) == 0) {
    p.element_size *= 2;
    p.row.size[0] /= 2;
    p.from_row_stride /= 2;
    p.to_row_stride /= 2;
    for (int d = 1; d < p.row.dims; ++d) {
      p.row.from_stride[d] /= 2;
      p.row.to_stride[d] /= 2;
    }
  }
  return p;
}

// Launches kernel_of(constant), a kernel for elements of so many bytes. Grid: (entries of the index, chunk of
// the row); the block is a table of entries by neighbouring elements.
template <class KernelOf>
const char* launch_row_copy(const RowCopy& narrow, void* stream, const KernelOf& kernel_of) {
  const RowCopy p = widened(narrow);
  const int64_t count = p.row.count();
  if (count > kMaxMoved || p.num_index > kMaxMoved)
    return "there are more than 2^31 rows or elements in a row";
  if (count == 0 || p.num_index == 0) return nullptr;
  unsigned columns = 1;
  while (columns < kThreads && columns < count) columns *= 2;
  const unsigned rows = kThreads / columns;
  const dim3 grid(unsigned((p.num_index + rows - 1) / rows), move_blocks(count, columns));
  const auto run = [&](auto bytes) {
    return launch(kernel_of(bytes), grid, dim3(columns, rows), 0, stream, p, uint32_t(count));
  };
  return visit_bytes<1, 2, 4, 8, 16>(p.element_size, run);
}

}  // namespace adafocus

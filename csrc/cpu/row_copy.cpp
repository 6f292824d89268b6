// gather_rows and scatter_rows on the CPU.
#include "adafocus/row_copy.h"

#include "cpu/strided_copy.h"

namespace adafocus {
namespace {

const char* from_row(const RowCopy& p, int64_t n) {
  return static_cast<const char*>(p.from) + n * p.from_row_stride * p.element_size;
}

char* to_row(const RowCopy& p, int64_t n) {
  return static_cast<char*>(p.to) + n * p.to_row_stride * p.element_size;
}

}  // namespace

void gather_rows_cpu(const RowCopy& p, int64_t begin, int64_t end) {
  for (int64_t j = begin; j < end; ++j) {
    const int64_t row = p.named_row(j);
    if (row < 0) {
      zero_block(p.row, p.element_size, to_row(p, j));
    } else {
      copy_block(p.row, p.element_size, from_row(p, row), to_row(p, j));
    }
  }
}

void scatter_rows_cpu(const RowCopy& p) {
  for (int64_t j = 0; j < p.num_index; ++j) {
    const int64_t row = p.named_row(j);
    if (row >= 0) copy_block(p.row, p.element_size, from_row(p, j), to_row(p, row));
  }
}

}  // namespace adafocus

// gather_rows on the CPU.
#include "adafocus/gather_rows.h"

#include "cpu/strided_copy.h"

namespace adafocus {

void gather_rows_fwd_cpu(const RowCopy& p, int64_t begin, int64_t end) {
  for (int64_t j = begin; j < end; ++j) {
    const int64_t row = p.named_row(j);
    if (row < 0) {
      zero_block(p.row, p.element_size, p.to_row(j));
    } else {
      copy_block(p.row, p.element_size, p.from_row(row), p.to_row(j));
    }
  }
}

}  // namespace adafocus

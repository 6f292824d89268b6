// scatter_rows on the CPU.
#include "adafocus/scatter_rows.h"

#include "cpu/strided_copy.h"

namespace adafocus {

void scatter_rows_fwd_cpu(const RowCopy& p) {
  for (int64_t j = 0; j < p.num_index; ++j) {
    const int64_t row = p.named_row(j);
    if (row >= 0) copy_block(p.row, p.element_size, p.from_row(j), p.to_row(row));
  }
}

}  // namespace adafocus

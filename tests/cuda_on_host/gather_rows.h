// The parameters of gather_rows and scatter_rows, made as csrc/bindings/gather_rows.h makes them.
#pragma once

#include "adafocus/gather_rows.h"
#include "views.h"

namespace adafocus {

inline RowCopy row_copy(const Array& from, const Array& to, const Array& numbered, const Array& index,
                        const Array* count, int64_t element_size) {
  StridedDim row[kMaxBlockDims];
  const int dims = int(from.sizes.size()) - 1;
  for (int d = 0; d < dims; ++d) row[d] = {from.sizes[d + 1], from.strides[d + 1], to.strides[d + 1]};
  RowCopy p{};
  p.element_size = element_size;
  p.row = merged_block(row, dims);
  p.from = from.data();
  p.to = to.data();
  p.from_row_stride = from.strides[0];
  p.to_row_stride = to.strides[0];
  p.num_rows = numbered.sizes[0];
  p.num_index = index.sizes[0];
  p.index = index.data();
  p.index_type = index.dtype == "int64" ? IndexType::kInt64 : IndexType::kInt32;
  if (count) p.count = static_cast<const int64_t*>(count->data());
  return p;
}

}  // namespace adafocus

// Checks and parameters of gather_rows and scatter_rows.
#pragma once

#include "adafocus/gather_rows.h"
#include "bindings/tensor.h"

namespace adafocus {

// The parameters of a call without its addresses: rows of `from` to rows of `to`, both of the same dtype and
// shape of a row; the index numbers the rows of `numbered`, which is one of the two. The tensors outlive the
// call that uses the result.
inline RowCopy row_copy_parameters(const Tensor& from, const Tensor& to, const Tensor& numbered,
                                   const Tensor& index, const OptionalTensor& count) {
  check_same_device("index", index, "the rows", numbered);
  STD_TORCH_CHECK(index.dim() == 1 && index.is_contiguous(), "index must be a contiguous [M]");
  const int64_t dims = from.dim() - 1;
  STD_TORCH_CHECK(dims >= 0 && dims <= kMaxBlockDims, "the rows must have at most ", kMaxBlockDims,
                  " dimensions, got ", dims);
  STD_TORCH_CHECK(to.dim() == from.dim() && to.scalar_type() == from.scalar_type(),
                  "the rows must agree in dtype and shape");
  StridedDim row[kMaxBlockDims];
  for (int64_t d = 0; d < dims; ++d) {
    STD_TORCH_CHECK(to.size(d + 1) == from.size(d + 1), "the rows must agree in dtype and shape");
    row[d] = {from.size(d + 1), from.stride(d + 1), to.stride(d + 1)};
  }
  RowCopy p{};
  p.element_size = int64_t(from.element_size());
  p.row = merged_block(row, int(dims));
  p.from_row_stride = from.stride(0);
  p.to_row_stride = to.stride(0);
  p.num_rows = numbered.size(0);
  p.num_index = index.size(0);
  p.index = index.const_data_ptr();
  p.index_type = index_type_of("index", index.scalar_type());
  if (count) {
    check_same_device("count", *count, "the rows", numbered);
    STD_TORCH_CHECK(count->scalar_type() == ScalarType::Long && count->numel() == 1,
                    "count must be one int64");
    p.count = count->const_data_ptr<int64_t>();
  }
  return p;
}

}  // namespace adafocus

// A view of a matrix of any strides.
#pragma once

#include "adafocus/dtype.h"

namespace adafocus {

// [rows, columns]; strides in elements.
struct Matrix {
  void* data;
  DType dtype;
  int64_t rows, columns;
  int64_t row_stride, column_stride;

  AF_HD int64_t offset(int64_t row, int64_t column) const {
    return row * row_stride + column * column_stride;
  }
};

}  // namespace adafocus

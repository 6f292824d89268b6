// Copies of strided blocks of memory.
#pragma once

#include "adafocus/strided_block.h"

namespace adafocus {

// Elements of 1, 2, 4, 8 or 16 bytes.
void copy_block(const StridedBlock& block, int64_t element_size, const void* from, void* to);

// Zeros where copy_block would write.
void zero_block(const StridedBlock& block, int64_t element_size, void* to);

}  // namespace adafocus

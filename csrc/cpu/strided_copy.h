// Copies of strided blocks of memory.
#pragma once

#include "adafocus/strided_block.h"

namespace adafocus {

// Elements of 1, 2, 4, 8 or 16 bytes.
void copy_block(const StridedBlock& block, int64_t element_size, const void* from, void* to);

// Zeros where copy_block would write.
void zero_block(const StridedBlock& block, int64_t element_size, void* to);

// Copies a run of memory, or zeros if `from` is null, past the caches: for more than they hold. Asks for the
// line that is `ahead` bytes further on, which need not exist.
void stream_run(const char* from, char* to, int64_t bytes, int64_t ahead);

// Bytes to ask ahead for what will be read, where runs follow each other at a step, or (0) in one run.
int64_t fetched_ahead(int64_t step);

// To be called after the last stream_run, before another thread reads what was written.
void finish_streams();

}  // namespace adafocus

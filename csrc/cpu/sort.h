// Sorting, in a file of its own and not inline: kernels are compiled for several instruction sets, templates
// of the standard library that they shared would be compiled for any one of them.
#pragma once

#include <cstdint>

namespace adafocus {

// Brings the k smallest keys to the front, the largest of them last.
void select_smallest(int64_t* keys, int64_t count, int64_t k);

void sort(int64_t* keys, int64_t count);

}  // namespace adafocus

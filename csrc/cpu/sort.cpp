#include "cpu/sort.h"

#include <algorithm>

namespace adafocus {

void select_smallest(int64_t* keys, int64_t count, int64_t k) {
  std::nth_element(keys, keys + k - 1, keys + count);
}

void sort(int64_t* keys, int64_t count) { std::sort(keys, keys + count); }

}  // namespace adafocus

// Random words in the registers of a kernel.
#pragma once

#include "adafocus/philox.h"
#include "cuda/launch.h"

namespace adafocus {

// Word n of four, without an index at run time, which would put the words into memory.
AF_DEVICE uint32_t word_of(const Words4& words, uint32_t n) {
  const uint32_t low = n % 2 == 0 ? words.word[0] : words.word[1];
  const uint32_t high = n % 2 == 0 ? words.word[2] : words.word[3];
  return n < 2 ? low : high;
}

}  // namespace adafocus

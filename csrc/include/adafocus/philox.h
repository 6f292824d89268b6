// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"): random words that are a
// function of a counter and a key, so that any thread of any backend makes the same.
#pragma once

#include <cstdint>

#include "adafocus/macros.h"

namespace adafocus {

struct Words4 {
  uint32_t word[4];
};

// The product of two words.
AF_HD uint64_t product_of(uint64_t a, uint64_t b) {
#if defined(__CUDA_ARCH__)  // nvcc makes two more instructions of a * b.
  uint64_t result;
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(result) : "r"(uint32_t(a)), "r"(uint32_t(b)));
  return result;
#else
  return a * b;
#endif
}

// Between rounds the words are held in 64 bits, in which CPUs multiply vectors of them without shuffles.
AF_HD Words4 philox4x32_10(Words4 counter, uint32_t key0, uint32_t key1) {
  uint64_t c0 = counter.word[0], c1 = counter.word[1], c2 = counter.word[2], c3 = counter.word[3];
  AF_UNROLL
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = product_of(0xD2511F53u, c0), product1 = product_of(0xCD9E8D57u, c2);
    c0 = (product1 >> 32) ^ c1 ^ key0;
    c1 = uint32_t(product1);
    c2 = (product0 >> 32) ^ c3 ^ key1;
    c3 = uint32_t(product0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{uint32_t(c0), uint32_t(c1), uint32_t(c2), uint32_t(c3)}};
}

// The use of a row's random words: different uses of one seed see independent streams.
enum class Stream : uint32_t { kRace = 0, kJitter = 0x80000000u };

// Words 4 group .. 4 group + 3 of draw `draw` (below 2^31) of a row, for a seed.
AF_HD Words4 random_words(int64_t seed, int64_t row, Stream stream, uint32_t draw, uint32_t group) {
  const uint64_t s = uint64_t(seed), r = uint64_t(row);
  return philox4x32_10({{group, draw | uint32_t(stream), uint32_t(r), uint32_t(r >> 32)}}, uint32_t(s),
                       uint32_t(s >> 32));
}

// A random word as a number in (0, 1].
AF_HD float uniform(uint32_t word) { return float(uint64_t(0x100000000u) - word) * 0x1p-32f; }

}  // namespace adafocus

// Counts what the accesses of warps to shared memory cost: the bank conflicts, line by line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

namespace cuda_on_host::banks {

// Forgets what was counted, and counts from here on or not: what does not is not slowed down.
void begin(bool counting);

// An access by the thread that runs, in the order of its accesses.
void note(const void* data, size_t bytes, const void* place);

// Settles what a block has accessed: a barrier, or its end.
void settle(uint64_t block);

// Of a line of a kernel: the instructions of warps, the transactions that serve them, and as many as would if
// no two lanes met in a bank.
using Line = std::tuple<std::string, uint64_t, uint64_t, uint64_t>;

// The lines that have accessed shared memory since the last call, "file:line" first.
std::vector<Line> take();

}  // namespace cuda_on_host::banks

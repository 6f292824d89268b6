#include "cpu/scratch.h"

#include <cstdlib>
#include <new>

namespace adafocus {

constexpr size_t kAlignment = 64;

void* Scratch::allocate(size_t bytes) {
  // A header of one alignment unit links the blocks; aligned_alloc wants a multiple of the alignment.
  const size_t size = (kAlignment + bytes + kAlignment - 1) / kAlignment * kAlignment;
  Block* block = static_cast<Block*>(std::aligned_alloc(kAlignment, size));
  if (!block) throw std::bad_alloc();
  block->next = blocks_;
  blocks_ = block;
  return reinterpret_cast<char*>(block) + kAlignment;
}

Scratch::~Scratch() {
  while (blocks_) {
    Block* next = blocks_->next;
    std::free(blocks_);
    blocks_ = next;
  }
}

}  // namespace adafocus

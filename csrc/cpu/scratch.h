// Memory for the buffers of a kernel.
#pragma once

#include <cstddef>
#include <cstdint>

namespace adafocus {

// Blocks that live as long as this object, 64-byte aligned. Not inline on purpose: kernels are compiled for
// several instruction sets, functions that they call are not.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(allocate(static_cast<size_t>(count) * sizeof(T)));
  }

 private:
  struct Block {
    Block* next;
  };
  void* allocate(size_t bytes);  // throws std::bad_alloc
  Block* blocks_ = nullptr;
};

}  // namespace adafocus

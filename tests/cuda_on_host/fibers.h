// Fibers: stacks that one system thread switches between, one for each thread of a block.
#pragma once

#include <cstddef>

namespace cuda_on_host {

struct Fiber {
  static constexpr size_t kBytes = 256 * 1024, kGuard = 4096;

  bool started = false;
  const char* stack = nullptr;  // its lowest address
  size_t stack_bytes = 0;
  void* left_at = nullptr;     // the frame that it was last left in
  void* fake_stack = nullptr;  // the sanitizer's
  void* resume[5] = {};        // of __builtin_setjmp
};

// The stack that called run, known from the first switch on.
extern Fiber host;

// Fiber i, which runs thread i of every block.
Fiber& fiber(size_t i);

// Leaves the fiber that runs for another one, which goes on where it was left, or starts with run_threads.
void switch_to(Fiber& next);

// Gives up what a fiber was doing.
void abandon(Fiber& fiber);

// The work of a fiber: one thread after the other. Defined beside the blocks.
[[noreturn]] void run_threads();

}  // namespace cuda_on_host

// Compiled without the sanitizers, which are told of every change of stacks.
#include "fibers.h"

#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdlib>
#include <deque>

namespace cuda_on_host {

Fiber host{true};

namespace {

Fiber* running = &host;

[[noreturn]] void fiber_main() {
  const void* stack;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
  if (!host.stack) {
    host.stack = static_cast<const char*>(stack);
    host.stack_bytes = bytes;
  }
  run_threads();
}

[[noreturn]] __attribute__((noinline)) void start(Fiber& fiber) {
  static ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = const_cast<char*>(fiber.stack);
  context.uc_stack.ss_size = fiber.stack_bytes;
  context.uc_link = nullptr;
  makecontext(&context, fiber_main, 0);
  setcontext(&context);
  __builtin_unreachable();
}

[[noreturn]] __attribute__((noinline)) void resume(Fiber& fiber) { __builtin_longjmp(fiber.resume, 1); }

}  // namespace

Fiber& fiber(size_t i) {
  static std::deque<Fiber> fibers;
  while (i >= fibers.size()) {
    void* const memory = mmap(nullptr, Fiber::kGuard + Fiber::kBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, Fiber::kGuard, PROT_NONE) != 0) abort();
    const size_t unused = i % 32 * 2048;  // the same depth of all stacks must not share a place in the cache
    fibers.push_back({false, static_cast<char*>(memory) + Fiber::kGuard, Fiber::kBytes - unused});
  }
  return fibers[i];
}

__attribute__((noinline)) void switch_to(Fiber& next) {
  Fiber& self = *running;
  self.left_at = __builtin_frame_address(0);
  __sanitizer_start_switch_fiber(&self.fake_stack, next.stack, next.stack_bytes);
  if (__builtin_setjmp(self.resume) == 0) {
    running = &next;
    if (next.started) resume(next);
    next.started = true;
    start(next);
  }
  __sanitizer_finish_switch_fiber(running->fake_stack, nullptr, nullptr);
}

void abandon(Fiber& fiber) {
  if (!fiber.started) return;
  fiber.started = false;
  const char* const left_at = static_cast<char*>(fiber.left_at);
  __asan_unpoison_memory_region(left_at, fiber.stack + fiber.stack_bytes - left_at);
}

}  // namespace cuda_on_host

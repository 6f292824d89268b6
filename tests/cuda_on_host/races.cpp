// Finds accesses of two threads to the same memory of which one is a write and that nothing orders. The
// kernels are compiled to announce every access (-fsanitize=thread, with the functions below in the place of
// its runtime), and each byte remembers who wrote it and who read it last: so a race shows in every order of
// the threads, not only in those that get a wrong result.
//
// Two accesses of a block are ordered if a barrier of the block lies between them, or, of lanes of one warp,
// a __syncwarp; shuffles and votes order nothing. Accesses of two blocks are ordered if, after the first, a
// barrier and then a thread's fence and atomic addition follow, and if before the second, after a thread's
// later atomic addition and fence, lies a barrier.
#include "races.h"

#include <sanitizer/common_interface_defs.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>

#include "banks.h"

namespace cuda_on_host::races {
namespace {

// An access: when, and by whom. Block 0 is none.
struct Access {
  uint64_t block = 0;
  uint32_t barriers = 0;       // of the block, before it
  uint32_t warp_barriers = 0;  // of the thread's warp
  uint16_t thread = 0;
  bool atomic = false;
  const void* place = nullptr;
};

// Of one byte. Of reads that no barrier separates, the first of the block is kept, and one of another thread.
struct Byte {
  Access written, read, read_by_another;
};

constexpr uintptr_t kPage = 4096;
std::unordered_map<uintptr_t, std::unique_ptr<Byte[]>> pages;
std::set<std::string> found;

Byte& byte_at(uintptr_t address) {
  std::unique_ptr<Byte[]>& page = pages[address / kPage];
  if (!page) page = std::make_unique<Byte[]>(kPage);
  return page[address % kPage];
}

// What a block has let others see, by its fences and atomic additions.
struct Order {
  uint32_t released = 0;  // accesses after fewer barriers than this are seen by who acquires later
  int64_t fenced = -1, counted = -1;  // the thread whose last step that was
  uint32_t fenced_at = 0;             // barriers before its fence
  // Numbers of its additions among all, from 1 on: the one that released, the last, the one that a fence
  // followed, and the one that a barrier did too.
  uint64_t released_at = 0, counted_at = 0, acquiring_at = 0, acquired_at = 0;
};
std::map<uint64_t, Order> orders;
uint64_t additions = 0;

bool same_thread(const Access& a, const Access& b) { return a.block == b.block && a.thread == b.thread; }

bool ordered(const Access& before, const Access& now) {
  if (before.block == 0 || same_thread(before, now) || (before.atomic && now.atomic)) return true;
  if (before.block != now.block) {
    const Order& released = orders[before.block];
    return released.released_at < orders[now.block].acquired_at && before.barriers < released.released;
  }
  const bool same_warp = before.thread / kWarp == now.thread / kWarp;
  return before.barriers < now.barriers || (same_warp && before.warp_barriers < now.warp_barriers);
}

void report(const char* what, const Access& before, const Access& now) {
  const std::string where = before.place ? ", the earlier one at " + line_of(before.place) : "";
  found.insert(std::string("race: ") + what + " at " + line_of(now.place) + where);
}

void note_read(Byte& byte, const Access& now, bool shared) {
  if (shared && byte.written.block != now.block) report("read of what the block has not written", {}, now);
  if (byte.written.block == now.block || !shared) {
    if (!ordered(byte.written, now)) report("read after write", byte.written, now);
  }
  if (byte.read.block == 0 || same_thread(byte.read, now) || ordered(byte.read, now)) {
    byte.read = now;
  } else {
    byte.read_by_another = now;
  }
}

void note_write(Byte& byte, const Access& now, bool shared) {
  for (const Access* const read : {&byte.read, &byte.read_by_another}) {
    if ((read->block == now.block || !shared) && !ordered(*read, now)) report("write after read", *read, now);
  }
  if ((byte.written.block == now.block || !shared) && !ordered(byte.written, now)) {
    report("write after write", byte.written, now);
  }
  byte.written = now;
  byte.read = byte.read_by_another = {};
}

void note(const void* data, size_t bytes, bool write, bool atomic, const void* place) {
  const Now now = now_of(data);
  if (now.memory == Memory::kOwn) return;
  const Access access{now.block, now.barriers, now.warp_barriers, uint16_t(now.thread), atomic, place};
  const uintptr_t first = reinterpret_cast<uintptr_t>(data);
  for (uintptr_t address = first; address < first + bytes; ++address) {
    (write ? note_write : note_read)(byte_at(address), access, now.memory == Memory::kShared);
  }
}

// What the compiler announces.
void note_announced(const void* data, size_t bytes, bool write, const void* place) {
  note(data, bytes, write, false, place);
  banks::note(data, bytes, place);
}

}  // namespace

std::string line_of(const void* place) {
  char text[512] = "";
  __sanitizer_symbolize_pc(const_cast<void*>(place), "%s:%l", text, sizeof(text));
  return text;
}

void begin_launch() {
  pages.clear();
  orders.clear();
}

void note_read(const void* data, size_t bytes, const void* place) { note(data, bytes, false, false, place); }

void note_write(void* data, size_t bytes, const void* place) { note(data, bytes, true, false, place); }

void note_atomic(void* data, size_t bytes, const void* place) {
  note(data, bytes, true, true, place);
  const Now now = now_of(data);
  if (now.memory != Memory::kGlobal) return;
  Order& order = orders[now.block];
  order.counted_at = ++additions;
  if (order.fenced == now.thread) {
    order.released = order.fenced_at;
    order.released_at = additions;
  }
  order.fenced = -1;
  order.counted = now.thread;
}

void note_fence() {
  const Now now = now_of(nullptr);
  Order& order = orders[now.block];
  if (order.counted == now.thread) order.acquiring_at = order.counted_at;
  order.fenced = now.thread;
  order.fenced_at = now.barriers;
}

void note_barrier(uint64_t block) {
  Order& order = orders[block];
  order.acquired_at = order.acquiring_at;
}

std::vector<std::string> take() {
  std::vector<std::string> result(found.begin(), found.end());
  found.clear();
  return result;
}

}  // namespace cuda_on_host::races

// What the compiler has a kernel call before every access.
#define CUDA_ON_HOST_NOTE(name, bytes, write)                                             \
  extern "C" void __tsan_##name(void* data) {                                             \
    cuda_on_host::races::note_announced(data, bytes, write, __builtin_return_address(0)); \
  }
#define CUDA_ON_HOST_NOTES(bytes)                        \
  CUDA_ON_HOST_NOTE(read##bytes, bytes, false)           \
  CUDA_ON_HOST_NOTE(write##bytes, bytes, true)           \
  CUDA_ON_HOST_NOTE(unaligned_read##bytes, bytes, false) \
  CUDA_ON_HOST_NOTE(unaligned_write##bytes, bytes, true) \
  CUDA_ON_HOST_NOTE(volatile_read##bytes, bytes, false)  \
  CUDA_ON_HOST_NOTE(volatile_write##bytes, bytes, true)
CUDA_ON_HOST_NOTES(1)
CUDA_ON_HOST_NOTES(2)
CUDA_ON_HOST_NOTES(4)
CUDA_ON_HOST_NOTES(8)
CUDA_ON_HOST_NOTES(16)
extern "C" void __tsan_read_range(void* data, unsigned long bytes) {
  cuda_on_host::races::note_announced(data, bytes, false, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void* data, unsigned long bytes) {
  cuda_on_host::races::note_announced(data, bytes, true, __builtin_return_address(0));
}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_init() {}
extern "C" void __tsan_vptr_update(void*, void*) {}
extern "C" void __tsan_vptr_read(void*) {}

// The execution of kernels: blocks, barriers, warps, shared memory. Compiled without the sanitizers.
#include "cuda_on_host.h"

#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "banks.h"
#include "cuda/launch.h"
#include "fibers.h"
#include "guarded.h"
#include "races.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_on_host {
namespace {

// ---------------------------------------------------------------------------------------------------
// Random numbers: splitmix64

uint64_t random_state = 0;

unsigned random_below(size_t count) {
  uint64_t x = random_state += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return (x ^ x >> 31) % count;
}

// ---------------------------------------------------------------------------------------------------
// Blocks

enum class State { kReady, kInBlockBarrier, kInWarpOperation, kEnded };

struct Copy {
  void* to;
  std::vector<char> bytes;
};

struct Thread {
  unsigned index;
  uint3 position;
  State state = State::kReady;
  Call call{};  // where it waits
  uint32_t mask = 0;
  uint64_t bits = 0;
  unsigned source = 0;
  Count count{};        // what the barrier gave
  Exchange exchange{};  // what the warp operation gave
  std::vector<Copy> copies;
  Fiber* fiber;
};

// Lanes, a bit for each.
struct Warp {
  uint32_t alive = 0, waiting = 0;  // waiting: in a warp operation
  uint32_t barriers = 0;            // that its lanes have passed
};

class Block {
 public:
  // `slot` is its number among the blocks that are alive.
  Block(uint3 index, dim3 size, size_t slot, size_t dynamic_bytes, const std::function<void()>& kernel)
      : slot(slot),
        index_(index),
        dynamic_shared_(dynamic_bytes),
        shared_bytes_(dynamic_bytes),
        // A launch that does not ask for more has the default, static arrays included.
        shared_limit_(dynamic_bytes > adafocus::kDefaultShared - adafocus::kStaticShared
                          ? adafocus::kMaxShared
                          : adafocus::kDefaultShared),
        kernel_(kernel),
        serial_(++last_serial_) {
    threads_.resize(size_t(size.x) * size.y * size.z);
    ready_.resize(threads_.size());
    warps_.resize((threads_.size() + kWarp - 1) / kWarp);
    alive_ = threads_.size();
    for (unsigned i = 0; i < threads_.size(); ++i) {
      Thread& thread = threads_[i];
      thread.index = i;
      thread.position = {i % size.x, i / size.x % size.y, i / size.x / size.y};
      thread.fiber = &fiber(slot * threads_.size() + i);
      ready_[i] = &thread;
      warps_[i / kWarp].alive |= 1u << i % kWarp;
    }
  }

  ~Block();

  // Goes on with a random thread of this block. When it returns, the fiber of a thread that has ended runs
  // one of another block.
  void run_next();

  bool ended() const { return alive_ == 0; }

  // Operations of the thread that runs.
  void body();
  Count sync_block(Call call, bool vote);
  Exchange sync_warp(Call call, uint32_t mask, uint64_t bits, unsigned source);
  void let_others_run();
  void* enter_shared(const SharedMemory& memory, size_t bytes);
  [[noreturn]] void fail(const std::string& message);

  Thread& current() { return *current_; }
  unsigned char* dynamic_shared() const { return dynamic_shared_.data(); }
  races::Now now(const void* data) const;
  const std::string& error() const { return error_; }

  const size_t slot;

 private:
  void go_on();
  void release_barrier();
  void release_warp(const Thread& last, Warp& warp);
  std::string deadlock() const;
  Thread& lane_of(const Thread& thread, unsigned lane) {
    return threads_[thread.index / kWarp * kWarp + lane];
  }

  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<Thread*> ready_;  // those that can run, without the one that does
  Thread* current_ = nullptr;
  unsigned alive_, at_barrier_ = 0, votes_ = 0;
  const Thread* first_at_barrier_ = nullptr;
  uint3 index_;
  Guarded dynamic_shared_;
  std::map<const SharedMemory*, Guarded> static_shared_;  // by the declarations that threads have come by
  size_t shared_bytes_, shared_limit_;
  uint32_t barriers_ = 0;
  const std::function<void()>& kernel_;
  uint64_t serial_;
  std::string error_;
  static uint64_t last_serial_;
};

uint64_t Block::last_serial_ = 0;

// Of each launch, at random: how many blocks are alive at a time, and which power of two `turn` is. Short
// turns keep the blocks abreast, long ones let one get ahead.
constexpr unsigned kMaxAlive = 3, kTurns = 9;

std::vector<std::unique_ptr<Block>> alive;  // all of which have threads that can run
Block* block = nullptr;                     // the one that runs
size_t turn = 1;  // how often threads of a block go on, in the mean, until any block does

Block& any_alive() { return *alive[random_below(alive.size())]; }

std::string format(const char* text, ...) __attribute__((format(printf, 1, 2)));

std::string vformat(const char* text, va_list arguments) {
  char buffer[1024];
  vsnprintf(buffer, sizeof(buffer), text, arguments);
  return buffer;
}

std::string format(const char* text, ...) {
  va_list arguments;
  va_start(arguments, text);
  const std::string result = vformat(text, arguments);
  va_end(arguments);
  return result;
}

// Place where a thread is, in words.
std::string where(const Thread& thread) {
  if (thread.state == State::kEnded) return "ended";
  const char* const slash = strrchr(thread.call.file, '/');
  const char* const file = slash ? slash + 1 : thread.call.file;
  std::string text = format("at %s (%s:%d)", thread.call.name, file, thread.call.line);
  if (thread.state == State::kInWarpOperation) text += format(" with mask %#x", thread.mask);
  return text;
}

Block::~Block() {
  if constexpr (races::kOn) banks::settle(serial_);
  if (ended()) return;
  for (Thread& thread : threads_) {
    abandon(*thread.fiber);
    for (const Copy& copy : thread.copies) __asan_unpoison_memory_region(copy.to, copy.bytes.size());
  }
}

// Goes on in any of the blocks that are alive, or on the host if this one has ended.
void Block::go_on() {
  if (ended()) return switch_to(host);
  if (ready_.empty()) fail(deadlock());
  (random_below(turn) == 0 ? any_alive() : *this).run_next();
}

void Block::run_next() {
  Thread*& chosen = ready_[random_below(ready_.size())];
  Thread* const next = chosen;
  chosen = ready_.back();
  ready_.pop_back();
  if (block == this && next == current_) return;
  block = this;
  blockIdx = index_;
  current_ = next;
  threadIdx = next->position;
  switch_to(*next->fiber);
}

void Block::fail(const std::string& message) {
  error_ = format("block (%u, %u, %u), thread %u: ", blockIdx.x, blockIdx.y, blockIdx.z, current_->index) +
           message;
  switch_to(host);
  __builtin_unreachable();
}

void Block::body() {
  kernel_();
  Thread& self = *current_;
  if (!self.copies.empty())
    fail(format("ended without waiting for its %zu asynchronous copies", self.copies.size()));
  self.state = State::kEnded;
  --alive_;
  Warp& warp = warps_[self.index / kWarp];
  warp.alive &= ~(1u << self.index % kWarp);
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (!(warp.waiting >> lane & 1)) continue;
    const Thread& other = lane_of(self, lane);
    if (other.mask >> self.index % kWarp & 1) {
      fail(format("ended, but thread %u waits for it ", other.index) + where(other));
    }
  }
  if (alive_ > 0 && at_barrier_ == alive_) release_barrier();
  go_on();
}

void Block::let_others_run() {
  ready_.push_back(current_);
  go_on();
}

Count Block::sync_block(Call call, bool vote) {
  Thread& self = *current_;
  self.state = State::kInBlockBarrier;
  self.call = call;
  if (!first_at_barrier_) first_at_barrier_ = &self;
  if (!(first_at_barrier_->call == call)) {
    fail(where(self) + format(", but thread %u waits ", first_at_barrier_->index) +
         where(*first_at_barrier_));
  }
  votes_ += vote;
  if (++at_barrier_ == alive_) release_barrier();
  go_on();
  return self.count;
}

void Block::release_barrier() {
  for (Thread& thread : threads_) {
    if (thread.state != State::kInBlockBarrier) continue;
    thread.state = State::kReady;
    thread.count = {at_barrier_, votes_};
    ready_.push_back(&thread);
  }
  at_barrier_ = votes_ = 0;
  first_at_barrier_ = nullptr;
  ++barriers_;
  if constexpr (races::kOn) {
    races::note_barrier(serial_);
    banks::settle(serial_);
  }
}

Exchange Block::sync_warp(Call call, uint32_t mask, uint64_t bits, unsigned source) {
  Thread& self = *current_;
  self.state = State::kInWarpOperation;
  self.call = call;
  self.mask = mask;
  self.bits = bits;
  self.source = source;
  Warp& warp = warps_[self.index / kWarp];
  warp.waiting |= 1u << self.index % kWarp;
  if (!(mask >> self.index % kWarp & 1)) fail(where(self) + ", which lacks its own lane");
  if (mask & ~warp.alive) {
    fail(where(self) + format(", of which lanes %#x have ended or do not exist", mask & ~warp.alive));
  }
  if ((warp.waiting & mask) == mask) release_warp(self, warp);
  go_on();
  return self.exchange;
}

// Releases the lanes that a thread waits with, unless some of them wait elsewhere.
void Block::release_warp(const Thread& last, Warp& warp) {
  Exchange all{0, 0, ~0u, 0, 0};
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (!(last.mask >> lane & 1)) continue;
    const Thread& thread = lane_of(last, lane);
    if (thread.mask != last.mask || !(thread.call == last.call)) return;
    const uint32_t number = uint32_t(thread.bits);
    if (thread.bits != 0) all.voted |= 1u << lane;
    all.least = std::min(all.least, number);
    all.greatest = std::max(all.greatest, number);
    all.sum += number;
  }
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (!(last.mask >> lane & 1)) continue;
    Thread& thread = lane_of(last, lane);
    if (thread.source >= kWarp || !(last.mask >> thread.source & 1)) {
      fail(where(thread) + format(", which lacks lane %u that thread %u reads", thread.source, thread.index));
    }
    thread.exchange = all;
    thread.exchange.bits = lane_of(last, thread.source).bits;
    thread.state = State::kReady;
    ready_.push_back(&thread);
  }
  warp.waiting &= ~last.mask;
  warp.barriers += strcmp(last.call.name, "__syncwarp") == 0;
}

// Places where all threads are, in words.
std::string Block::deadlock() const {
  std::map<std::string, std::string> groups;
  for (unsigned first = 0, last; first < threads_.size(); first = last + 1) {
    const std::string place = where(threads_[first]);
    last = first;
    while (last + 1 < threads_.size() && where(threads_[last + 1]) == place) ++last;
    std::string& group = groups[place];
    group += (group.empty() ? "" : ", ") + std::to_string(first) +
             (last > first ? "-" + std::to_string(last) : "");
  }
  std::string text = "deadlock:";
  for (const auto& [place, threads] : groups) text += " threads " + threads + " " + place + ";";
  text.pop_back();
  return text;
}

void* Block::enter_shared(const SharedMemory& memory, size_t bytes) {
  const auto [found, is_new] = static_shared_.try_emplace(&memory, bytes);
  if (is_new) {
    shared_bytes_ += bytes;
    if (shared_bytes_ > shared_limit_)
      fail(format("the block has %zu bytes of shared memory", shared_bytes_));
  }
  return found->second.data();
}

races::Now Block::now(const void* data) const {
  const auto within = [data](const void* start, size_t bytes) {
    return uintptr_t(data) - uintptr_t(start) < bytes;
  };
  races::Memory memory = races::Memory::kGlobal;
  const auto in_shared = [&](const Guarded& array) { return within(array.data(), array.bytes()); };
  if (within(current_->fiber->stack, current_->fiber->stack_bytes)) {
    memory = races::Memory::kOwn;
  } else if (in_shared(dynamic_shared_) ||
             std::any_of(static_shared_.begin(), static_shared_.end(),
                         [&](const auto& declared) { return in_shared(declared.second); })) {
    memory = races::Memory::kShared;
  }
  return {memory, serial_, current_->index, barriers_, warps_[current_->index / kWarp].barriers};
}

// Completes AddressSanitizer's report.
void print_thread() {
  if (block) {
    fprintf(stderr, "in block (%u, %u, %u), thread %u\n", blockIdx.x, blockIdx.y, blockIdx.z,
            block->current().index);
  }
}

// Kernels that have been launched since the call began.
std::vector<const void*> kernels;

// The blocks of a grid in a random order.
std::vector<uint64_t> shuffled(uint64_t count) {
  std::vector<uint64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = count; i > 1; --i) std::swap(order[i - 1], order[random_below(i)]);
  return order;
}

const char* why_not(dim3 grid, dim3 block, size_t shared_bytes) {
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  const bool grid_fits =
      grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x < 1u << 31 && grid.y < 1u << 16 && grid.z < 1u << 16;
  const bool block_fits = threads > 0 && threads <= 1024 && block.z <= 64;
  return grid_fits && block_fits && shared_bytes <= adafocus::kMaxShared ? nullptr
                                                                         : "invalid configuration argument";
}

}  // namespace

void run_threads() {
  for (;;) block->body();
}

void begin_call(uint64_t seed, bool count_conflicts) {
  random_state = seed;
  kernels.clear();
  if constexpr (races::kOn) banks::begin(count_conflicts);
}

std::vector<std::string> launched() {
  std::vector<std::string> names;
  for (const void* const kernel : kernels) {
    char name[1024] = "";
    // The sanitizer expects an address behind a call, and looks just before it.
    __sanitizer_symbolize_pc(const_cast<char*>(static_cast<const char*>(kernel)) + 1, "%f", name,
                             sizeof(name));
    names.push_back(name);
  }
  return names;
}

std::vector<std::string> found_races() {
  if constexpr (races::kOn) return races::take();
  return {};
}

std::vector<banks::Line> bank_conflicts() {
  if constexpr (races::kOn) return banks::take();
  return {};
}

const char* run(const void* kernel, dim3 grid, dim3 size, size_t shared_bytes,
                const std::function<void()>& thread) {
  __sanitizer_set_death_callback(print_thread);
  if (const char* reason = why_not(grid, size, shared_bytes)) return reason;
  kernels.push_back(kernel);
  static std::string error;
  if constexpr (races::kOn) races::begin_launch();
  gridDim = grid;
  blockDim = size;
  const std::vector<uint64_t> order = shuffled(uint64_t(grid.x) * grid.y * grid.z);
  auto next = order.begin();
  const auto begin = [&](size_t slot) {
    const uint64_t i = *next++;
    const uint3 index{unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
    return std::make_unique<Block>(index, size, slot, shared_bytes, thread);
  };
  turn = size_t(1) << random_below(kTurns);
  for (size_t slots = 1 + random_below(kMaxAlive); alive.size() < slots && next != order.end();) {
    alive.push_back(begin(alive.size()));
  }
  while (!alive.empty()) {
    any_alive().run_next();
    const Block* const left = std::exchange(block, nullptr);  // it has ended or failed
    error = left->error();
    if (!error.empty()) {
      alive.clear();
      return error.c_str();
    }
    const auto place =
        std::find_if(alive.begin(), alive.end(), [&](const auto& b) { return b.get() == left; });
    if (next != order.end()) {
      *place = begin(left->slot);
    } else {
      alive.erase(place);
    }
  }
  return nullptr;
}

unsigned char* dynamic_shared() { return block->dynamic_shared(); }

void* SharedMemory::enter() const { return block->enter_shared(*this, bytes_); }

Count sync_block(Call call, bool vote) { return block->sync_block(call, vote); }

Exchange sync_warp(Call call, uint32_t mask, uint64_t bits, unsigned source) {
  return block->sync_warp(call, mask, bits, source);
}

void let_others_run() { block->let_others_run(); }

unsigned lane() { return block->current().index % kWarp; }

void copy_async(void* shared, const void* global, size_t bytes) {
  if (uintptr_t(shared) % bytes || uintptr_t(global) % bytes) {
    fail("copy_async: %p and %p must be %zu-byte aligned", shared, global, bytes);
  }
  const char* const from = static_cast<const char*>(global);
  if constexpr (races::kOn) {  // it may be done at once, and is at the wait
    races::note_read(global, bytes, __builtin_return_address(0));
    races::note_write(shared, bytes, __builtin_return_address(0));
    banks::note(shared, bytes, __builtin_return_address(0));
  }
  memset(shared, 0xff, bytes);
  block->current().copies.push_back({shared, std::vector<char>(from, from + bytes)});
  __asan_poison_memory_region(shared, bytes);
}

void copy_async_wait_all() {
  std::vector<Copy>& copies = block->current().copies;
  for (const Copy& copy : copies) {
    if constexpr (races::kOn) races::note_write(copy.to, copy.bytes.size(), __builtin_return_address(0));
    __asan_unpoison_memory_region(copy.to, copy.bytes.size());
    memcpy(copy.to, copy.bytes.data(), copy.bytes.size());
  }
  copies.clear();
}

void fail(const char* text, ...) {
  va_list arguments;
  va_start(arguments, text);
  const std::string message = vformat(text, arguments);
  va_end(arguments);
  block->fail(message);
}

races::Now races::now_of(const void* data) { return block ? block->now(data) : Now{Memory::kOwn}; }

#ifdef CUDA_ON_HOST_RACES
void fence() { races::note_fence(); }

void atomic_access(unsigned* at) { races::note_atomic(at, sizeof(*at), __builtin_return_address(0)); }
#endif

}  // namespace cuda_on_host

// Shared memory has 32 banks of 4-byte words, and serves one word of each at a time: an access of a warp
// costs as many transactions as the bank has different words from which most are wanted. Accesses of 8 bytes
// are served to half a warp at a time, and those of 16 to a quarter.
//
// What is approximated:
//   - Lanes of a warp execute an instruction together if each comes by it for the same time since the last
//     barrier of the block or __syncwarp. Where lanes take different ways a GPU may need more.
//   - An access is as wide as the source says: what copies a struct has pieces of up to 16 bytes, of which
//     its size is a multiple. The GPU's compiler also joins the accesses of an unrolled loop to words side by
//     side.
//   - Atomic additions are not counted: lanes that add to the same word wait for each other as well.
#include "banks.h"

#include <sanitizer/common_interface_defs.h>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "races.h"

namespace cuda_on_host::banks {
namespace {

constexpr size_t kBanks = 32, kWord = 4;

struct LaneAccess {
  unsigned lane;
  uintptr_t address;
};

// What lanes of a warp access together.
struct Instruction {
  size_t bytes;
  std::vector<LaneAccess> lanes;
};

// A place in the code, the piece of the access there, and the number of __syncwarp before it.
using Place = std::tuple<const void*, size_t, uint32_t>;

// Of a block, since its last barrier.
struct Accesses {
  std::map<std::pair<unsigned, Place>, unsigned> times;                       // by thread
  std::map<std::tuple<unsigned, Place, unsigned>, Instruction> instructions;  // by warp and time
};

struct Cost {
  uint64_t instructions = 0, transactions = 0, ideal = 0;
};

bool on = false;
std::unordered_map<uint64_t, Accesses> blocks;
std::map<const void*, Cost> costs;

void add(Cost& cost, const Instruction& instruction) {
  const unsigned together = unsigned(kBanks * kWord / std::max(instruction.bytes, kWord));  // lanes
  // By the number of the transaction if there were no conflicts, and by bank.
  std::map<unsigned, std::map<uintptr_t, std::set<uintptr_t>>> words;
  for (const LaneAccess& access : instruction.lanes) {
    const uintptr_t end = access.address + instruction.bytes;
    for (uintptr_t word = access.address / kWord; word * kWord < end; ++word) {
      words[access.lane / together][word % kBanks].insert(word);
    }
  }
  ++cost.instructions;
  cost.ideal += words.size();
  for (const auto& [part, of_bank] : words) {
    size_t most = 0;
    for (const auto& [bank, wanted] : of_bank) most = std::max(most, wanted.size());
    cost.transactions += most;
  }
}

}  // namespace

void begin(bool counting) {
  on = counting;
  blocks.clear();
  costs.clear();
}

void note(const void* data, size_t bytes, const void* place) {
  if (!on) return;
  const races::Now now = races::now_of(data);
  if (now.memory != races::Memory::kShared) return;
  Accesses& accesses = blocks[now.block];
  const uintptr_t first = reinterpret_cast<uintptr_t>(data);
  const size_t width = std::min<size_t>(bytes & -bytes, 16);
  for (size_t piece = 0; piece < bytes; piece += width) {
    const Place here{place, piece, now.warp_barriers};
    const unsigned time = accesses.times[{now.thread, here}]++;
    Instruction& instruction = accesses.instructions[{now.thread / kWarp, here, time}];
    instruction.bytes = width;
    instruction.lanes.push_back({now.thread % kWarp, first + piece});
  }
}

void settle(uint64_t block) {
  const auto accesses = blocks.find(block);
  if (accesses == blocks.end()) return;
  for (const auto& [key, instruction] : accesses->second.instructions) {
    add(costs[std::get<0>(std::get<1>(key))], instruction);
  }
  blocks.erase(accesses);
}

std::vector<Line> take() {
  std::map<std::string, Cost> of_lines;
  for (const auto& [place, cost] : costs) {
    Cost& line = of_lines[races::line_of(place)];
    line.instructions += cost.instructions;
    line.transactions += cost.transactions;
    line.ideal += cost.ideal;
  }
  costs.clear();
  std::vector<Line> lines;
  for (const auto& [line, cost] : of_lines) {
    lines.emplace_back(line, cost.instructions, cost.transactions, cost.ideal);
  }
  return lines;
}

}  // namespace cuda_on_host::banks

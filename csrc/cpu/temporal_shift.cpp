// temporal_shift on the CPU: each frame is three groups of channels, each copied from one frame.
#include "adafocus/temporal_shift.h"

#include "adafocus/strided_block.h"
#include "cpu/strided_copy.h"

namespace adafocus {
namespace {

// Bytes that are more than the caches hold: results of so many are not kept in them.
constexpr int64_t kStreamedBytes = int64_t(16) << 20;

// A group of a frame as `count` runs of memory, of so many bytes each; steps from run to run in bytes.
struct Runs {
  int64_t bytes, count, from_step, to_step;
};

struct Groups {
  StridedBlock block[kShiftGroups];

  explicit Groups(const TemporalShift& p) {
    for (int group = 0; group < kShiftGroups; ++group) {
      StridedDim dims[] = {{p.group_end(group) - p.group_begin(group), p.from.stride_c, p.to.stride_c},
                           {p.to.height, p.from.stride_y, p.to.stride_y},
                           {p.to.width, p.from.stride_x, p.to.stride_x}};
      block[group] = merged_block(dims, 3);
    }
  }

  // True if groups are runs, as many in each group that has channels: one for each pixel, or one for all
  // planes. (Planes with gaps are runs too, but more of them for a group of more channels.)
  bool are_runs() const {
    int64_t count = 0;
    for (const StridedBlock& b : block) {
      if (b.count() == 0) continue;
      const int64_t own = b.dims < 2 ? 1 : b.size[1];
      if (!b.has_runs() || b.dims > 2 || (count > 0 && own != count)) return false;
      count = own;
    }
    return true;
  }

  Runs runs(int group, int64_t element_size) const {
    const StridedBlock& b = block[group];
    const int64_t bytes = b.count() > 0 ? b.size[0] * element_size : 0;
    if (b.dims < 2) return {bytes, 1, 0, 0};
    return {bytes, b.size[1], b.from_stride[1] * element_size, b.to_stride[1] * element_size};
  }
};

// Addresses that a group of a frame comes from, or null for zeros, and goes to.
struct Ends {
  const char* from;
  char* to;
};

Ends ends_of(const TemporalShift& p, int64_t n, int group, int64_t element_size) {
  const int64_t first = p.group_begin(group), source = p.source(n, n % p.num_frames, group);
  char* const to = static_cast<char*>(p.to.data) + (p.to_offset(n) + first * p.to.stride_c) * element_size;
  if (source < 0) return {nullptr, to};
  const int64_t offset = p.from_offset(source) + first * p.from.stride_c;
  return {static_cast<const char*>(p.from.data) + offset * element_size, to};
}

// Copies frames run by run, so that the runs of a pixel are written one after the other.
void stream_frames(const TemporalShift& p, const Groups& groups, int64_t begin, int64_t end) {
  const int64_t size = size_of(p.to.dtype);
  Runs runs[kShiftGroups];
  int64_t ahead[kShiftGroups], count = 0;
  for (int group = 0; group < kShiftGroups; ++group) {
    runs[group] = groups.runs(group, size);
    ahead[group] = fetched_ahead(runs[group].from_step);
    if (runs[group].bytes > 0) count = runs[group].count;
  }
  for (int64_t n = begin; n < end; ++n) {
    Ends ends[kShiftGroups];
    for (int group = 0; group < kShiftGroups; ++group) ends[group] = ends_of(p, n, group, size);
    for (int64_t run = 0; run < count; ++run) {
      for (int group = 0; group < kShiftGroups; ++group) {
        auto& [from, to] = ends[group];
        stream_run(from, to, runs[group].bytes, ahead[group]);
        if (from) from += runs[group].from_step;
        to += runs[group].to_step;
      }
    }
  }
  finish_streams();
}

}  // namespace

void temporal_shift_fwd_cpu(const TemporalShift& p, int64_t begin, int64_t end) {
  const int64_t size = size_of(p.to.dtype);
  const Groups groups(p);
  const int64_t bytes = p.to.count * p.to.channels * p.to.height * p.to.width * size;
  if (bytes >= kStreamedBytes && groups.are_runs()) {
    return stream_frames(p, groups, begin, end);
  }
  for (int64_t n = begin; n < end; ++n) {
    for (int group = 0; group < kShiftGroups; ++group) {
      const auto [from, to] = ends_of(p, n, group, size);
      from ? copy_block(groups.block[group], size, from, to) : zero_block(groups.block[group], size, to);
    }
  }
}

}  // namespace adafocus

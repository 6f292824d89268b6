// temporal_shift on the CPU: each frame is three groups of channels, each copied from one frame.
#include "adafocus/temporal_shift.h"

#include "cpu/strided_copy.h"

namespace adafocus {
namespace {

// More than the caches hold: what is written is not kept in them.
constexpr int64_t kStreamedBytes = int64_t(16) << 20;

// A group of a frame as runs of memory, one in each row; steps from row to row in bytes.
struct Runs {
  int64_t bytes, rows, from_step, to_step;
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

  // Whether frames are rows of runs, one run for each group that has channels: pixels, or planes in one row.
  // (Planes with gaps are runs too, but more of them for a group of more channels.)
  bool are_rows_of_runs() const {
    int64_t rows = 0;
    for (const StridedBlock& b : block) {
      if (b.count() == 0) continue;
      const int64_t own = b.dims < 2 ? 1 : b.size[1];
      if (!b.has_runs() || b.dims > 2 || (rows > 0 && own != rows)) return false;
      rows = own;
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

// Where a group of a frame comes from, or null for zeros, and where it goes.
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

// Frames row by row, so that the groups of a row are written one after the other.
void stream_frames(const TemporalShift& p, const Groups& groups, int64_t begin, int64_t end) {
  const int64_t size = size_of(p.to.dtype);
  Runs runs[kShiftGroups];
  int64_t ahead[kShiftGroups], rows = 0;
  for (int group = 0; group < kShiftGroups; ++group) {
    runs[group] = groups.runs(group, size);
    ahead[group] = fetched_ahead(runs[group].from_step);
    if (runs[group].bytes > 0) rows = runs[group].rows;
  }
  for (int64_t n = begin; n < end; ++n) {
    Ends ends[kShiftGroups];
    for (int group = 0; group < kShiftGroups; ++group) ends[group] = ends_of(p, n, group, size);
    for (int64_t row = 0; row < rows; ++row) {
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
  if (bytes >= kStreamedBytes && groups.are_rows_of_runs()) {
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

// temporal_shift on the CPU: each frame is three groups of channels, each copied from one frame.
#include "adafocus/temporal_shift.h"

#include "cpu/strided_copy.h"

namespace adafocus {

void temporal_shift_fwd_cpu(const TemporalShift& p, int64_t begin, int64_t end) {
  const int64_t size = size_of(p.to.dtype);
  StridedBlock block[kShiftGroups];
  for (int group = 0; group < kShiftGroups; ++group) {
    StridedDim dims[] = {{p.group_end(group) - p.group_begin(group), p.from.stride_c, p.to.stride_c},
                         {p.to.height, p.from.stride_y, p.to.stride_y},
                         {p.to.width, p.from.stride_x, p.to.stride_x}};
    block[group] = merged_block(dims, 3);
  }
  for (int64_t n = begin; n < end; ++n) {
    for (int group = 0; group < kShiftGroups; ++group) {
      const int64_t first = p.group_begin(group), source = p.source(n, n % p.num_frames, group);
      char* const to = static_cast<char*>(p.to.data) + (p.to_offset(n) + first * p.to.stride_c) * size;
      if (source < 0) {
        zero_block(block[group], size, to);
      } else {
        const int64_t offset = p.from_offset(source) + first * p.from.stride_c;
        copy_block(block[group], size, static_cast<const char*>(p.from.data) + offset * size, to);
      }
    }
  }
}

}  // namespace adafocus

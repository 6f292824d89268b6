// The plan of a strip: which scanlines of the frame its output rows read, each staged once, and where.
//
// The first warp makes it, lane i for output row i. Going down the rows, the two scanlines that a row reads
// only move on, downwards or, in a mirrored box, upwards; of the two, the leading one is ahead in that
// direction. So a scanline that was added before is one of the two of the row before, and every lane can tell
// by itself. Example of four rows, in a frame of 6 scanlines, of which 1 and 2 are read by two rows and 3 by
// none:
//
//   lane, or output row                      0      1      2      3
//   reads upper, lower (trailing, leading)  0, 1   1, 2   1, 2   4, 5
//   1. adds trailing                         0      -      -      4     unless the row before reads it
//      adds leading                          1      2      -      5
//   2. scanlines added up to this lane       2      3      3      5     by counting the lanes' votes
//      slots of trailing, leading           0, 1   1, 2   1, 2   3, 4   the last two that were added
//   3. places                               where these slots are in shared memory
//
//   slot                                     0      1      2      3      4
//   scanline_of_slot                         0      1      2      4      5
#pragma once

#include "cuda/staged_layout.h"
#include "cuda/warp.cuh"

namespace adafocus {

// The two scanlines that an output row reads, as places for StagedScanlines::read; outside the frame that of
// the zeros.
struct alignas(16) ScanlinePair {
  int at0, at1;
  float u1;      // the weight of the second
  float inside;  // the weight of those of the two that lie in the frame
};

// Slopes of an output row or column, for the gradient of the box.
struct Slopes {
  float offset;  // of the position by the extent: sample_offset
  float inside;  // of `inside` by the position
};

// The plan, and where `stage` put its scanlines. In static shared memory: the first warp plans and lanes
// stage, then all threads read.
template <int kSegments>
struct StagedTables {
  static constexpr int kMaxSlots = 2 * kMaxStrip + 1;

  ScanlinePair rows[kMaxStrip];     // [strip]
  Slopes slopes[kMaxStrip];         // [strip]
  int scanline_of_slot[kMaxSlots];  // [slots]
  int slots;                        // scanlines to stage
  int zeros;                        // 1 if a scanline of zeros is read, else 0
  // [slots, kSegments]: bytes of dynamic shared memory before each segment
  int segment_at[kMaxSlots * kSegments];
};

// 1 if a pixel has a value: it lies in the frame, or the edge is copied.
AF_DEVICE float is_inside(const CropResize& p, int pixel, int size) {
  return p.border || (pixel >= 0 && pixel < size) ? 1.0f : 0.0f;
}

// Scanlines, or their slots, that a row reads.
struct TwoScanlines {
  int trailing, leading;
};

// Votes of a lane for adding them.
struct TwoVotes {
  bool trailing, leading;
};

// Slots of the scanlines that a lane's row reads, and the number of those added by the lanes up to this one.
struct NumberedSlots {
  TwoScanlines slot;
  int added;
};

// Step 1: the scanlines that a lane's row is the first to read.
AF_DEVICE TwoVotes added_scanlines(const TwoScanlines& read, bool exists, int lane) {
  const int leading = read.leading, trailing = read.trailing;
  const int last_leading = __shfl_up_sync(kAllLanes, leading, 1);
  const int last_trailing = __shfl_up_sync(kAllLanes, trailing, 1);
  const bool starts = lane == 0;
  const bool adds_trailing = exists && (starts || (trailing != last_leading && trailing != last_trailing));
  const bool adds_leading =
      exists && leading != trailing && (starts || (leading != last_leading && leading != last_trailing));
  return {adds_trailing, adds_leading};
}

// Step 2: the scanlines' slots, in the order in which they are added; a row reads the last ones.
AF_DEVICE NumberedSlots number_slots(const TwoScanlines& read, const TwoVotes& adds, int lane) {
  const unsigned through = kAllLanes >> (kWarp - 1 - lane);
  const unsigned trailing_added = __ballot_sync(kAllLanes, adds.trailing);
  const unsigned leading_added = __ballot_sync(kAllLanes, adds.leading);
  const int added = __popc(trailing_added & through) + __popc(leading_added & through);
  return {{read.leading == read.trailing ? added - 1 : added - 2, added - 1}, added};
}

// Plans output rows [first, first + count) of a box in the block's first warp. `place(slot, scanline)` is
// what StagedScanlines::read takes for the scanline of a slot, and `zero_place` for that of the zeros.
template <int kSegments, class Place>
AF_DEVICE void plan_scanlines(const CropResize& p, const Box<float>& box, bool valid, int first, int count,
                              const Place& place, int zero_place, StagedTables<kSegments>& tables) {
  const int lane = thread_index(), i = first + min_of(lane, count - 1);
  const int height = int(p.frames.height), rows = int(p.patches.height);
  const bool exists = lane < count, mirrored = box.h < 0.0f;
  const Tap<float, int> tap = sample_tap(box.cy, box.h, i, rows, height);
  const int upper = clamp_to(tap.first, 0, height - 1), lower = clamp_to(tap.first + 1, 0, height - 1);
  const TwoScanlines read{mirrored ? lower : upper, mirrored ? upper : lower};

  const TwoVotes adds = added_scanlines(read, exists, lane);  // 1

  const auto [slot, added] = number_slots(read, adds, lane);  // 2
  if (adds.trailing) tables.scanline_of_slot[slot.trailing] = read.trailing;
  if (adds.leading) tables.scanline_of_slot[slot.leading] = read.leading;
  if (lane == kWarp - 1) tables.slots = valid ? added : 0;

  const float inside0 = is_inside(p, tap.first, height), inside1 = is_inside(p, tap.first + 1, height);  // 3
  const bool zeros = !valid || (exists && (inside0 == 0.0f || inside1 == 0.0f));
  if (const unsigned any = __ballot_sync(kAllLanes, zeros); lane == 0) tables.zeros = any != 0;
  if (!exists) return;
  const int upper_slot = mirrored ? slot.leading : slot.trailing;
  const int lower_slot = mirrored ? slot.trailing : slot.leading;
  tables.rows[lane] = {inside0 > 0.0f ? place(upper_slot, upper) : zero_place,
                       inside1 > 0.0f ? place(lower_slot, lower) : zero_place, tap.u1,
                       tap.u0 * inside0 + tap.u1 * inside1};
  if (!valid) tables.rows[lane] = {zero_place, zero_place, 0.0f, 1.0f};
  tables.slopes[lane] = {sample_offset<float>(i, rows), inside1 - inside0};
}

}  // namespace adafocus

// Rows of a frame of three channels in shared memory: read once, in 16-byte pieces, whatever the type and
// layout.
//
// A strip is a few output rows of one box. The frame rows that it reads go to shared memory byte by byte as
// they are, each in a segment (interleaved channels) or three (planes) with the same offset from a 16-byte
// boundary as in global memory, so that 16-byte copies fit. Segments have a margin for the pixels just
// outside the frame, which are read like others and then replaced by zero, or by the edge pixel.
#pragma once

#include <type_traits>

#include "cuda/crop.cuh"

namespace adafocus {

constexpr int kChannels = 3;
constexpr int kMaxStrip = kWarp;  // output rows of a strip: one lane plans each
constexpr int kMargin = 16;  // bytes on either side of a segment: a pixel, and the rest of a 16-byte piece

// Where an output samples an axis. Pixel `first` is counted from the start of the segments; a row's pixels
// have slots in shared memory.
struct StagedTap {
  static constexpr int kInside0 = 1, kInside1 = 2, kSame = 4;  // kSame: both pixels are the first
  int flags;
  float u1;
  AF_DEVICE bool inside0() const { return flags & kInside0; }
  AF_DEVICE bool inside1() const { return flags & kInside1; }
  AF_DEVICE bool same() const { return flags & kSame; }
};

// A tap whose first pixel lies in the frame or just outside of it, if it is ever used.
AF_DEVICE StagedTap stage_tap(const Tap<float>& tap, int64_t size, bool border, int64_t* first) {
  *first = clamp_to<int64_t>(tap.first, border ? 0 : -1, size - 1);
  const bool same = border && (tap.first < 0 || tap.first >= size - 1);
  const bool inside0 = border || (tap.first >= 0 && tap.first < size);
  const bool inside1 = border || (tap.first >= -1 && tap.first < size - 1);
  return {(inside0 ? StagedTap::kInside0 : 0) | (inside1 ? StagedTap::kInside1 : 0) |
              (same ? StagedTap::kSame : 0),
          tap.u1};
}

// Copies `count` bytes to shared memory that lies alike to 16-byte boundaries; the lanes of a warp share the
// work.
AF_DEVICE void stage_bytes(unsigned char* to, const unsigned char* from, int count, int lane) {
  const int head = min_of(int(-reinterpret_cast<uintptr_t>(from) & 15), count), pieces = (count - head) / 16;
  if (lane < head) to[lane] = from[lane];
  for (int n = lane; n < pieces; n += kWarp) copy_async_16(to + head + 16 * n, from + head + 16 * n);
  const int tail = head + 16 * pieces;
  if (tail + lane < count) to[tail + lane] = from[tail + lane];
}

// Copies `count` bytes from shared memory that lies alike to 16-byte boundaries; the threads of the block
// share.
AF_DEVICE void unstage_bytes(unsigned char* to, const unsigned char* from, int count) {
  const int head = min_of(int(-reinterpret_cast<uintptr_t>(to) & 15), count), pieces = (count - head) / 16;
  const int thread = thread_index(), tail = head + 16 * pieces;
  if (thread < head) to[thread] = from[thread];
  for (int n = thread; n < pieces; n += kThreads) store_16(to + head + 16 * n, load_16(from + head + 16 * n));
  if (tail + thread < count) to[tail + thread] = from[tail + thread];
}

// Sizes in shared memory, the same on the host and in the kernel.
struct StagedLayout {
  int strip;      // output rows of a strip
  int out_w;      // columns of the patch
  int segments;   // of a row: 1 (interleaved) or 3 (planes)
  int pitch;      // bytes from segment to segment
  int out_pitch;  // bytes from run to run of the output's strip, 0 where there is no output

  AF_HD int taps_bytes() const { return out_w * 16; }
  AF_HD int rows_bytes() const { return 2 * strip * segments * pitch; }
  AF_HD int bytes(int out_runs) const { return taps_bytes() + rows_bytes() + out_runs * out_pitch; }
};

// The rows of a strip.
template <class T, bool kInterleaved>
class StagedRows {
 public:
  static constexpr int kSegments = kInterleaved ? 1 : kChannels;
  static constexpr int kPixel = int(sizeof(T)) * (kInterleaved ? kChannels : 1);  // bytes between pixels

  // What an output row reads.
  struct Row {
    StagedTap tap;
    int slot0, slot1;
    float offset;  // sample_offset
  };
  // What an output column reads, `at` bytes from the start of a segment.
  struct alignas(16) Column {
    StagedTap tap;
    int at;
    float offset;
  };

  AF_DEVICE StagedRows(const CropResize& p, int64_t k, int64_t frame, const StagedLayout& layout, Row* rows,
                       int* row_of_slot, int* segment_at)
      : p_(p),
        box_(p.box<float>(k)),
        layout_(layout),
        rows_(rows),
        row_of_slot_(row_of_slot),
        segment_at_(segment_at) {
    const int64_t width = p.frames.width;
    const Range columns = pixels_of<BilinearSample>(box_.cx, box_.w, p.patches.width, width, p.border);
    start_ = clamp_to<int64_t>(columns.begin, 0, width - 1);
    count_ = int(clamp_to<int64_t>(columns.end, start_ + 1, width) - start_);
    image_ = static_cast<const unsigned char*>(p.frames.data) +
             (p.frames.offset(frame) + start_ * p.frames.stride_x) * int64_t(sizeof(T));
    Column* const table = this->columns();
    for (int j = thread_index(); j < layout.out_w; j += kThreads) {
      int64_t first;
      table[j].tap = stage_tap(sample_tap(box_.cx, box_.w, j, layout.out_w, width), width, p.border, &first);
      table[j].at = int(clamp_to<int64_t>(first - start_, -1, count_ - 1)) * kPixel;
      table[j].offset = sample_offset<float>(j, layout.out_w);
    }
  }

  // Reads the frame rows of output rows [first, first + count); a barrier must follow.
  AF_DEVICE void stage(int first, int count) const {
    if (thread_index() < kWarp) plan(first, count);
    __syncthreads();
    const int lane = thread_index() % kWarp, warp = thread_index() / kWarp;
    const int segments = row_of_slot_[kMaxRows] * kSegments;
    for (int n = warp; n < segments; n += kWarps) {
      const unsigned char* const from = segment(row_of_slot_[n / kSegments], n % kSegments);
      const int at = n * layout_.pitch + kMargin + int(reinterpret_cast<uintptr_t>(from) & 15);
      if (lane == 0) segment_at_[n] = at;
      stage_bytes(shared_rows() + at, from, count_ * kPixel, lane);
    }
    copy_async_wait_all();
  }

  AF_DEVICE Row row(int i) const { return rows_[i]; }
  AF_DEVICE Column column(int j) const { return columns()[j]; }

  // The two pixels of a column in one row, as stored; zero outside the frame.
  AF_DEVICE void read(int slot, const Column& column, float (&left)[kChannels],
                      float (&right)[kChannels]) const {
    read_stored(slot, column.at, left, right);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      left[c] = column.tap.inside0() ? left[c] : 0.0f;
      right[c] = column.tap.same() ? left[c] : column.tap.inside1() ? right[c] : 0.0f;
    }
  }

  static constexpr int kMaxRows = 2 * kMaxStrip;

 private:
  AF_DEVICE Column* columns() const { return reinterpret_cast<Column*>(dynamic_shared()); }
  AF_DEVICE unsigned char* shared_rows() const { return dynamic_shared() + layout_.taps_bytes(); }

  AF_DEVICE const unsigned char* segment(int64_t row, int64_t c) const {
    return image_ + (row * p_.frames.stride_y + c * p_.frames.stride_c) * int64_t(sizeof(T));
  }

  // Which frame rows the strip reads, each once: lane i plans output row i. Rows come in order, so a row that
  // was read before is the last or the last but one that was added.
  AF_DEVICE void plan(int first, int count) const {
    const int lane = thread_index(), height = int(p_.frames.height);
    const bool exists = lane < count, mirrored = box_.h < 0.0f;
    int64_t top;
    const Tap<float> tap =
        sample_tap(box_.cy, box_.h, first + (exists ? lane : 0), p_.patches.height, height);
    Row row{stage_tap(tap, height, p_.border, &top), 0, 0,
            sample_offset<float>(first + lane, p_.patches.height)};
    const int upper = max_of(int(top), 0), lower = row.tap.same() ? upper : min_of(int(top) + 1, height - 1);
    const int leading = mirrored ? upper : lower, trailing = mirrored ? lower : upper;
    const int last_leading = __shfl_up_sync(0xffffffffu, leading, 1);
    const int last_trailing = __shfl_up_sync(0xffffffffu, trailing, 1);
    const bool starts = lane == 0;
    const bool adds_trailing = exists && (starts || (trailing != last_leading && trailing != last_trailing));
    const bool adds_leading =
        exists && leading != trailing && (starts || (leading != last_leading && leading != last_trailing));
    const unsigned through = 0xffffffffu >> (kWarp - 1 - lane);
    const unsigned trailing_added = __ballot_sync(0xffffffffu, adds_trailing);
    const unsigned leading_added = __ballot_sync(0xffffffffu, adds_leading);
    const int added = __popc(trailing_added & through) + __popc(leading_added & through);
    const int leading_slot = added - 1, trailing_slot = leading == trailing ? added - 1 : added - 2;
    row.slot0 = mirrored ? leading_slot : trailing_slot;
    row.slot1 = mirrored ? trailing_slot : leading_slot;
    if (exists) rows_[lane] = row;
    if (adds_trailing) row_of_slot_[trailing_slot] = trailing;
    if (adds_leading) row_of_slot_[leading_slot] = leading;
    if (lane == kWarp - 1) row_of_slot_[kMaxRows] = added;
  }

  AF_DEVICE void read_stored(int slot, int at, float (&left)[kChannels], float (&right)[kChannels]) const {
    const unsigned char* const rows = shared_rows();
    if constexpr (kInterleaved && sizeof(T) == 1) {
      // Six bytes at any offset: three words, shifted.
      const int byte = segment_at_[slot] + at;
      const uint32_t* const words = reinterpret_cast<const uint32_t*>(rows) + byte / 4;
      const uint32_t shift = uint32_t(byte % 4) * 8;
      const uint32_t low = funnel_shift_right(words[0], words[1], shift);
      const uint32_t high = funnel_shift_right(words[1], words[2], shift);
      left[0] = byte_as_float(low, 0);
      left[1] = byte_as_float(low, 1);
      left[2] = byte_as_float(low, 2);
      right[0] = byte_as_float(low, 3);
      right[1] = byte_as_float(high, 0);
      right[2] = byte_as_float(high, 1);
    } else {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const int segment =
            kInterleaved ? segment_at_[slot] + c * int(sizeof(T)) : segment_at_[slot * kSegments + c];
        const unsigned char* const pixel = rows + segment + at;
        left[c] = load_as<float>(*reinterpret_cast<const T*>(pixel));
        right[c] = load_as<float>(*reinterpret_cast<const T*>(pixel + kPixel));
      }
    }
  }

  // A byte becomes the low mantissa bits of 2^23, which a subtraction removes: two full-rate instructions,
  // where a conversion takes a slower unit.
  AF_DEVICE static float byte_as_float(uint32_t word, uint32_t n) {
    return float_of(byte_permute(word, 0x4b000000u, 0x7650u + n)) - 8388608.0f;
  }

  const CropResize& p_;
  const Box<float> box_;
  const StagedLayout& layout_;
  Row* rows_;         // [kMaxStrip]
  int* row_of_slot_;  // [kMaxRows + 1], the last is their number
  int* segment_at_;   // [kMaxRows kSegments]
  const unsigned char* image_;
  int64_t start_;
  int count_;
};

// Walks the pixels of a strip, thread by thread, without a division for each.
template <class F>
AF_DEVICE void for_each_output(int rows, int columns, const F& f) {
  const int down = kThreads / columns, right = kThreads % columns;
  for (int i = thread_index() / columns, j = thread_index() % columns; i < rows;) {
    f(i, j);
    i += down;
    j += right;
    if (j >= columns) {
      j -= columns;
      ++i;
    }
  }
}

// Patches, or their gradient, of these types: uint8 and float64 are left to the other kernels.
inline bool is_staged_output(DType dtype) { return dtype != DType::kUInt8 && dtype != DType::kFloat64; }

template <class F>
AF_DEVICE void visit_staged_output(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kFloat16:
      return f(TypeTag<Half>{});
    case DType::kBFloat16:
      return f(TypeTag<BFloat16>{});
    default:
      return f(TypeTag<float>{});
  }
}

// Shared memory that a block should stay below, so that an SM holds several.
constexpr int kStagedBytes = 24 * 1024;
// Rows are staged in whole: where a patch reads a smaller share of them, the other kernels read less.
constexpr int kMaxBytesPerColumn = 64;

inline int round_up_16(int64_t bytes) { return int((bytes + 15) / 16 * 16); }

// The layout of a call in shared memory, with the longest strip that fits; a strip of no rows if none does.
inline StagedLayout staged_layout(const CropResize& p, bool with_output) {
  const bool interleaved = p.frames.stride_c == 1;
  const int64_t size = size_of(p.frames.dtype), out_size = with_output ? size_of(p.patches.dtype) : 0;
  const int64_t row = p.frames.width * size * (interleaved ? kChannels : 1);
  StagedLayout layout{};
  const bool dense = (interleaved ? p.frames.stride_x == kChannels : p.frames.stride_x == 1);
  if (p.frames.channels != kChannels || p.antialias || p.double_precision || size == 8 || !dense ||
      !is_staged_output(p.patches.dtype) ||
      p.frames.width * size * kChannels > kMaxBytesPerColumn * p.patches.width || p.patches.width > 1024) {
    return layout;
  }
  layout.out_w = int(p.patches.width);
  layout.segments = interleaved ? 1 : kChannels;
  layout.pitch = round_up_16(row + 15 + 2 * kMargin);
  const int out_runs = p.patches.stride_c == 1 ? 1 : kChannels;
  const auto bytes = [&](int strip) {
    layout.strip = strip;
    const int64_t run = strip * p.patches.width * out_size * (out_runs == 1 ? kChannels : 1);
    layout.out_pitch = with_output ? round_up_16(run + 15) : 0;
    return layout.bytes(out_runs);
  };
  const int longest = int(min_of<int64_t>(kMaxStrip, p.patches.height));
  int strip = min_of(longest, 8);
  while (strip > 1 && bytes(strip) > kStagedBytes) strip /= 2;
  if (bytes(strip) > int(kMaxShared) - 4096) layout.strip = 0;
  return layout;
}

inline int staged_bytes(const CropResize& p, const StagedLayout& layout) {
  return layout.bytes(layout.out_pitch == 0 ? 0 : p.patches.stride_c == 1 ? 1 : kChannels);
}

// Calls f with the element type of the frames, which is not double, and whether their channels are
// interleaved.
template <class F>
const char* with_frames(const CropResize& p, const F& f) {
  const char* error = nullptr;
  const auto choose = [&](auto tag) {
    error = p.frames.stride_c == 1 ? f(tag, TypeTag<std::true_type>{}) : f(tag, TypeTag<std::false_type>{});
  };
  switch (p.frames.dtype) {
    case DType::kUInt8:
      choose(TypeTag<uint8_t>{});
      break;
    case DType::kFloat16:
      choose(TypeTag<Half>{});
      break;
    case DType::kBFloat16:
      choose(TypeTag<BFloat16>{});
      break;
    default:
      choose(TypeTag<float>{});
  }
  return error;
}

}  // namespace adafocus

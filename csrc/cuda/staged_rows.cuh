// Rows of a frame of three channels in shared memory: read once, in 16-byte pieces, whatever the type and
// layout.
//
// A strip is a few output rows of one box. The frame rows that it reads go to shared memory byte by byte as
// they are, each in a segment (interleaved channels) or three (planes) with the same offset from a 16-byte
// boundary as in global memory, so that 16-byte copies fit. In a margin on either side lie the two pixels
// just outside the frame, zero or copies of the edge, so that reading needs no bounds.
#pragma once

#include <type_traits>

#include "cuda/crop.cuh"

namespace adafocus {

constexpr int kChannels = 3;
constexpr int kMaxStrip = 8;  // output rows of a strip: one lane of a warp plans each
constexpr int kMargin = 32;   // bytes on either side of a segment: two pixels, and the rest of a word

// Copies `count` bytes to shared memory that lies alike to 16-byte boundaries; the lanes of a warp share the
// work.
AF_DEVICE void stage_bytes(unsigned char* to, const unsigned char* from, int count, int lane) {
  const int head = min_of(int(-reinterpret_cast<uintptr_t>(from) & 15), count), pieces = (count - head) / 16;
  if (lane < head) to[lane] = from[lane];
#pragma unroll 1  // a few rounds: unrolled code would only be longer
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
#pragma unroll 1
  for (int n = thread; n < pieces; n += kThreads) store_16(to + head + 16 * n, load_16(from + head + 16 * n));
  if (tail + thread < count) to[tail + thread] = from[tail + thread];
}

// Sizes in shared memory, the same on the host and in the kernel.
struct StagedLayout {
  int strip;      // output rows of a strip
  int segments;   // of a row: 1 (interleaved) or 3 (planes)
  int pitch;      // bytes from segment to segment
  int out_pitch;  // bytes from run to run of the output's strip, 0 where there is no output

  // Rows of a strip, and one of zeros.
  AF_HD int rows() const { return 2 * strip + 1; }
  AF_HD int rows_bytes() const { return rows() * segments * pitch; }
  AF_HD int bytes(int out_runs) const { return rows_bytes() + out_runs * out_pitch; }
};

// The rows of a strip.
template <class T, bool kInterleaved>
class StagedRows {
 public:
  static constexpr int kSegments = kInterleaved ? 1 : kChannels;
  static constexpr int kPixel = int(sizeof(T)) * (kInterleaved ? kChannels : 1);  // bytes between pixels
  static constexpr int kMaxRows = 2 * kMaxStrip + 1;

  // The two frame rows that an output row reads, as places for `read`; outside the frame that of the zeros.
  struct alignas(16) Row {
    int at0, at1;
    float u1, inside;  // inside: the weight of those of the two that lie in the frame
  };
  // What the gradient of the box takes in addition.
  struct RowSlopes {
    float offset;  // sample_offset
    float inside;  // of Row's inside, by the position
  };
  // What an output column reads: the first of its two pixels, in bytes from the start of a segment.
  struct Column {
    int at;
    float u1, inside;
    RowSlopes slopes;
  };
  // What the threads of a block share.
  struct Tables {
    Row rows[kMaxStrip];
    RowSlopes slopes[kMaxStrip];
    int row_of_slot[kMaxRows], slots, zeros;  // zeros: whether a row of zeros is read
    int segment_at[kMaxRows * kSegments];
  };

  // An invalid box has rows of zeros, all of whose weight counts as inside.
  AF_DEVICE StagedRows(const CropResize& p, int64_t k, bool valid, const StagedLayout& layout, Tables& tables)
      : p_(p), box_(p.box<float>(k)), valid_(valid), layout_(layout), tables_(tables) {
    const int64_t width = p.frames.width;
    const Range pixels = pixels_of<BilinearFootprint>(box_.cx, box_.w, p.patches.width, width, p.border);
    start_ = clamp_to<int64_t>(pixels.begin, 0, width - 1);
    count_ = int(clamp_to<int64_t>(pixels.end, start_ + 1, width) - start_);
    image_ = static_cast<const unsigned char*>(p.frames.data) +
             (p.frames.offset(valid ? p.frame_of(k) : 0) + start_ * p.frames.stride_x) * int64_t(sizeof(T));
  }

  // Reads the frame rows of output rows [first, first + count); a barrier must follow.
  AF_DEVICE void stage(int first, int count) const {
    if (thread_index() < kWarp) plan(first, count);
    __syncthreads();
    const int lane = thread_index() % kWarp, warp = thread_index() / kWarp;
    for (int n = warp; n < tables_.slots * kSegments; n += kWarps) {
      const int64_t row = tables_.row_of_slot[n / kSegments];
      const unsigned char* const from = segment(row, n % kSegments);
      unsigned char* const to = shared_rows() + segment_at(n, row);
      if (lane == 0) tables_.segment_at[n] = segment_at(n, row);
      stage_bytes(to, from, count_ * kPixel, lane);
      // Two pixels on either side: zero, or copies of the edge.
      if (lane < 2 * kPixel) {
        const int last = (count_ - 1) * kPixel;
        to[lane - 2 * kPixel] = p_.border ? from[lane % kPixel] : 0;
        to[lane + last + kPixel] = p_.border ? from[last + lane % kPixel] : 0;
      }
    }
    if (tables_.zeros) {
      const int begin = zero_slot() * kSegments * layout_.pitch, end = begin + kSegments * layout_.pitch;
      for (int n = begin + thread_index() * 16; n < end; n += kThreads * 16) store_16(shared_rows() + n, {});
      if (thread_index() < kSegments) {
        const int n = zero_slot() * kSegments + thread_index();
        tables_.segment_at[n] = n * layout_.pitch + kMargin;
      }
    }
    copy_async_wait_all();
  }

  AF_DEVICE Row row(int i) const { return tables_.rows[i]; }
  AF_DEVICE RowSlopes slopes(int i) const { return tables_.slopes[i]; }

  AF_DEVICE Column column(int j) const {
    const int64_t width = p_.frames.width;
    const Tap<float> tap = sample_tap(box_.cx, box_.w, j, p_.patches.width, width);
    const int first = int(clamp_to<int64_t>(tap.first - start_, -2, count_));  // the margin holds two pixels
    const float inside0 = is_inside(tap.first, width), inside1 = is_inside(tap.first + 1, width);
    return {first * kPixel,
            tap.u1,
            tap.u0 * inside0 + tap.u1 * inside1,
            {sample_offset<float>(j, p_.patches.width), inside1 - inside0}};
  }

  // The two pixels of a column in the row at a place, as stored.
  AF_DEVICE void read(int at, const Column& column, float (&left)[kChannels],
                      float (&right)[kChannels]) const {
    if constexpr (kInterleaved && sizeof(T) == 1) {
      read_bytes(at, column, left, right);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        left[c] -= kByteBias;
        right[c] -= kByteBias;
      }
    } else {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const int start = kInterleaved ? at + c * int(sizeof(T)) : tables_.segment_at[at + c];
        const unsigned char* const pixel = shared_rows() + start + column.at;
        left[c] = load_as<float>(*reinterpret_cast<const T*>(pixel));
        right[c] = load_as<float>(*reinterpret_cast<const T*>(pixel + kPixel));
      }
    }
  }

  // The row at a place interpolated at a column.
  AF_DEVICE void blend(int at, const Column& column, float (&value)[kChannels]) const {
    float left[kChannels], right[kChannels];
    if constexpr (kInterleaved && sizeof(T) == 1) {
      read_bytes(at, column, left, right);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        value[c] = (left[c] - kByteBias) + column.u1 * (right[c] - left[c]);  // bytes have no infinity
      }
    } else {
      read(at, column, left, right);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) value[c] = (1.0f - column.u1) * left[c] + column.u1 * right[c];
    }
  }

 private:
  // A byte becomes the low mantissa bits of 2^23: one permutation, and the bias goes with a subtraction,
  // where a conversion takes a slower unit.
  static constexpr float kByteBias = 8388608.0f;

  AF_DEVICE static float biased(uint32_t word, uint32_t n) {
    return float_of(byte_permute(word, 0x4b000000u, 0x7650u + n));
  }

  // Six bytes at any place: three words, shifted.
  AF_DEVICE void read_bytes(int at, const Column& column, float (&left)[kChannels],
                            float (&right)[kChannels]) const {
    const uint32_t byte = uint32_t(at + column.at);
    const uint32_t* const words = reinterpret_cast<const uint32_t*>(shared_rows() + (byte & ~3u));
    const uint32_t bits = byte * 8;  // its low five bits count
    const uint32_t low = funnel_shift_right(words[0], words[1], bits);
    const uint32_t high = funnel_shift_right(words[1], words[2], bits);
    left[0] = biased(low, 0);
    left[1] = biased(low, 1);
    left[2] = biased(low, 2);
    right[0] = biased(low, 3);
    right[1] = biased(high, 0);
    right[2] = biased(high, 1);
  }

  AF_DEVICE unsigned char* shared_rows() const { return dynamic_shared(); }

  AF_DEVICE int zero_slot() const { return 2 * layout_.strip; }

  // 1 if a pixel has a value: it lies in the frame, or the edge is copied.
  AF_DEVICE float is_inside(int64_t pixel, int64_t size) const {
    return p_.border || (pixel >= 0 && pixel < size) ? 1.0f : 0.0f;
  }

  AF_DEVICE const unsigned char* segment(int64_t row, int64_t c) const {
    return image_ + (row * p_.frames.stride_y + c * p_.frames.stride_c) * int64_t(sizeof(T));
  }

  // Where segment n, which belongs to a row, starts in shared memory.
  AF_DEVICE int segment_at(int n, int64_t row) const {
    return n * layout_.pitch + kMargin + int(reinterpret_cast<uintptr_t>(segment(row, n % kSegments)) & 15);
  }

  // Which frame rows the strip reads, each once: lane i plans output row i. Rows come in order, so a row that
  // was read before is the last or the last but one that was added.
  AF_DEVICE void plan(int first, int count) const {
    const int lane = thread_index(), height = int(p_.frames.height), i = first + min_of(lane, count - 1);
    const bool exists = lane < count, mirrored = box_.h < 0.0f;
    const Tap<float> tap = sample_tap(box_.cy, box_.h, i, p_.patches.height, height);
    const int upper = int(clamp_to<int64_t>(tap.first, 0, height - 1));
    const int lower = int(clamp_to<int64_t>(tap.first + 1, 0, height - 1));
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
    if (adds_trailing) tables_.row_of_slot[trailing_slot] = trailing;
    if (adds_leading) tables_.row_of_slot[leading_slot] = leading;
    if (lane == kWarp - 1) tables_.slots = valid_ ? added : 0;
    const float inside0 = is_inside(tap.first, height), inside1 = is_inside(tap.first + 1, height);
    const bool zeros = !valid_ || (exists && (inside0 == 0.0f || inside1 == 0.0f));
    if (const unsigned any = __ballot_sync(0xffffffffu, zeros); lane == 0) tables_.zeros = any != 0;
    if (!exists) return;
    const int upper_slot = mirrored ? leading_slot : trailing_slot;
    const int lower_slot = mirrored ? trailing_slot : leading_slot;
    tables_.rows[lane] = {inside0 > 0.0f ? place(upper_slot, upper) : zero_place(),
                          inside1 > 0.0f ? place(lower_slot, lower) : zero_place(), tap.u1,
                          tap.u0 * inside0 + tap.u1 * inside1};
    if (!valid_) tables_.rows[lane] = {zero_place(), zero_place(), 0.0f, 1.0f};
    tables_.slopes[lane] = {sample_offset<float>(i, p_.patches.height), inside1 - inside0};
  }

  // What `read` takes for the row in a slot: where it starts, or the first of its planes.
  AF_DEVICE int place(int slot, int64_t row) const {
    return kInterleaved ? segment_at(slot, row) : slot * kSegments;
  }

  AF_DEVICE int zero_place() const {
    return kInterleaved ? zero_slot() * layout_.pitch + kMargin : zero_slot() * kSegments;
  }

  const CropResize& p_;
  const Box<float> box_;
  const bool valid_;
  const StagedLayout& layout_;
  Tables& tables_;
  const unsigned char* image_;
  int64_t start_;
  int count_;
};

// Calls f(j, first, step) for the columns of a strip: this thread takes rows first, first + step, ... of
// column j, so that what belongs to a column stays in registers.
template <class F>
AF_DEVICE void for_each_column(int columns, const F& f) {
  const int across = min_of(columns, kThreads), down = kThreads / across;
  const int first = thread_index() / across;
  if (first >= down) return;
  for (int j = thread_index() % across; j < columns; j += across) f(j, first, down);
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
  if (p.frames.count == 0 || p.frames.channels != kChannels || p.antialias || p.double_precision ||
      size == 8 || !dense || !is_staged_output(p.patches.dtype) ||
      p.frames.width * size * kChannels > kMaxBytesPerColumn * p.patches.width || p.patches.width > 1024) {
    return layout;
  }
  layout.segments = interleaved ? 1 : kChannels;
  layout.pitch = round_up_16(row + 15 + 2 * kMargin);
  const int out_runs = p.patches.stride_c == 1 ? 1 : kChannels;
  const auto bytes = [&](int strip) {
    layout.strip = strip;
    const int64_t run = strip * p.patches.width * out_size * (out_runs == 1 ? kChannels : 1);
    layout.out_pitch = with_output ? round_up_16(run + 15) : 0;
    return layout.bytes(out_runs);
  };
  int strip = int(min_of<int64_t>(kMaxStrip, p.patches.height));
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

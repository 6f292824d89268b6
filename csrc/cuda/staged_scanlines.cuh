// Scanlines of a frame of three channels in shared memory: read once, in 16-byte pieces, whatever the type
// and layout.
//
// A strip is a few output rows of one box. It is worked on in three phases, with a barrier after the first
// (and others within it):
//   1. stage         plan (scanline_plan.cuh), and copy the scanlines that the strip reads, byte by byte as
//                    they are, each into a segment (interleaved channels) or three (planes),
//   2. row, column   look up what an output row and an output column read,
//   3. blend, read   take the two pixels of a scanline that a column reads, interpolated or as stored.
//
// A segment has the same offset from a 16-byte boundary as in global memory, so that 16-byte copies fit: at
// its ends those bring bytes of its neighbours into the margins on either side. Where a column reads outside
// the frame, these are overwritten with the two pixels just outside, zeros or copies of the edge, so that
// reading needs no bounds:
//
//   slot 0   | margin  p p | a b c d ... x y z | p p  margin |     p: zeros, or copies of a or of z
//   slot 1   | margin  p p | a b c d ... x y z | p p  margin |
//   ...      |<------------------ pitch -------------------->|
//   last     | zeros, for a scanline outside the frame       |
#pragma once

#include "cuda/scanline_plan.cuh"

namespace adafocus {

// The scanlines that the strips of one box read, a strip at a time.
template <class T, bool kInterleaved>
class StagedScanlines {
 public:
  static constexpr int kSegments = kInterleaved ? 1 : kChannels;
  static constexpr int kLanes = 8;  // of a segment: as many as copy a cache line
  static constexpr int kPixel = int(sizeof(T)) * (kInterleaved ? kChannels : 1);  // bytes between pixels
  // Bytes behind a segment that are read with its last ones: the rest of three words.
  static constexpr int kBehind = kInterleaved && sizeof(T) == 1 ? 6 : 0;
  static_assert(2 * kPixel + kBehind <= kMargin, "the margins hold two pixels, and what is read with them");
  using Tables = StagedTables<kSegments>;

  // The two pixels of a scanline that an output column reads, neighbours in a segment.
  struct PixelPair {
    int at;        // bytes from the start of a segment to the first
    float u1;      // the weight of the second
    float inside;  // the weight of those of the two that lie in the frame
    Slopes slopes;
  };

  // An invalid box has scanlines of zeros, all of whose weight counts as inside.
  AF_DEVICE StagedScanlines(const CropResize& p, int64_t k, bool valid, const StagedLayout& layout,
                            Tables& tables)
      : p_(p), box_(p.box<float>(k)), valid_(valid), layout_(layout), tables_(tables) {
    const int width = int(p.frames.width), columns = int(p.patches.width);
    const RangeOf<int> pixels = pixels_of<BilinearFootprint32>(box_.cx, box_.w, columns, width, p.border);
    start_ = clamp_to(pixels.begin, 0, width - 1);
    count_ = clamp_to(pixels.end, start_ + 1, width) - start_;
    const int first = sample_tap(box_.cx, box_.w, 0, columns, width).first;
    const int last = sample_tap(box_.cx, box_.w, columns - 1, columns, width).first;
    inside_ = min_of(first, last) >= 0 && max_of(first, last) < width - 1;
    image_ = static_cast<const unsigned char*>(p.frames.data) +
             (p.frames.offset(valid ? p.frame_of(k) : 0) + start_ * p.frames.stride_x) * int64_t(sizeof(T));
    const unsigned char* const end =
        segment(int(p.frames.height) - 1, kSegments - 1) + count_ * kPixel;  // of the frame's last segment
    whole_ = lies_in_frames(image_ - 15) && lies_in_frames(end + kBehind - 1);
  }

  // Plans output rows [first, first + count) and copies the scanlines that they read; a barrier must follow.
  AF_DEVICE void stage(int first, int count) const {
    if (thread_index() < kWarp) {
      plan_scanlines(
          p_, box_, valid_, first, count, [&](int slot, int scanline) { return place(slot, scanline); },
          zero_place(), tables_);
    }
    __syncthreads();
    for_each_segment([&](int n, int lane) { stage_segment(n, lane); });
    if (tables_.zeros) stage_zeros();
    copy_async_wait_all();
    if (inside_) return;
    __syncthreads();  // the margins are written over what was copied there
    for_each_segment([&](int n, int lane) { stage_margins(n, lane); });
  }

  AF_DEVICE ScanlinePair row(int i) const { return tables_.rows[i]; }
  AF_DEVICE Slopes slopes(int i) const { return tables_.slopes[i]; }

  AF_DEVICE PixelPair column(int j) const {
    const int width = int(p_.frames.width), columns = int(p_.patches.width);
    const Tap<float, int> tap = sample_tap(box_.cx, box_.w, j, columns, width);
    const int first = clamp_to(tap.first - start_, -2, count_);  // the margin holds two pixels
    const float inside0 = is_inside(p_, tap.first, width), inside1 = is_inside(p_, tap.first + 1, width);
    return {first * kPixel,
            tap.u1,
            tap.u0 * inside0 + tap.u1 * inside1,
            {sample_offset<float>(j, columns), inside1 - inside0}};
  }

  // The two pixels of a column in the scanline at a place, as stored.
  AF_DEVICE void read(int at, const PixelPair& column, float (&left)[kChannels],
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
        const unsigned char* const pixel = segments() + start + column.at;
        left[c] = load_as<float>(*reinterpret_cast<const T*>(pixel));
        right[c] = load_as<float>(*reinterpret_cast<const T*>(pixel + kPixel));
      }
    }
  }

  // The scanline at a place interpolated at a column.
  AF_DEVICE void blend(int at, const PixelPair& column, float (&value)[kChannels]) const {
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
  // Calls f(n, lane) for all segments n: eight lanes share the work on one, 128 bytes at a time.
  template <class F>
  AF_DEVICE void for_each_segment(const F& f) const {
    const int segments = tables_.slots * kSegments;
    for (int n = thread_index() / kLanes; n < segments; n += kThreads / kLanes) f(n, thread_index() % kLanes);
  }

  // Copies a segment, in whole pieces of 16 bytes: at its ends those may bring bytes of the neighbours into
  // the margins.
  AF_DEVICE void stage_segment(int n, int lane) const {
    const int scanline = tables_.scanline_of_slot[n / kSegments];
    const unsigned char* const from = segment(scanline, n % kSegments);
    const int at = segment_at(n, scanline), bytes = count_ * kPixel;
    if (lane == 0) tables_.segment_at[n] = at;
#pragma unroll 1
    for (int begin = 16 * lane - (at & 15); begin < bytes + kBehind; begin += 16 * kLanes) {
      if (whole_ || lies_in_frames(from + begin)) {
        copy_async_16(segments() + at + begin, from + begin);
      } else {
#pragma unroll 1
        for (int b = begin; b < begin + 16; ++b) segments()[at + b] = b >= 0 && b < bytes ? from[b] : 0;
      }
    }
  }

  // Writes the two pixels on either side of a segment, zeros or copies of the edge, and the rest of the words
  // that are read with them.
  AF_DEVICE void stage_margins(int n, int lane) const {
    unsigned char* const first = segments() + tables_.segment_at[n];
    unsigned char* const last = first + (count_ - 1) * kPixel;
    for (int b = lane; b < 2 * kPixel + kBehind; b += kLanes) {
      const bool copies = p_.border && b < 2 * kPixel;
      first[-1 - b] = copies ? first[kPixel - 1 - b % kPixel] : 0;
      last[kPixel + b] = copies ? last[b % kPixel] : 0;
    }
  }

  // True if 16 bytes from here on are of the frames' memory.
  AF_DEVICE bool lies_in_frames(const unsigned char* at) const {
    const unsigned char* const frames = static_cast<const unsigned char*>(p_.frames.data);
    return at >= frames && at + 16 <= frames + layout_.frames_bytes;
  }

  AF_DEVICE void stage_zeros() const {
    const int begin = zero_slot() * kSegments * layout_.pitch, end = begin + kSegments * layout_.pitch;
    for (int n = begin + thread_index() * 16; n < end; n += kThreads * 16) store_16(segments() + n, {});
    if (thread_index() < kSegments) {
      const int n = zero_slot() * kSegments + thread_index();
      tables_.segment_at[n] = n * layout_.pitch + kMargin;
    }
  }

  // Bias of a byte in the low mantissa bits of 2^23: one permutation puts it there, and a subtraction takes
  // the bias away, where a conversion takes a slower unit.
  static constexpr float kByteBias = 8388608.0f;

  AF_DEVICE static float biased(uint32_t word, uint32_t n) {
    return float_of(byte_permute(word, 0x4b000000u, 0x7650u + n));
  }

  // The two pixels of interleaved bytes, each with the bias: six bytes at any place are three words, shifted.
  AF_DEVICE void read_bytes(int at, const PixelPair& column, float (&left)[kChannels],
                            float (&right)[kChannels]) const {
    const uint32_t byte = uint32_t(at + column.at);
    const uint32_t* const words = reinterpret_cast<const uint32_t*>(segments() + (byte & ~3u));
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

  // [slots, kSegments, pitch] bytes, eight lanes write a segment, all threads read.
  AF_DEVICE unsigned char* segments() const { return dynamic_shared(); }

  AF_DEVICE int zero_slot() const { return 2 * layout_.strip; }

  // A scanline of a channel, or of all three, in global memory.
  AF_DEVICE const unsigned char* segment(int scanline, int c) const {
    return image_ + (scanline * layout_.stride_y + c * layout_.stride_c);
  }

  // Bytes of shared memory before segment n, which belongs to a scanline.
  AF_DEVICE int segment_at(int n, int scanline) const {
    return n * layout_.pitch + kMargin +
           int(reinterpret_cast<uintptr_t>(segment(scanline, n % kSegments)) & 15);
  }

  // Place of the scanline in a slot: where it starts, or the number of the first of its planes' segments.
  AF_DEVICE int place(int slot, int scanline) const {
    return kInterleaved ? segment_at(slot, scanline) : slot * kSegments;
  }

  AF_DEVICE int zero_place() const {
    return kInterleaved ? zero_slot() * layout_.pitch + kMargin : zero_slot() * kSegments;
  }

  const CropResize& p_;
  const Box<float> box_;
  const bool valid_;
  const StagedLayout& layout_;
  Tables& tables_;
  const unsigned char* image_;  // the first byte that the box reads of the frame's first scanline
  int start_;                   // pixels of a scanline before those that are staged
  int count_;                   // pixels of a scanline that are staged
  bool inside_;                 // no column reads beyond the frame's sides
  bool whole_;                  // the 16 bytes that have a byte of a segment are of the frames' memory
};

}  // namespace adafocus

// Scanlines of a frame of three channels in shared memory: read once, in 16-byte pieces, whatever the type
// and layout.
//
// A strip is a few output rows of one box. It is worked on in three phases, with a barrier after the first:
//   1. stage         plan (scanline_plan.cuh), and copy the scanlines that the strip reads, byte by byte as
//                    they are, each into a segment (interleaved channels) or three (planes),
//   2. row, column   look up what an output row and an output column read,
//   3. blend, read   take the two pixels of a scanline that a column reads, interpolated or as stored.
//
// A segment has the same offset from a 16-byte boundary as in global memory, so that 16-byte copies fit. In
// the margins on either side lie the two pixels just outside the frame, zeros or copies of the edge, so that
// reading needs no bounds:
//
//   slot 0   | margin  p p | a b c d ... x y z | p p  margin |     p: zeros, or copies of a or of z
//   slot 1   | margin  p p | a b c d ... x y z | p p  margin |
//   ...      |<------------------ pitch -------------------->|
//   last     | zeros, for a scanline outside the frame       |
#pragma once

#include "cuda/scanline_plan.cuh"
#include "cuda/stage_bytes.cuh"

namespace adafocus {

// The scanlines that the strips of one box read, a strip at a time.
template <class T, bool kInterleaved>
class StagedScanlines {
 public:
  static constexpr int kSegments = kInterleaved ? 1 : kChannels;
  static constexpr int kPixel = int(sizeof(T)) * (kInterleaved ? kChannels : 1);  // bytes between pixels
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
    const int64_t width = p.frames.width;
    const Range pixels = pixels_of<BilinearFootprint>(box_.cx, box_.w, p.patches.width, width, p.border);
    start_ = clamp_to<int64_t>(pixels.begin, 0, width - 1);
    count_ = int(clamp_to<int64_t>(pixels.end, start_ + 1, width) - start_);
    image_ = static_cast<const unsigned char*>(p.frames.data) +
             (p.frames.offset(valid ? p.frame_of(k) : 0) + start_ * p.frames.stride_x) * int64_t(sizeof(T));
  }

  // Plans output rows [first, first + count) and copies the scanlines that they read; a barrier must follow.
  AF_DEVICE void stage(int first, int count) const {
    if (thread_index() < kWarp) {
      plan_scanlines(
          p_, box_, valid_, first, count, [&](int slot, int scanline) { return place(slot, scanline); },
          zero_place(), tables_);
    }
    __syncthreads();
    const int lane = thread_index() % kWarp, warp = thread_index() / kWarp;
    for (int n = warp; n < tables_.slots * kSegments; n += kWarps) stage_segment(n, lane);
    if (tables_.zeros) stage_zeros();
    copy_async_wait_all();
  }

  AF_DEVICE ScanlinePair row(int i) const { return tables_.rows[i]; }
  AF_DEVICE Slopes slopes(int i) const { return tables_.slopes[i]; }

  AF_DEVICE PixelPair column(int j) const {
    const int64_t width = p_.frames.width;
    const Tap<float> tap = sample_tap(box_.cx, box_.w, j, p_.patches.width, width);
    const int first = int(clamp_to<int64_t>(tap.first - start_, -2, count_));  // the margin holds two pixels
    const float inside0 = is_inside(p_, tap.first, width), inside1 = is_inside(p_, tap.first + 1, width);
    return {first * kPixel,
            tap.u1,
            tap.u0 * inside0 + tap.u1 * inside1,
            {sample_offset<float>(j, p_.patches.width), inside1 - inside0}};
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
  // Copies segment n, in one warp.
  AF_DEVICE void stage_segment(int n, int lane) const {
    const int64_t scanline = tables_.scanline_of_slot[n / kSegments];
    const unsigned char* const from = segment(scanline, n % kSegments);
    unsigned char* const to = segments() + segment_at(n, scanline);
    if (lane == 0) tables_.segment_at[n] = segment_at(n, scanline);
    stage_bytes(to, from, count_ * kPixel, lane);
    // Two pixels on either side: zero, or copies of the edge.
    if (lane < 2 * kPixel) {
      const int last = (count_ - 1) * kPixel;
      to[lane - 2 * kPixel] = p_.border ? from[lane % kPixel] : 0;
      to[lane + last + kPixel] = p_.border ? from[last + lane % kPixel] : 0;
    }
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

  // [slots, kSegments, pitch] bytes, warps write a segment each, all threads read.
  AF_DEVICE unsigned char* segments() const { return dynamic_shared(); }

  AF_DEVICE int zero_slot() const { return 2 * layout_.strip; }

  // A scanline of a channel, or of all three, in global memory.
  AF_DEVICE const unsigned char* segment(int64_t scanline, int64_t c) const {
    return image_ + (scanline * p_.frames.stride_y + c * p_.frames.stride_c) * int64_t(sizeof(T));
  }

  // Bytes of shared memory before segment n, which belongs to a scanline.
  AF_DEVICE int segment_at(int n, int64_t scanline) const {
    return n * layout_.pitch + kMargin +
           int(reinterpret_cast<uintptr_t>(segment(scanline, n % kSegments)) & 15);
  }

  // Place of the scanline in a slot: where it starts, or the number of the first of its planes' segments.
  AF_DEVICE int place(int slot, int64_t scanline) const {
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
  int64_t start_;               // pixels of a scanline before those that are staged
  int count_;                   // pixels of a scanline that are staged
};

}  // namespace adafocus

// The calls that stage scanlines in shared memory, their layout there, and the choice of their kernel.
#pragma once

#include "cuda/crop.cuh"

namespace adafocus {

constexpr int kChannels = 3;
constexpr int kMaxStrip = 8;  // output rows of a strip: one lane of a warp plans each
constexpr int kMargin = 32;   // bytes on either side of a segment: two pixels, and what is read with them

// Shared memory that a block should stay below, so that an SM holds several.
constexpr int kStagedBytes = 24 * 1024;
// Scanlines are staged in whole: where a patch reads a smaller share of them, the other kernels read less.
constexpr int kMaxBytesPerColumn = 64;

// Sizes in dynamic shared memory, the same on the host and in the kernel: slots of scanlines, then the output
// of a strip if the kernel has one. Each slot is one segment or three.
struct StagedLayout {
  int strip;               // output rows of a strip
  int segments;            // of a scanline: 1 (interleaved channels) or 3 (planes)
  int pitch;               // bytes from segment to segment
  int out_pitch;           // bytes from run to run of the output's strip, 0 where there is no output
  int stride_y, stride_c;  // bytes from scanline to scanline and from channel to channel of a frame
  int64_t frames_bytes;    // from the first byte of the frames to the last one and one

  // Two scanlines of each output row of a strip, and one of zeros.
  AF_HD int slots() const { return 2 * strip + 1; }
  AF_HD int slots_bytes() const { return slots() * segments * pitch; }
  AF_HD int bytes(int out_runs) const { return slots_bytes() + out_runs * out_pitch; }
};

// Bytes from the first element of a batch to the last one and one.
inline int64_t bytes_of(const ImageBatch& images) {
  int64_t last = (images.channels - 1) * images.stride_c + (images.height - 1) * images.stride_y +
                 (images.width - 1) * images.stride_x;
  for (int d = 0; d < images.lead_dims; ++d) last += (images.lead_size[d] - 1) * images.lead_stride[d];
  return (last + 1) * size_of(images.dtype);
}

inline int round_up_16(int64_t bytes) { return int((bytes + 15) / 16 * 16); }

// Runs of memory that a strip of the patches is: one, or one of each plane.
inline int out_runs(const CropResize& p) { return p.patches.stride_c == 1 ? 1 : kChannels; }

// The layout of a call, with the longest strip that fits; a strip of no rows if none does.
inline StagedLayout staged_layout(const CropResize& p, bool with_output) {
  const bool interleaved = p.frames.stride_c == 1;
  const int64_t size = size_of(p.frames.dtype), out_size = with_output ? size_of(p.patches.dtype) : 0;
  const int64_t scanline = p.frames.width * size * (interleaved ? kChannels : 1);
  const int64_t stride_y = p.frames.height > 1 ? p.frames.stride_y : 0;  // else it may be any
  StagedLayout layout{};
  const bool dense = (interleaved ? p.frames.stride_x == kChannels : p.frames.stride_x == 1);
  if (p.frames.count == 0 || p.frames.channels != kChannels || p.antialias || p.double_precision ||
      size == 8 || !dense || !is_small_float(p.patches.dtype) ||
      p.frames.width * size * kChannels > kMaxBytesPerColumn * p.patches.width || p.patches.width > 1024 ||
      p.frames.height > kMost32 || p.patches.height > kMost32 ||
      (p.frames.height * stride_y + kChannels * p.frames.stride_c) * size > INT32_MAX) {
    return layout;
  }
  layout.stride_y = int(stride_y * size);
  layout.stride_c = int(p.frames.stride_c * size);
  layout.frames_bytes = bytes_of(p.frames);
  layout.segments = interleaved ? 1 : kChannels;
  layout.pitch = round_up_16(scanline + 15 + 2 * kMargin);
  const int runs = out_runs(p);
  const auto bytes = [&](int strip) {
    layout.strip = strip;
    const int64_t run = strip * p.patches.width * out_size * (runs == 1 ? kChannels : 1);
    layout.out_pitch = with_output ? round_up_16(run + 15) : 0;
    return layout.bytes(runs);
  };
  int strip = int(min_of<int64_t>(kMaxStrip, p.patches.height));
  while (strip > 1 && bytes(strip) > kStagedBytes) strip /= 2;
  if (bytes(strip) > int(kMaxShared - kStaticShared)) layout.strip = 0;
  return layout;
}

// Dynamic shared memory of a launch.
inline int staged_bytes(const CropResize& p, const StagedLayout& layout) {
  return layout.bytes(layout.out_pitch == 0 ? 0 : out_runs(p));
}

// Returns f(TypeTag<T>{}, std::bool_constant<interleaved>{}) with the element type of a staged call's frames,
// and whether their channels are interleaved.
template <class F>
const char* visit_staged_frames(const CropResize& p, const F& f) {
  return visit_bool(p.frames.stride_c == 1, [&](auto interleaved) {
    return visit_small(p.frames.dtype, [&](auto tag) { return f(tag, interleaved); });
  });
}

// Calls f(j, first, step) for the columns of a strip's output: this thread takes rows first, first + step,
// ... of column j, so that what belongs to a column stays in registers.
template <class F>
AF_DEVICE void for_each_column(int columns, const F& f) {
  const int across = min_of(columns, kThreads), down = kThreads / across;
  const int first = thread_index() / across;
  if (first >= down) return;
  for (int j = thread_index() % across; j < columns; j += across) f(j, first, down);
}

}  // namespace adafocus

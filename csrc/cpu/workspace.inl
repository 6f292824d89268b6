// A chunk of channels and the buffers to process it, for the CPU kernels over boxes.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafocus/crop_resize.h"
#include "cpu/isa.h"
#include "cpu/lanes.inl"
#include "cpu/scanline_io.inl"
#include "cpu/scratch.h"

namespace adafocus {
namespace AF_ISA {
namespace {

// Channels of a chunk, unless all fit the lanes of one short vector: the scanline buffers of a chunk should
// fit the first-level cache.
constexpr int64_t kInterleavedChunk = 512, kPlanarChunk = 64;

AF_HD int64_t chunk_size_of(const ImageBatch& images) {
  if (images.channels <= kLanes) return images.channels;
  return min_of(images.channels, images.stride_c == 1 ? kInterleavedChunk : kPlanarChunk);
}

// Fills [pixels][pixel_stride] with values[c], or with `otherwise` where there are no values.
template <class C>
void fill_pattern(C* out, const C* values, C otherwise, int64_t pixels, int64_t pixel_stride,
                  int64_t channels) {
  for (int64_t c = 0; c < pixel_stride; ++c) out[c] = values && c < channels ? values[c] : otherwise;
  for (int64_t filled = 1; filled < pixels; filled *= 2) {
    memcpy(out + filled * pixel_stride, out, min_of(filled, pixels - filled) * pixel_stride * sizeof(C));
  }
}

// The chunk of channels that a kernel is at, its affine, and a scanline of a patch. An affine pattern serves
// scanlines of frames, with two pixels outside on each side, and scanlines of patches.
template <class C>
struct Workspace {
  using Compute = C;

  Scratch& scratch;
  const CropResize& p;
  const int64_t chunk_size;      // channels that are processed together
  int64_t first = -1, channels;  // the chunk is [first, first + channels), channels <= chunk_size
  C *scale, *shift;              // [pattern_pixels()][pixel_stride] affine of a scanline
  C *ones, *zeros;               // [pattern_pixels()][pixel_stride] affine that changes nothing
  C* patch_scanline;             // [P_w][pixel_stride]

  Workspace(Scratch& memory, const CropResize& params, int64_t channels_together)
      : scratch(memory), p(params), chunk_size(channels_together) {
    const int64_t pattern = pattern_pixels() * pixel_stride() + kLanes;
    scale = scratch.take<C>(pattern);
    shift = scratch.take<C>(pattern);
    ones = scratch.take<C>(pattern);
    zeros = scratch.take<C>(pattern);
    patch_scanline = scratch.take<C>(p.patches.width * pixel_stride() + kLanes);
    fill_pattern<C>(ones, nullptr, C(1), pattern_pixels(), pixel_stride(), pixel_stride());
    fill_pattern<C>(zeros, nullptr, C(0), pattern_pixels(), pixel_stride(), pixel_stride());
  }

  // Numbers from a pixel of a scanline buffer to the next: a place for each channel of a whole chunk.
  AF_HD int64_t pixel_stride() const { return chunk_size; }

  void start_chunk(int64_t first_channel) {
    if (first == first_channel) return;
    first = first_channel;
    channels = min_of(chunk_size, p.frames.channels - first);
    const C* affine = static_cast<const C*>(p.affine);
    fill_pattern<C>(scale, affine ? affine + first : nullptr, C(1), pattern_pixels(), pixel_stride(),
                    channels);
    fill_pattern<C>(shift, affine ? affine + p.frames.channels + first : nullptr, C(0), pattern_pixels(),
                    pixel_stride(), channels);
    memset(patch_scanline, 0, (p.patches.width * pixel_stride() + kLanes) * sizeof(C));
  }

  // Reads scanline i of the gradient of patch k, multiplied by a pattern, into patch_scanline.
  void load_gradient(int64_t k, int64_t i, const C* pattern) {
    const ImageBatch& g = p.patches;
    const void* scanline = element(g.data, g.dtype, g.offset(k) + first * g.stride_c + i * g.stride_y);
    load_scanlines<C>(
        {scanline, nullptr, C(1), C(0)},
        {g.dtype, g.stride_c, g.stride_x, channels, pixel_stride(), g.width, nullptr, pattern, zeros},
        patch_scanline);
  }

 private:
  int64_t pattern_pixels() const { return max_of(p.frames.width + 4, p.patches.width); }
};

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

// The gradient of the frames of the ops over boxes on the CPU: the loops over chunks of channels and frames,
// which are the same for crop_resize and crop_mean.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafocus/crop_resize.h"
#include "cpu/isa.h"
#include "cpu/scanline_io.inl"
#include "cpu/workspace.inl"

namespace adafocus {
namespace AF_ISA {
namespace {

// Smaller chunks than the forward's: a whole frame of a chunk is kept.
AF_HD int64_t adjoint_chunk_size_of(const ImageBatch& frames) {
  return min_of(frames.channels, kPlanarChunk);
}

AF_HD int64_t adjoint_chunks(const ImageBatch& frames) {
  const int64_t chunk_size = adjoint_chunk_size_of(frames);
  return (frames.channels + chunk_size - 1) / chunk_size;
}

// Tasks [begin, end), each of a frame and a chunk of channels; consecutive ones share the chunk.
// add(k, image) adds the gradient of box k, in the workspace's chunk, to that of its frame,
// image [H][W][pixel_stride].
template <class Work, class Add>
void bwd_frames_range(Work& work, BoxesByFrame boxes, int64_t begin, int64_t end, const Add& add) {
  using C = typename Work::Compute;
  const ImageBatch& frames = work.p.frames;
  const int64_t pixel_stride = work.pixel_stride(), pixels = frames.height * frames.width;
  C* const image = work.scratch.template take<C>(pixels * pixel_stride);  // [H][W][pixel_stride]
  for (int64_t task = begin; task < end; ++task) {
    const int64_t n = task % frames.count;
    work.start_chunk(task / frames.count * work.chunk_size);
    memset(image, 0, pixels * pixel_stride * sizeof(C));
    for (int64_t b = boxes.start[n]; b < boxes.start[n + 1]; ++b) add(boxes.box[b], image);
    const int64_t offset = frames.offset(n) + work.first * frames.stride_c;
    for (int64_t r = 0; r < frames.height; ++r) {
      void* to = element(frames.data, frames.dtype, offset + r * frames.stride_y);
      store_scanline(image + r * frames.width * pixel_stride, pixel_stride, work.channels, frames.width,
                     frames.dtype, to, frames.stride_c, frames.stride_x);
    }
  }
}

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

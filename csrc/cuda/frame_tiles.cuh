// The tiles of the gradient of frames (crop_resize_bwd_frames_tiled.cu): their sizes, their sums in shared
// memory, and how these are written.
#pragma once

#include "cuda/crop.cuh"

namespace adafocus {

// Tiles that a block works on one after the other.
constexpr int kTiles = 16;
// Frames that keep all of the GPU busy; with fewer of them every tile has a block of its own.
constexpr int kManyFrames = 256;
// Shared memory that a block should stay below, so that an SM holds several.
constexpr int64_t kTileBytes = 32 * 1024;

// Sizes of a call's tiles, the same on the host and in the kernel. A frame is one plane if its channels are
// interleaved, else one for each of them.
struct TileLayout {
  bool interleaved;
  int channels, height, width;       // of a frame
  int tile_planes, tile_rows;        // of a tile; the last ones have fewer
  int tile_width;                    // the width, or less of it with one row
  int pitch;                         // sums from plane to plane
  int across, down;                  // tiles of a frame: of other planes, and below each other
  int tiles;                         // of a block
  int stride_c, stride_y, stride_x;  // elements in a patch, 0 where there is no other

  AF_HD int planes() const { return interleaved ? 1 : channels; }
  AF_HD int pixel() const { return interleaved ? channels : 1; }  // elements from x to x + 1
  AF_HD int scanline() const { return width * pixel(); }          // elements
  AF_HD int plane() const { return height * scanline(); }
  AF_HD int tiles_of_width() const { return divide_up(width, tile_width); }
  // Planes that are whole in a tile are one run of memory.
  AF_HD bool merged() const { return tile_rows == height && tile_width == width; }
  AF_HD int blocks_down() const { return divide_up(down, tiles); }
  AF_HD int sums() const { return (tile_planes * pitch + 2 * kGroup - 1) / kGroup * kGroup; }
};

// ---------------------------------------------------------------------------------------------------
// On the host: how a call is cut

// Channels of a column: a divisor of the channels of a frame. Three are all.
inline int channels_of_column(const CropResize& p) {
  return p.frames.channels % 4 == 0 ? 4 : p.frames.channels == 3 ? 3 : 1;
}

// True if those of a column lie together, four elements from a boundary of four on.
inline bool channels_lie_together(const CropResize& p) {
  const uintptr_t before = reinterpret_cast<uintptr_t>(p.frames.data) / size_of(p.frames.dtype);
  return p.frames.stride_c == 1 && channels_of_column(p) == kGroup && before % kGroup == 0;
}

// The layout of a call, or one of no tiles if they can't be made.
inline TileLayout tile_layout(const CropResize& p) {
  const ImageBatch& frames = p.frames;
  const int64_t channels = frames.channels, height = frames.height, width = frames.width;
  const int64_t elements = channels * height * width;
  const auto stride = [](int64_t size, int64_t step) { return size > 1 ? step : 0; };
  const int64_t stride_c = stride(channels, p.patches.stride_c);
  const int64_t stride_y = stride(p.patches.height, p.patches.stride_y);
  const int64_t stride_x = stride(p.patches.width, p.patches.stride_x);
  const int64_t patch = channels * stride_c + p.patches.height * stride_y + p.patches.width * stride_x;
  TileLayout layout{};
  if (p.antialias || p.double_precision || !is_small_float(frames.dtype) ||
      !is_small_float(p.patches.dtype) || !is_dense(frames) || elements == 0 || elements > kMost32 ||
      p.patches.height > kMost32 || p.patches.width > kMost32 || patch > INT32_MAX) {
    return layout;
  }
  layout.stride_c = int(stride_c);
  layout.stride_y = int(stride_y);
  layout.stride_x = int(stride_x);
  layout.interleaved = frames.stride_c == 1;
  layout.channels = int(channels);
  layout.height = int(height);
  layout.width = int(width);
  const int64_t count = channels_of_column(p),
                planes = layout.interleaved ? 1 : count;  // the fewest of a tile
  const int64_t row_bytes = planes * layout.scanline() * int64_t(sizeof(float));
  layout.tile_width = int(divide_up(width, min_of(divide_up(row_bytes, kTileBytes), width)));
  const int64_t down = divide_up(height, clamp_to<int64_t>(kTileBytes / row_bytes, 1, height));
  layout.tile_rows = int(divide_up(height, down));
  layout.down = int(divide_up(height, layout.tile_rows));
  // Planes that are whole may be more, until each thread has a column.
  const int64_t most = min_of(kTileBytes / (row_bytes * height), divide_up<int64_t>(kThreads, width));
  layout.tile_planes = int(planes);
  if (layout.merged() && !layout.interleaved) {
    layout.tile_planes = int(planes * clamp_to<int64_t>(most, 1, channels / planes));
  }
  const int64_t part = int64_t(layout.tile_rows) * layout.tile_width * layout.pixel();
  layout.pitch = int(layout.merged() ? part : divide_up(part, kGroup) * kGroup + kGroup);
  layout.across = int(divide_up(layout.planes(), layout.tile_planes));
  const int64_t blocks = p.frames.count * layout.across * layout.tiles_of_width() >= kManyFrames
                             ? divide_up(layout.down, kTiles)
                             : layout.down;
  layout.tiles = int(divide_up(layout.down, blocks));
  if (layout.sums() * sizeof(float) > kMaxShared - kStaticShared ||
      int64_t(layout.across) * layout.blocks_down() > kMaxGridY || layout.tiles_of_width() > kMaxGridY) {
    return {};
  }
  return layout;
}

// ---------------------------------------------------------------------------------------------------
// In the kernel

// Writes a run of sums to memory, and clears them. Elements that are four together in memory are so in shared
// memory, too; the threads of the block share the work.
template <class T>
AF_DEVICE void write_run(T* to, float* sums, int count) {
  const int head = min_of(int(-(reinterpret_cast<uintptr_t>(to) / sizeof(T)) % kGroup), count);
  const int tail = head + (count - head) / kGroup * kGroup, thread = thread_index();
  const auto write_one = [&](int n) {
    to[n] = Store<T>::from(sums[n]);
    sums[n] = 0;
  };
  if (thread < head) write_one(thread);
#pragma unroll 1
  for (int n = head + kGroup * thread; n < tail; n += kGroup * kThreads) {
    const Bytes16 four = load_16(sums + n);
    store_16(sums + n, {});
    PackedGroup<T> packed;
#pragma unroll
    for (int e = 0; e < kGroup; ++e) packed.value[e] = Store<T>::from(float_of(four.word[e]));
    *reinterpret_cast<PackedGroup<T>*>(to + n) = packed;
  }
  if (tail + thread < count) write_one(tail + thread);
}

// Pixels [first_x, first_x + width) of scanlines [first_row, first_row + rows) of planes [first_plane,
// first_plane + planes) of a frame.
template <int kCount>
struct Tile {
  const TileLayout& layout;
  int first_plane, planes, first_row, rows, first_x, width;
  int groups;      // of channels, and columns of a pixel; three channels are one group
  uint32_t start;  // the first element's number in memory, modulo four

  AF_DEVICE Tile(const CropResize& p, const TileLayout& layout, int64_t frame, int across, int down)
      : layout(layout),
        first_plane(across * layout.tile_planes),
        planes(min_of(layout.tile_planes, layout.planes() - first_plane)),
        first_row(down * layout.tile_rows),
        rows(min_of(layout.tile_rows, layout.height - first_row)),
        first_x(int(blockIdx.z) * layout.tile_width),
        width(min_of(layout.tile_width, layout.width - first_x)),
        groups(kCount == 3 ? 1 : (layout.interleaved ? layout.channels : planes) / kCount) {
    start = uint32_t(reinterpret_cast<uintptr_t>(p.frames.data) & 15) / uint32_t(size_of(p.frames.dtype)) +
            uint32_t(frame * p.frames.lead_stride[0]) + uint32_t(offset(0));
  }

  // Elements of the frame before the tile's part of a plane.
  AF_DEVICE int offset(int plane) const {
    return (first_plane + plane) * layout.plane() + first_row * layout.scanline() + first_x * layout.pixel();
  }

  // [sums], the owners of columns add, then all threads write and clear.
  AF_DEVICE static float* sums() { return reinterpret_cast<float*>(dynamic_shared()); }

  // The sums of that part.
  AF_DEVICE float* sums(int plane) const {
    const uint32_t run = layout.merged() ? start : start + uint32_t(plane * layout.plane());
    return sums() + plane * layout.pitch + run % kGroup;
  }

  // The sum of a channel of the tile, at x in its first scanline.
  AF_DEVICE float* sums(int channel, int x) const {
    return layout.interleaved ? sums(0) + (x - first_x) * layout.channels + channel
                              : sums(channel) + (x - first_x);
  }

  // Sums from a scanline to the next.
  AF_DEVICE int scanline() const { return width * layout.pixel(); }

  // Writes the sums to the frame.
  template <class T>
  AF_DEVICE void write(T* frame) const {
    const int runs = layout.merged() ? 1 : planes, run = rows * scanline() * (planes / runs);
#pragma unroll 1
    for (int n = 0; n < runs; ++n) write_run(frame + offset(n), sums(n), run);
  }
};

}  // namespace adafocus

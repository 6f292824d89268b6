// The gradient of crop_resize by the frames, for frames that are dense in memory.
//
// A tile is a band of scanlines of a frame: with all channels if they are interleaved, else of a few planes.
// A block sums it in shared memory, over all boxes, and writes it once, four elements at a time. A thread
// owns a column of the tile, which is one x, and kCount channels, in every scanline. So nobody else touches
// its sums, and what it has found for a box, the outputs that read its x, serves all tiles of the block,
// which lie below each other.
//
// A row of a patch is summed first where it reads x; then the sum goes to the one or two scanlines that the
// row reads. Three rows of a patch, a column whose x two outputs read, and its sums in a tile of 4 scanlines:
//
//   outputs    0  1  2  3
//   row 0      .  a  b  .     v0 = w a + w' b         scanline y        u0 v0
//   row 1      .  c  d  .     v1 = w c + w' d         scanline y + 1    u1 v0 + u0' v1
//   row 2      .  e  f  .     v2 = w e + w' f         scanline y + 2            u1' v1
//                                                     scanline y + 3    u0" v2
//
// A warp has 32 columns. Which rows a tile reads, and with what weights, its lanes find out for 32 rows at a
// time. They go through them in the order of position, so that the next tile goes on where one ends.
#include "cuda/crop_resize_kernels.h"
#include "cuda/frame_tiles.cuh"

namespace adafocus {
namespace {

// Rows of a patch that a thread has on their way from memory at a time: as many as its registers hold.
template <int kCount>
constexpr int kRowsAtOnce = kCount < 4 ? 2 : 1;
// Rows by which a thread goes back at a time where a tile begins.
constexpr int kRowsBack = 4;

using Footprint = BilinearFootprint32<float>;

// Row m of the patches, in the order of position.
AF_DEVICE int row_in_order(const CropResize& p, const Box<float>& box, int m) {
  return output_in_order(m, box.h, int(p.patches.height));
}

AF_DEVICE Footprint footprint_of_row(const CropResize& p, const Box<float>& box, int m) {
  return {box.cy, box.h, row_in_order(p, box, m), int(p.patches.height), int(p.frames.height), p.border};
}

// The columns of a warp, one of each lane, and what a box gives to them. The channels of a column lie
// together, as four of interleaved ones do, which are then moved by one instruction; or it has every
// groups-th one, so that those of neighbouring lanes lie side by side.
template <class G, int kCount, bool kTogether>
class Columns {
 public:
  using Tile = adafocus::Tile<kCount>;
  static_assert(!kTogether || kCount == kGroup, "channels are moved in groups");
  static constexpr int kRows = kRowsAtOnce<kCount>;

  AF_DEVICE bool are_of(int64_t k) const { return k == k_; }

  // Begins with box k, at the first row that reads scanline y or lies past it. The lane's column is number n,
  // which may not exist.
  AF_DEVICE void start(const CropResize& p, const Tile& tile, int64_t k, const Box<float>& box, int n,
                       int y) {
    const int width = tile.layout.width;
    k_ = int(k);
    const int rows = int(p.patches.height), outputs = int(p.patches.width);
    next_ = first_reader<BilinearFootprint32>(y, box.cy, box.h, rows, tile.layout.height, p.border);
    count_ = 0;
    if (n >= tile.width * tile.groups) return;
    x_ = tile.first_x + (tile.layout.interleaved ? n / tile.groups : n % tile.width);
    group_ = kCount == 3 ? 0 : tile.layout.interleaved ? n % tile.groups : n / tile.width;
    const RangeOf<int> readers = readers_of<BilinearFootprint32>(x_, box.cx, box.w, outputs, width, p.border);
    begin_ = readers.begin;
    count_ = readers.end - readers.begin;
    weight0_ = count_ > 0 ? weight(p, 0) : 0.0f;
    weight1_ = count_ > 1 ? weight(p, 1) : 0.0f;
    const int channel = tile.first_plane + channel_of(tile, 0);
    from_ = typed<const G>(p.patches.data) + p.patch_offset(k) + channel * p.patches.stride_c +
            begin_ * p.patches.stride_x;
  }

  // Goes back to where rows may read scanline y.
  AF_DEVICE void step_back(const CropResize& p, const Box<float>& box, int y) {
    while (next_ > 0 && footprint_of_row(p, box, next_ - 1).end > y) next_ = max_of(next_ - kRowsBack, 0);
  }

  // Adds what the rows give to scanlines [first, last) of the tile, numbered in the tile.
  AF_DEVICE void add(const CropResize& p, const Tile& tile, const Box<float>& box, int first, int last) {
    const int rows = int(p.patches.height), lane = thread_index() % kWarp, scanline = tile.scanline();
    const bool reads = count_ > 0;
    if (__ballot_sync(kAllLanes, reads) == 0) return;
    float* sums[kCount];
#pragma unroll
    for (int c = 0; c < kCount; ++c) sums[c] = tile.sums(channel_of(tile, c), x_);
    for (int found = kWarp; found == kWarp && next_ < rows; next_ += found) {
      // Each lane looks at one of the next rows; the tile reads those from the first that are neither before
      // it nor past it.
      const int m = next_ + lane;
      const Footprint y = footprint_of_row(p, box, min_of(m, rows - 1));
      const unsigned before = __ballot_sync(kAllLanes, y.end <= tile.first_row + first);
      const unsigned past = __ballot_sync(kAllLanes, m >= rows || y.begin >= tile.first_row + last);
      const int scanline0 = y.neighbours().first - tile.first_row;
      const int scanline1 = y.neighbours().second - tile.first_row;
      const float weight1 = y.neighbours().u1;
      found = past == 0 ? kWarp : __ffs(past) - 1;
      for (int i = __popc(before); i < found; i += kRows) {
        float in_row[kRows][kCount];
        if (reads) read(p, tile, box, next_ + i, in_row);
#pragma unroll
        for (int q = 0; q < kRows; ++q) {
          if (i + q >= found) break;
          const int to0 = __shfl_sync(kAllLanes, scanline0, i + q);
          const int to1 = __shfl_sync(kAllLanes, scanline1, i + q);
          const float u1 = __shfl_sync(kAllLanes, weight1, i + q);
          if (!reads) continue;
          if (to0 >= first && to0 < last) add_to(sums, to0 * scanline, 1.0f - u1, in_row[q]);
          if (to1 >= first && to1 < last) add_to(sums, to1 * scanline, u1, in_row[q]);
        }
      }
    }
  }

 private:
  // The weight of x for the b-th output that reads it. It is asked for so seldom that the box needs no
  // registers.
  AF_DEVICE float weight(const CropResize& p, int b) const {
    const Box<float> box = p.box<float>(k_);
    const Footprint x(box.cx, box.w, begin_ + b, int(p.patches.width), int(p.frames.width), p.border);
    return x.weight(x_).value;
  }

  // Sums rows m, m + 1, ... of the patch's gradient where they read x; beyond the last row, the last again.
  AF_DEVICE void read(const CropResize& p, const Tile& tile, const Box<float>& box, int m,
                      float (&in_row)[kRows][kCount]) const {
    const int stride_c = (kTogether ? 1 : tile.groups) * tile.layout.stride_c;
    const int stride_x = tile.layout.stride_x;
    int at[kRows];
#pragma unroll
    for (int q = 0; q < kRows; ++q) {
      at[q] = row_in_order(p, box, min_of(m + q, int(p.patches.height) - 1)) * tile.layout.stride_y;
      float value0[kCount], value1[kCount] = {};
      load(from_ + at[q], stride_c, value0);
      if (count_ > 1) load(from_ + at[q] + stride_x, stride_c, value1);
#pragma unroll
      for (int c = 0; c < kCount; ++c) in_row[q][c] = weight0_ * value0[c] + weight1_ * value1[c];
    }
#pragma unroll 1
    for (int b = 2; b < count_; ++b) {  // only enlarged boxes have more than two
      const float w = weight(p, b);
#pragma unroll
      for (int q = 0; q < kRows; ++q) {
        float value[kCount];
        load(from_ + at[q] + b * stride_x, stride_c, value);
#pragma unroll
        for (int c = 0; c < kCount; ++c) in_row[q][c] += w * value[c];
      }
    }
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      // From memory each time, since registers are scarcer.
      const float scale = scale_of<float>(p, tile.first_plane + channel_of(tile, c));
#pragma unroll
      for (int q = 0; q < kRows; ++q) in_row[q][c] *= scale;
    }
  }

  // The c-th channel of the column in the tile.
  AF_DEVICE int channel_of(const Tile& tile, int c) const {
    return kCount == 3 ? c : kTogether ? group_ * kCount + c : group_ + c * tile.groups;
  }

  AF_DEVICE static void load(const G* from, int stride_c, float (&values)[kCount]) {
    if constexpr (kTogether) {
      const ChannelGroup<float> group = load_group<float>(from, stride_c, kCount);
#pragma unroll
      for (int c = 0; c < kCount; ++c) values[c] = group[c];
    } else {
#pragma unroll
      for (int c = 0; c < kCount; ++c) values[c] = load_as<float>(from[c * stride_c]);
    }
  }

  AF_DEVICE static void add_to(float* const (&sums)[kCount], int at, float weight,
                               const float (&values)[kCount]) {
    if constexpr (kTogether) {
      ChannelGroup<float>& to = *reinterpret_cast<ChannelGroup<float>*>(sums[0] + at);
      ChannelGroup<float> sum = to;
#pragma unroll
      for (int c = 0; c < kCount; ++c) sum[c] += weight * values[c];
      to = sum;
    } else {
      float sum[kCount];
#pragma unroll
      for (int c = 0; c < kCount; ++c) sum[c] = sums[c][at];
#pragma unroll
      for (int c = 0; c < kCount; ++c) sums[c][at] = sum[c] + weight * values[c];
    }
  }

  int k_ = -1;
  int next_;                   // row, in the order of position
  int x_ = 0, group_ = 0;      // of the lane's column
  int begin_ = 0, count_ = 0;  // outputs that read x
  float weight0_, weight1_;    // of the first two
  const G* from_;              // the first channel's gradient, in row 0, at the first output
};

// Calls f(n, part, parts) in whole warps, whose lanes have a column n each: this thread takes one of so many
// parts of its scanlines. The last warp's columns may not exist.
template <class F>
AF_DEVICE void for_each_warp_column(int columns, const F& f) {
  const int across = min_of(divide_up(columns, kWarp), kWarps), parts = kWarps / across;
  const int warp = thread_index() / kWarp, lane = thread_index() % kWarp;
  if (warp >= parts * across) return;
  for (int n = warp % across * kWarp; n < columns; n += across * kWarp) f(n + lane, warp / across, parts);
}

// Grid: (frame, its planes and tiles from top to bottom, parts of its width).
template <class G, int kCount, bool kTogether>
__launch_bounds__(kThreads, kCount < 4 ? 3 : 2) AF_KERNEL
    crop_resize_bwd_frames_tiled_kernel(const CropResize p, const TileLayout layout) {
  using Tile = Tile<kCount>;
  const int64_t frame = blockIdx.x;
  const int blocks_down = layout.blocks_down(), across = int(blockIdx.y) / blocks_down;
  const int begin = int(blockIdx.y) % blocks_down * layout.tiles;
  const int end = min_of(begin + layout.tiles, layout.down);
  for (int n = 4 * thread_index(); n < layout.sums(); n += 4 * kThreads) store_16(Tile::sums() + n, {});
  __syncthreads();
  Columns<G, kCount, kTogether> own;
  for (int down = begin; down < end; ++down) {
    const Tile tile(p, layout, frame, across, down);
    const int columns = tile.width * tile.groups;
    for_each_box<float>(p, frame, [&](int64_t k) {
      const Box<float> box = p.box<float>(k);
      const RangeOf<int> read =
          pixels_of<BilinearFootprint32>(box.cy, box.h, int(p.patches.height), layout.height, p.border);
      if (read.end <= tile.first_row || read.begin >= tile.first_row + tile.rows) return;
      for_each_warp_column(columns, [&](int n, int part, int parts) {
        const int share = divide_up(tile.rows, parts), first = part * share;
        const int last = min_of(first + share, tile.rows), y = tile.first_row + first;
        if (own.are_of(k) && columns <= kThreads && parts == 1) {
          own.step_back(p, box, y);
        } else {
          own.start(p, tile, k, box, n, y);
        }
        own.add(p, tile, box, first, last);
      });
    });
    __syncthreads();
    visit_small_float(p.frames.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      tile.write(typed<T>(p.frames.data) + frame * p.frames.lead_stride[0]);
    });
    __syncthreads();  // the sums are cleared before the next tile's are added
  }
}

}  // namespace

bool can_tile_bwd_frames(const CropResize& p) { return tile_layout(p).tiles > 0; }

const char* crop_resize_bwd_frames_tiled(const CropResize& p, void* stream) {
  const TileLayout layout = tile_layout(p);
  const dim3 grid(unsigned(p.frames.count), unsigned(layout.across * layout.blocks_down()),
                  unsigned(layout.tiles_of_width()));
  return visit_small_float(p.patches.dtype, [&](auto tag) {
    using G = typename decltype(tag)::type;
    const auto launched = [&](auto kernel) {
      return launch(kernel, grid, dim3(kThreads), layout.sums() * sizeof(float), stream, p, layout);
    };
    if (channels_lie_together(p)) return launched(crop_resize_bwd_frames_tiled_kernel<G, kGroup, true>);
    return visit_int<1, 3, 4>(channels_of_column(p), [&](auto count) {
      return launched(crop_resize_bwd_frames_tiled_kernel<G, count(), false>);
    });
  });
}

}  // namespace adafocus

// The gradient of crop_resize by the frames, for frames that are dense in memory.
//
// A tile is a run of kTile elements of a frame in the order of memory: a block sums it in shared memory, over
// all boxes, and writes it once. Its pieces are the 16 bytes that one instruction writes; a thread owns every
// kThreads-th of them. Tiles start on 16-byte boundaries, so the first may begin before the frame. Here a
// piece has 4 elements, a tile has 4 pieces, and a frame has planes of 3 scanlines of 5 pixels:
//
//   pieces of a tile     | 0: a b c d | 1: e f g h | 2: i j k l | 3: m n o p |       a lies at (y 1, x 3)
//
//               x  0  1  2  3  4
//   plane 0, y 0   .  .  .  .  .         A run is what a piece has of one scanline: piece 0 is the runs a b
//            y 1   .  .  .  a  b         and c d. Its outputs lie in the same rows of a patch.
//            y 2   c  d  e  f  g         A run is made of pixels: one element each, or where channels are
//   plane 1, y 0   h  i  j  k  l         interleaved, as many as the piece has channels of the pixel.
//            y 1   m  n  o  p  .
//
// Two tables say which outputs read a scanline, and which a pixel of it. They begin with the tile's first
// element and wrap around the frame, so that a tile that runs over its edge has each coordinate once:
//
//   rows    entry  0  1  2               columns    entry  0  1  2  3  4
//               y  1  2  0                              x  3  4  0  1  2
//
// For every box that reads the frame, in the order of the boxes, with a barrier after each step:
//   1. start   each entry of the tables gets the ends that the first output alone would give it,
//   2. mark    the other outputs mark the entries whose readers begin or end with them,
//   3. weigh   the ends become readers with weights,
//   4. gather  each element adds the gradients of the outputs that read it, run by run and pixel by pixel.
#include "cuda/crop.cuh"
#include "cuda/crop_resize_kernels.h"

namespace adafocus {
namespace {

constexpr int kTile = 4096;               // elements of a tile
constexpr int kOwned = kTile / kThreads;  // elements of a thread
constexpr int kTileBytes = kTile * sizeof(float);

// Sizes of a call's tiles, the same on the host and in the kernel.
struct TileLayout {
  int elements;       // of a frame
  int rows, columns;  // entries of the two tables
};

// ---------------------------------------------------------------------------------------------------
// The order of a frame's elements in memory

// Coordinates of an element of a frame.
struct Place {
  int c, y, x;
};

// Order of the elements of a dense frame in memory: (y, x, c) with interleaved channels, else (c, y, x).
struct DenseOrder {
  unsigned channels, height, width;
  bool interleaved;

  AF_DEVICE Place at(unsigned element) const {
    const unsigned inner = interleaved ? channels : width, outer = element / inner;
    const unsigned in_inner = element - outer * inner, middle = interleaved ? width : height;
    const unsigned in_outer = outer / middle, in_middle = outer - in_outer * middle;
    return interleaved ? Place{int(in_inner), int(in_outer), int(in_middle)}
                       : Place{int(in_outer), int(in_middle), int(in_inner)};
  }

  // Calls f(place, begin, end) for the runs of elements [first, last), of which the first lies at a place.
  template <class F>
  AF_DEVICE void for_each_run(Place place, int first, int last, const F& f) const {
    for (int begin = first, end; begin < last; begin = end, next_scanline(place)) {
      end = min_of(last, begin + left_in_scanline(place));
      f(place, begin, end);
    }
  }

  // Calls f(place, begin, end) for the pixels of a run [first, last), of which the first element lies at a
  // place.
  template <class F>
  AF_DEVICE void for_each_pixel(Place place, int first, int last, const F& f) const {
    for (int begin = first, end; begin < last; begin = end, next_pixel(place)) {
      end = min_of(last, begin + (interleaved ? int(channels) - place.c : 1));
      f(place, begin, end);
    }
  }

 private:
  // Elements from a place on that lie in its scanline (of its plane, if channels are planes).
  AF_DEVICE int left_in_scanline(const Place& place) const {
    return interleaved ? int((width - place.x) * channels) - place.c : int(width) - place.x;
  }

  AF_DEVICE void next_pixel(Place& place) const {
    if (interleaved) place.c = 0;
    ++place.x;
  }

  AF_DEVICE void next_scanline(Place& place) const {
    place.x = 0;
    if (interleaved) place.c = 0;
    if (++place.y < int(height)) return;
    place.y = 0;
    ++place.c;
  }
};

// ---------------------------------------------------------------------------------------------------
// The outputs that read a scanline, or a pixel of it

// Outputs [begin, end) in the order of position that read one pixel of an axis.
struct ReaderEnds {
  int begin, end;
};

// Outputs that read one pixel of an axis, and the weights of the first two: there are seldom more.
struct alignas(16) Readers {
  int begin, count;
  float weight0, weight1;
};

// Entry of a table: the ends until they are weighed, then the readers.
union TableEntry {
  ReaderEnds ends;
  Readers readers;
};

// Readers that a box has of the pixels of an axis that a tile holds: `entries` from `origin` on, around the
// end of the axis. Barriers must follow each of start, mark and weigh.
class ReaderTable {
 public:
  AF_DEVICE ReaderTable(TableEntry* table, int entries, int origin, int size, bool border)
      : table_(table), entries_(entries), origin_(origin), size_(size), border_(border) {}

  AF_DEVICE Readers operator[](int r) const { return table_[index(r)].readers; }

  // Begins with a box: readers begin, and end, with output 0 or beyond the last, as that output alone would
  // have it.
  AF_DEVICE void start(float centre, float extent, int positions) {
    centre_ = centre;
    extent_ = extent;
    positions_ = positions;
    const BilinearFootprint<float> first = footprint(0);
    for (int n = thread_index(); n < entries_; n += kThreads) {
      const int r = pixel(n);
      table_[n].ends.begin = r < first.end ? 0 : positions_;
      table_[n].ends.end = r < first.begin ? 0 : positions_;
    }
  }

  // Positions are monotone in the output. So the readers of a pixel begin with the first output whose
  // footprint ends behind it, and end with the first one whose footprint begins behind it; each output knows
  // the pixels for which it is that first one from its own footprint and the one before. No pixel searches.
  AF_DEVICE void mark() const {
    for (int m = 1 + thread_index(); m < positions_; m += kThreads) {
      const BilinearFootprint<float> before = footprint(m - 1);
      const BilinearFootprint<float> here = footprint(m);
      for (int r = int(max_of<int64_t>(before.end, 0)); r < here.end; ++r) {
        if (index(r) < entries_) table_[index(r)].ends.begin = m;
      }
      for (int r = int(before.begin); r < min_of<int64_t>(here.begin, size_); ++r) {
        if (index(r) < entries_) table_[index(r)].ends.end = m;
      }
    }
  }

  AF_DEVICE void weigh() const {
    for (int n = thread_index(); n < entries_; n += kThreads) {
      const ReaderEnds ends = table_[n].ends;
      const int r = pixel(n);
      Readers readers;
      readers.begin = extent_ < 0.0f ? positions_ - ends.end : ends.begin;
      readers.count = max_of(ends.end - ends.begin, 0);
      readers.weight0 = readers.count > 0 ? computed_weight(readers, 0, r) : 0.0f;
      readers.weight1 = readers.count > 1 ? computed_weight(readers, 1, r) : 0.0f;
      table_[n].readers = readers;
    }
  }

  // The weight of the n-th reader of pixel r.
  AF_DEVICE float weight(const Readers& readers, int n, int r) const {
    return n == 0 ? readers.weight0 : n == 1 ? readers.weight1 : computed_weight(readers, n, r);
  }

 private:
  AF_DEVICE float computed_weight(const Readers& readers, int n, int r) const {
    return BilinearFootprint<float>(centre_, extent_, readers.begin + n, positions_, size_, border_)
        .weight(r)
        .value;
  }

  // Entry of a pixel, and pixel of an entry.
  AF_DEVICE int index(int r) const { return r < origin_ ? r - origin_ + size_ : r - origin_; }
  AF_DEVICE int pixel(int n) const { return (origin_ + n) % size_; }

  // Footprint of the m-th output in the order of position.
  AF_DEVICE BilinearFootprint<float> footprint(int m) const {
    const int output = extent_ < 0.0f ? positions_ - 1 - m : m;
    return {centre_, extent_, output, positions_, size_, border_};
  }

  TableEntry* table_;
  int entries_, origin_, size_;
  bool border_;
  float centre_, extent_;  // of the box on the axis
  int positions_;          // outputs of the axis
};

// ---------------------------------------------------------------------------------------------------
// The tile

// Pieces of a thread and their sums, which lie in a column of the thread's own.
template <class T>
class Tile {
 public:
  static constexpr int kPiece = 16 / int(sizeof(T));  // elements of a piece

  AF_DEVICE Tile(T* frame, int elements)
      : frame_(frame),
        elements_(elements),
        origin_(int(blockIdx.y) * kTile - int(reinterpret_cast<uintptr_t>(frame) % 16 / sizeof(T))),
        sums_(reinterpret_cast<float*>(dynamic_shared()) + thread_index()) {}

  // The first element that is in the frame.
  AF_DEVICE unsigned first() const { return unsigned(max_of(origin_, 0)); }

  AF_DEVICE void clear_sums() const {
    for (int n = 0; n < kOwned; ++n) sum(n) = 0;
  }

  // The sum of the n-th element of this thread.
  AF_DEVICE float& sum(int n) const { return sums_[n * kThreads]; }

  // Elements [begin, end) of a piece are in the frame.
  AF_DEVICE int begin(int first) const { return max_of(-first, 0); }
  AF_DEVICE int end(int first) const { return min_of(kPiece, elements_ - first); }

  // Calls f(first, n) for the pieces of this thread that have elements of the frame: for e in [0, kPiece)
  // those are elements first + e of the frame, and n + e of the thread.
  template <class F>
  AF_DEVICE void for_each_piece(const F& f) const {
    for (int piece = 0; piece < kOwned / kPiece; ++piece) {
      const int first = origin_ + (piece * kThreads + thread_index()) * kPiece;
      if (first + kPiece <= 0 || first >= elements_) continue;
      f(first, piece * kPiece);
    }
  }

  AF_DEVICE void write() const {
    for_each_piece([&](int first, int n) {
      T values[kPiece];
#pragma unroll
      for (int e = 0; e < kPiece; ++e) values[e] = Store<T>::from(sum(n + e));
      if (first >= 0 && first + kPiece <= elements_) {
        Bytes16 bytes;
        memcpy(&bytes, values, sizeof(bytes));
        store_16(frame_ + first, bytes);
      } else {
#pragma unroll
        for (int e = 0; e < kPiece; ++e) {
          if (first + e >= 0 && first + e < elements_) frame_[first + e] = values[e];
        }
      }
    });
  }

 private:
  T* frame_;
  int elements_, origin_;
  float* sums_;  // [kOwned, kThreads] from the thread's column on, which the thread alone writes and reads
};

// The gradient of the element at a place, from the outputs that read it, of which the first is `from`.
template <class G>
AF_DEVICE float gather_element(const CropResize& p, const G* from, const ReaderTable& rows, const Readers& y,
                               const ReaderTable& columns, const Readers& x, const Place& place) {
  float sum = 0;
  for (int a = 0; a < y.count; ++a) {
    float in_row = 0;
    for (int b = 0; b < x.count; ++b) {
      in_row += columns.weight(x, b, place.x) *
                load_as<float>(from[a * p.patches.stride_y + b * p.patches.stride_x]);
    }
    sum += rows.weight(y, a, place.y) * in_row;
  }
  return sum;
}

// Adds the gradient of a patch, [C, P_h, P_w] in its strides, to the tile.
template <class T, class G>
AF_DEVICE void gather(const CropResize& p, const G* patch, const ReaderTable& rows,
                      const ReaderTable& columns, const DenseOrder& order, const Tile<T>& tile) {
  tile.for_each_piece([&](int first, int n) {
    const int begin = tile.begin(first), end = tile.end(first);
    order.for_each_run(
        order.at(unsigned(first + begin)), begin, end, [&](const Place& start, int begin, int end) {
          const Readers y = rows[start.y];
          if (y.count == 0) return;
          order.for_each_pixel(start, begin, end, [&](const Place& place, int begin, int end) {
            const Readers x = columns[place.x];
            if (x.count == 0) return;
            const G* from = patch + place.c * p.patches.stride_c + y.begin * p.patches.stride_y +
                            x.begin * p.patches.stride_x;
            for (int e = begin, c = place.c; e < end; ++e, ++c, from += p.patches.stride_c) {
              tile.sum(n + e) += scale_of<float>(p, c) * gather_element(p, from, rows, y, columns, x, place);
            }
          });
        });
  });
}

// Grid: (frame, tile). Each element gathers from the outputs that read it, box by box.
template <class T>
__launch_bounds__(kThreads, 3) AF_KERNEL
    crop_resize_bwd_frames_tiled_kernel(const CropResize p, const TileLayout layout) {
  const int64_t frame = blockIdx.x;
  const int height = int(p.frames.height), width = int(p.frames.width);
  const DenseOrder order{unsigned(p.frames.channels), unsigned(height), unsigned(width),
                         p.frames.stride_c == 1};
  const Tile<T> tile(typed<T>(p.frames.data) + frame * p.frames.lead_stride[0], layout.elements);
  const Place corner = order.at(tile.first());
  // [columns + rows], all threads write in each step and read in the next
  TableEntry* const tables = reinterpret_cast<TableEntry*>(dynamic_shared() + kTileBytes);
  ReaderTable columns(tables, layout.columns, corner.x, width, p.border);
  ReaderTable rows(tables + layout.columns, layout.rows, corner.y, height, p.border);
  tile.clear_sums();
  for_each_box<float>(p, frame, [&](int64_t k) {
    const Box<float> box = p.box<float>(k);
    columns.start(box.cx, box.w, int(p.patches.width));  // 1
    rows.start(box.cy, box.h, int(p.patches.height));
    __syncthreads();
    columns.mark();  // 2
    rows.mark();
    __syncthreads();
    columns.weigh();  // 3
    rows.weigh();
    __syncthreads();
    visit(p.patches.dtype, [&](auto tag) {  // 4
      using G = typename decltype(tag)::type;
      gather(p, typed<const G>(p.patches.data) + p.patch_offset(k), rows, columns, order, tile);
    });
    __syncthreads();  // the tables are read before the next box overwrites them
  });
  tile.write();
}

TileLayout tile_layout(const CropResize& p) {
  const ImageBatch& frames = p.frames;
  const int64_t elements = frames.channels * frames.height * frames.width;
  TileLayout layout{};
  if (p.antialias || p.double_precision || !is_small_float(frames.dtype) || !is_dense(frames) ||
      elements > (kMaxGridY - 1) * kTile || p.patches.height > INT32_MAX || p.patches.width > INT32_MAX) {
    return layout;
  }
  const int64_t pixels = frames.stride_c == 1 ? kTile / frames.channels + 2 : kTile;
  layout.elements = int(elements);
  layout.columns = int(min_of(frames.width, pixels));
  layout.rows = int(min_of(frames.height, pixels / frames.width + 2));
  return layout;
}

}  // namespace

bool can_tile_bwd_frames(const CropResize& p) { return tile_layout(p).elements > 0; }

const char* crop_resize_bwd_frames_tiled(const CropResize& p, void* stream) {
  const TileLayout layout = tile_layout(p);
  return visit_small_float(p.frames.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kBefore = Tile<T>::kPiece;  // elements by which the first tile may begin before the frame
    const int64_t tiles = (layout.elements + kBefore + kTile - 1) / kTile;
    return launch(crop_resize_bwd_frames_tiled_kernel<T>, dim3(unsigned(p.frames.count), unsigned(tiles)),
                  dim3(kThreads), kTileBytes + (layout.rows + layout.columns) * sizeof(TableEntry), stream, p,
                  layout);
  });
}

}  // namespace adafocus

// The gradient of crop_resize by the frames, for frames that are dense in memory.
#include "cuda/crop.cuh"
#include "cuda/crop_resize_kernels.h"

namespace adafocus {
namespace {

// Elements of a frame that a block works on: 16 of each thread, in 16-byte pieces.
constexpr int kTile = 4096;

// The outputs that read one pixel of an axis, and the weights of the first two of them: there are seldom
// more.
struct alignas(16) Readers {
  int begin, count;
  float weight0, weight1;
};

// A tile reads `rows` x `columns` entries of tables that wrap around the frame.
struct TileLayout {
  int elements;  // of a frame
  int rows, columns;
};

// Where a frame's element lies.
struct Place {
  int c, y, x;
};

// Steps through the elements of a dense frame in the order of memory.
struct Cursor {
  unsigned channels, height, width;
  bool interleaved;

  AF_DEVICE Place at(unsigned element) const {
    const unsigned inner = interleaved ? channels : width, outer = element / inner;
    const unsigned in_inner = element - outer * inner, middle = interleaved ? width : height;
    const unsigned in_outer = outer / middle, in_middle = outer - in_outer * middle;
    return interleaved ? Place{int(in_inner), int(in_outer), int(in_middle)}
                       : Place{int(in_outer), int(in_middle), int(in_inner)};
  }

  // How many elements from a place on lie in its row (of its plane, if channels are planes).
  AF_DEVICE int left_in_row(const Place& place) const {
    return interleaved ? int((width - place.x) * channels) - place.c : int(width) - place.x;
  }

  AF_DEVICE void next_pixel(Place& place) const {
    if (interleaved) place.c = 0;
    ++place.x;
  }

  AF_DEVICE void next_row(Place& place) const {
    place.x = 0;
    if (interleaved) place.c = 0;
    if (++place.y < int(height)) return;
    place.y = 0;
    ++place.c;
  }
};

// The readers of the pixels of an axis that a tile holds: `entries` from `origin` on, around the end of the
// axis.
class ReaderTable {
 public:
  AF_DEVICE ReaderTable(Readers* readers, int entries, int origin, int size, bool border)
      : readers_(readers), entries_(entries), origin_(origin), size_(size), border_(border) {}

  AF_DEVICE Readers operator[](int r) const { return readers_[index(r)]; }

  // Finds the readers of a box; barriers must follow each step. Positions are monotone in the output, so the
  // outputs themselves, in the order of position, say where the readers of the next pixels begin and end: no
  // pixel searches.
  AF_DEVICE void start(float centre, float extent, int positions) const {
    const BilinearFootprint<float> nearest = sample(centre, extent, positions, 0);
    for (int n = thread_index(); n < entries_; n += kThreads) {
      const int r = (origin_ + n) % size_;
      readers_[n].begin = r < nearest.end ? 0 : positions;
      readers_[n].count = r < nearest.begin ? 0 : positions;  // for now, where they end
    }
  }

  AF_DEVICE void mark(float centre, float extent, int positions) const {
    for (int m = 1 + thread_index(); m < positions; m += kThreads) {
      const BilinearFootprint<float> before = sample(centre, extent, positions, m - 1);
      const BilinearFootprint<float> here = sample(centre, extent, positions, m);
      for (int r = int(max_of<int64_t>(before.end, 0)); r < here.end; ++r) {
        if (index(r) < entries_) readers_[index(r)].begin = m;
      }
      for (int r = int(before.begin); r < min_of<int64_t>(here.begin, size_); ++r) {
        if (index(r) < entries_) readers_[index(r)].count = m;
      }
    }
  }

  AF_DEVICE void weigh(float centre, float extent, int positions) const {
    for (int n = thread_index(); n < entries_; n += kThreads) {
      Readers readers = readers_[n];
      const int begin = readers.begin, end = readers.count, r = (origin_ + n) % size_;
      readers.begin = extent < 0.0f ? positions - end : begin;
      readers.count = max_of(end - begin, 0);
      readers.weight0 = readers.count > 0 ? weight(readers, 0, r, centre, extent, positions) : 0.0f;
      readers.weight1 = readers.count > 1 ? weight(readers, 1, r, centre, extent, positions) : 0.0f;
      readers_[n] = readers;
    }
  }

  // The weight of the n-th reader of pixel r.
  AF_DEVICE float weight(const Readers& readers, int n, int r, float centre, float extent,
                         int positions) const {
    return BilinearFootprint<float>(centre, extent, readers.begin + n, positions, size_, border_)
        .weight(r)
        .value;
  }

 private:
  AF_DEVICE int index(int r) const { return r < origin_ ? r - origin_ + size_ : r - origin_; }

  // The m-th output in the order of position.
  AF_DEVICE BilinearFootprint<float> sample(float centre, float extent, int positions, int m) const {
    return {centre, extent, extent < 0.0f ? positions - 1 - m : m, positions, size_, border_};
  }

  Readers* readers_;
  int entries_, origin_, size_;
  bool border_;
};

// Grid: (frame, tile). Each element gathers from the outputs that read it, box by box.
template <class T>
__launch_bounds__(kThreads, 3) AF_KERNEL
    crop_resize_bwd_frames_tiled_kernel(const CropResize p, const TileLayout tile) {
  constexpr int kPiece = 16 / int(sizeof(T)), kPieces = kTile / (kThreads * kPiece);
  const int64_t frame = blockIdx.x;
  T* const out = typed<T>(p.frames.data) + frame * p.frames.lead_stride[0];
  // Pieces lie on 16-byte boundaries of memory, so the first may begin before the frame.
  const int before = int(reinterpret_cast<uintptr_t>(out) % 16 / sizeof(T));
  const int origin = int(blockIdx.y) * kTile - before;
  const int height = int(p.frames.height), width = int(p.frames.width);
  const Cursor cursor{unsigned(p.frames.channels), unsigned(height), unsigned(width), p.frames.stride_c == 1};
  const Place corner = cursor.at(unsigned(max_of(origin, 0)));
  // Every thread sums the elements of its pieces in a column of its own.
  float* const sums = reinterpret_cast<float*>(dynamic_shared()) + thread_index();
  Readers* const tables = reinterpret_cast<Readers*>(dynamic_shared() + kTile * sizeof(float));
  const ReaderTable columns(tables, tile.columns, corner.x, width, p.border);
  const ReaderTable rows(tables + tile.columns, tile.rows, corner.y, height, p.border);
  for (int n = 0; n < kPieces * kPiece; ++n) sums[n * kThreads] = 0;
  for_each_box<float>(p, frame, [&](int64_t k) {
    const Box<float> box = p.box<float>(k);
    const int out_h = int(p.patches.height), out_w = int(p.patches.width);
    columns.start(box.cx, box.w, out_w);
    rows.start(box.cy, box.h, out_h);
    __syncthreads();
    columns.mark(box.cx, box.w, out_w);
    rows.mark(box.cy, box.h, out_h);
    __syncthreads();
    columns.weigh(box.cx, box.w, out_w);
    rows.weigh(box.cy, box.h, out_h);
    __syncthreads();
    visit(p.patches.dtype, [&](auto tag) {
      using G = typename decltype(tag)::type;
      const G* const patch = typed<const G>(p.patches.data) + p.patch_offset(k);
      for (int piece = 0; piece < kPieces; ++piece) {
        const int first = origin + (piece * kThreads + thread_index()) * kPiece;
        if (first + kPiece <= 0 || first >= tile.elements) continue;
        Place place = cursor.at(unsigned(max_of(first, 0)));
        const int end = min_of(kPiece, tile.elements - first);
        for (int e = max_of(-first, 0), row_end; e < end; e = row_end, cursor.next_row(place)) {
          row_end = min_of(end, e + cursor.left_in_row(place));
          const Readers y = rows[place.y];
          if (y.count == 0) continue;
          while (e < row_end) {
            const Readers x = columns[place.x];
            const int channels = cursor.interleaved ? int(cursor.channels) - place.c : 1;
            const int pixel_end = min_of(row_end, e + channels);
            if (x.count == 0) e = pixel_end;
            const G* from = patch + place.c * p.patches.stride_c + y.begin * p.patches.stride_y +
                            x.begin * p.patches.stride_x;
            for (int c = place.c; e < pixel_end; ++e, ++c, from += p.patches.stride_c) {
              float sum = 0;
              for (int a = 0; a < y.count; ++a) {
                float in_row = 0;
                for (int b = 0; b < x.count; ++b) {
                  const float weight = b == 0   ? x.weight0
                                       : b == 1 ? x.weight1
                                                : columns.weight(x, b, place.x, box.cx, box.w, out_w);
                  in_row += weight * load_as<float>(from[a * p.patches.stride_y + b * p.patches.stride_x]);
                }
                const float weight = a == 0   ? y.weight0
                                     : a == 1 ? y.weight1
                                              : rows.weight(y, a, place.y, box.cy, box.h, out_h);
                sum += weight * in_row;
              }
              sums[(piece * kPiece + e) * kThreads] += scale_of<float>(p, c) * sum;
            }
            cursor.next_pixel(place);
          }
        }
      }
    });
    __syncthreads();  // the tables are read before the next box overwrites them
  });
  for (int piece = 0; piece < kPieces; ++piece) {
    const int first = origin + (piece * kThreads + thread_index()) * kPiece;
    if (first + kPiece <= 0 || first >= tile.elements) continue;
    T values[kPiece];
#pragma unroll
    for (int e = 0; e < kPiece; ++e) values[e] = Store<T>::from(sums[(piece * kPiece + e) * kThreads]);
    if (first >= 0 && first + kPiece <= tile.elements) {
      Bytes16 bytes;
      memcpy(&bytes, values, sizeof(bytes));
      store_16(out + first, bytes);
    } else {
#pragma unroll
      for (int e = 0; e < kPiece; ++e) {
        if (first + e >= 0 && first + e < tile.elements) out[first + e] = values[e];
      }
    }
  }
}

TileLayout tile_layout(const CropResize& p) {
  const ImageBatch& frames = p.frames;
  const int64_t elements = frames.channels * frames.height * frames.width;
  TileLayout tile{};
  if (p.antialias || p.double_precision || frames.dtype == DType::kUInt8 || frames.dtype == DType::kFloat64 ||
      !is_dense(frames) || elements > (kMaxGridY - 1) * kTile || p.patches.height > INT32_MAX ||
      p.patches.width > INT32_MAX) {
    return tile;
  }
  const int64_t pixels = frames.stride_c == 1 ? kTile / frames.channels + 2 : kTile;
  tile.elements = int(elements);
  tile.columns = int(min_of(frames.width, pixels));
  tile.rows = int(min_of(frames.height, pixels / frames.width + 2));
  return tile;
}

template <class T>
const char* bwd_frames(const CropResize& p, const TileLayout& tile, void* stream) {
  const int64_t tiles =
      (tile.elements + 16 / sizeof(T) + kTile - 1) / kTile;  // a frame may start inside a piece
  return launch(crop_resize_bwd_frames_tiled_kernel<T>, dim3(unsigned(p.frames.count), unsigned(tiles)),
                dim3(kThreads), kTile * sizeof(float) + (tile.rows + tile.columns) * sizeof(Readers), stream,
                p, tile);
}

}  // namespace

bool can_tile_bwd_frames(const CropResize& p) { return tile_layout(p).elements > 0; }

const char* crop_resize_bwd_frames_tiled(const CropResize& p, void* stream) {
  const TileLayout tile = tile_layout(p);
  switch (p.frames.dtype) {
    case DType::kFloat16:
      return bwd_frames<Half>(p, tile, stream);
    case DType::kBFloat16:
      return bwd_frames<BFloat16>(p, tile, stream);
    default:
      return bwd_frames<float>(p, tile, stream);
  }
}

}  // namespace adafocus

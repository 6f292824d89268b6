// The forward of crop_resize for frames of three channels: each scanline that a strip of output rows reads is
// staged in shared memory once (staged_scanlines.cuh), and so is what the strip writes.
#include "cuda/crop_resize_kernels.h"
#include "cuda/staged_scanlines.cuh"

namespace adafocus {
namespace {

// Copies `count` bytes from shared memory, in 16-byte pieces; those before the first boundary and behind the
// last one go singly. Both ends have the same offset from a boundary; the threads of the block share the
// work.
AF_DEVICE void unstage_bytes(unsigned char* to, const unsigned char* from, int count) {
  const int head = min_of(int(-reinterpret_cast<uintptr_t>(to) & 15), count), pieces = (count - head) / 16;
  const int thread = thread_index(), tail = head + 16 * pieces;
  if (thread < head) to[thread] = from[thread];
#pragma unroll 1
  for (int n = thread; n < pieces; n += kThreads) store_16(to + head + 16 * n, load_16(from + head + 16 * n));
  if (tail + thread < count) to[tail + thread] = from[tail + thread];
}

// Output rows of a strip, collected in shared memory and written in 16-byte pieces: one run of interleaved
// channels, or a run of each plane, with the same offset from a 16-byte boundary as in global memory.
template <class T>
class StagedOutput {
 public:
  AF_DEVICE StagedOutput(const CropResize& p, int64_t k, int first, int count, const StagedLayout& layout)
      : interleaved_(p.patches.stride_c == 1),
        out_w_(int(p.patches.width)),
        shared_(dynamic_shared() + layout.bytes(0)) {
    const int64_t start = p.patch_offset(k) + first * p.patches.stride_y;
    to_ = static_cast<unsigned char*>(p.patches.data) + start * int64_t(sizeof(T));
    plane_ = p.patches.stride_c * int64_t(sizeof(T));
    step_ = int(sizeof(T)) * (interleaved_ ? kChannels : 1);
    bytes_ = count * out_w_ * step_;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const int phase = int(reinterpret_cast<uintptr_t>(to_ + (interleaved_ ? 0 : c * plane_)) & 15);
      at_[c] = interleaved_ ? phase + c * int(sizeof(T)) : phase + c * layout.out_pitch;
    }
  }

  // Pixels that a thread puts one below the other.
  struct PixelColumn {
    unsigned char* at[kChannels];  // the next pixel's channels
    int step;                      // bytes to the pixel after it

    AF_DEVICE void put(const float (&value)[kChannels]) {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        *reinterpret_cast<T*>(at[c]) = Store<T>::from(value[c]);
        at[c] += step;
      }
    }
  };

  // Output pixels (i, j), (i + rows, j), (i + 2 rows, j), ... of the strip.
  AF_DEVICE PixelColumn down_from(int i, int j, int rows) const {
    unsigned char* const pixel = shared_ + (i * out_w_ + j) * step_;
    return {{pixel + at_[0], pixel + at_[1], pixel + at_[2]}, rows * out_w_ * step_};
  }

  AF_DEVICE void write() const {
    __syncthreads();
    if (interleaved_) return unstage_bytes(to_, shared_ + at_[0], bytes_);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) unstage_bytes(to_ + c * plane_, shared_ + at_[c], bytes_);
  }

 private:
  bool interleaved_;
  int out_w_;
  int step_;               // bytes from pixel to pixel
  int bytes_;              // of a run
  int at_[kChannels];      // bytes before each channel of the first pixel
  unsigned char* shared_;  // [runs, out_pitch] bytes, all threads write, then all threads read
  unsigned char* to_;      // the first pixel in global memory
  int64_t plane_;          // bytes from channel to channel there
};

// Strips that a block works on one after the other, so that what belongs to the box is found once for them.
constexpr int kStrips = 4;
// Boxes that keep all of the GPU busy; with fewer of them every strip is a block of its own.
constexpr int64_t kManyBoxes = 256;

// Grid: the chunks of strips of all boxes, those of a box side by side.
template <class T, bool kInterleaved>
__launch_bounds__(kThreads, 4) AF_KERNEL
    crop_resize_fwd_staged_kernel(const CropResize p, const StagedLayout layout, unsigned chunks, int chunk) {
  using Scanlines = StagedScanlines<T, kInterleaved>;
  AF_SHARED(typename Scanlines::Tables, tables, 1);  // [1], the first warp plans and lanes stage, all read
  const int64_t k = blockIdx.x / chunks;
  const int begin = int(blockIdx.x % chunks) * chunk, end = min_of(begin + chunk, int(p.patches.height));
  const bool valid = p.valid<float>(k);
  const Scanlines scanlines(p, k, valid, layout, tables[0]);
  float scale[kChannels], shift[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    scale[c] = valid ? scale_of<float>(p, c) : 0.0f;
    shift[c] = valid ? shift_of<float>(p, c) : __builtin_nanf("");
  }
  for (int first = begin; first < end; first += layout.strip) {
    const int count = min_of(layout.strip, end - first);
    scanlines.stage(first, count);
    __syncthreads();
    visit_small_float(p.patches.dtype, [&](auto tag) {
      const StagedOutput<typename decltype(tag)::type> out(p, k, first, count, layout);
      for_each_column(int(p.patches.width), [&](int j, int i, int step) {
        const typename Scanlines::PixelPair column = scanlines.column(j);
        auto pixel = out.down_from(i, j, step);
        for (; i < count; i += step) {
          const ScanlinePair row = scanlines.row(i);
          float top[kChannels], bottom[kChannels], value[kChannels];
          scanlines.blend(row.at0, column, top);
          scanlines.blend(row.at1, column, bottom);
          const float inside = row.inside * column.inside;
#pragma unroll
          for (int c = 0; c < kChannels; ++c) {
            value[c] = scale[c] * ((1.0f - row.u1) * top[c] + row.u1 * bottom[c]) + shift[c] * inside;
          }
          pixel.put(value);
        }
      });
      out.write();  // which waits until the strip has been read; the next strip waits until the output has
    });
  }
}

// Output rows of a block: whole strips.
int chunk_of(const CropResize& p, const StagedLayout& layout) {
  return layout.strip * (p.num_boxes() >= kManyBoxes ? kStrips : 1);
}

int64_t chunks_of(const CropResize& p, const StagedLayout& layout) {
  const int chunk = chunk_of(p, layout);
  return divide_up(p.patches.height, chunk);
}

}  // namespace

bool can_stage_fwd(const CropResize& p) {
  const StagedLayout layout = staged_layout(p, /*with_output=*/true);
  return layout.strip > 0 && is_dense(p.patches) && p.num_boxes() * chunks_of(p, layout) <= INT32_MAX;
}

const char* crop_resize_fwd_staged(const CropResize& p, void* stream) {
  const StagedLayout layout = staged_layout(p, /*with_output=*/true);
  const unsigned chunks = unsigned(chunks_of(p, layout));
  return visit_staged_frames(p, [&](auto tag, auto interleaved) {
    const auto kernel = crop_resize_fwd_staged_kernel<typename decltype(tag)::type, interleaved()>;
    return launch(kernel, dim3(unsigned(p.num_boxes()) * chunks), dim3(kThreads), staged_bytes(p, layout),
                  stream, p, layout, chunks, chunk_of(p, layout));
  });
}

}  // namespace adafocus

// crop_mean on CUDA: a pool of each box's pixels with the weights w_y[r] w_x[s].
#include "adafocus/crop_mean.h"
#include "cuda/box_chains.cuh"
#include "cuda/crop.cuh"

namespace adafocus {
namespace {

// Bytes of shared memory for the weights of one axis; pixels beyond them are weighed each time they are read.
constexpr int kTableBytes = 8 * 1024;

// Weights with which the mean of a box reads the pixels of an axis; all threads of the block share them.
template <class C>
class AxisWeights {
 public:
  static constexpr int kPixels = kTableBytes / sizeof(Dual<C>);

  AF_DEVICE AxisWeights(C centre, C extent, int64_t positions, int64_t size, bool border, Dual<C>* table)
      : table_(table), centre_(centre), extent_(extent), positions_(positions), size_(size), border_(border) {
    range_ = pixels_of<BilinearFootprint>(centre, extent, positions, size, border);
    const int64_t kept = min_of<int64_t>(range_.end - range_.begin, kPixels);
    for (int64_t n = thread_index(); n < kept; n += kThreads) table[n] = weigh(range_.begin + n);
  }

  AF_DEVICE Range range() const { return range_; }

  // The weight of pixel r; a barrier must come before.
  AF_DEVICE Dual<C> operator()(int64_t r) const {
    return r - range_.begin < kPixels ? table_[r - range_.begin] : weigh(r);
  }

 private:
  AF_DEVICE Dual<C> weigh(int64_t r) const {
    return mean_weight(r, centre_, extent_, positions_, size_, border_);
  }

  Dual<C>* table_;
  C centre_, extent_;
  int64_t positions_, size_;
  bool border_;
  Range range_;
};

// Weights of a box on both axes.
template <class C>
struct BoxWeights {
  AxisWeights<C> y, x;

  AF_DEVICE BoxWeights(const CropResize& p, const Box<C>& box, Dual<C>* tables)
      : y(box.cy, box.h, p.patches.height, p.frames.height, p.border, tables),
        x(box.cx, box.w, p.patches.width, p.frames.width, p.border, tables + AxisWeights<C>::kPixels) {
    __syncthreads();
  }

  AF_DEVICE uint32_t height() const { return length(y.range()); }
  AF_DEVICE uint32_t width() const { return length(x.range()); }
  AF_DEVICE uint32_t pixels() const { return height() * width(); }

 private:
  AF_DEVICE static uint32_t length(const Range& range) {
    return uint32_t(max_of<int64_t>(range.end - range.begin, 0));
  }
};

template <class C>
AF_DEVICE void store_mean(const CropMean& p, int64_t k, int64_t channel, C value) {
  visit(p.means_dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    typed<T>(p.means)[k * p.crop.patches.channels + channel] = Store<T>::from(value);
  });
}

template <class C>
AF_DEVICE C load_mean(const CropMean& p, int64_t k, int64_t channel) {
  C value = 0;
  visit(p.means_dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    value = load_as<C>(typed<const T>(p.means)[k * p.crop.patches.channels + channel]);
  });
  return value;
}

// Grid: (box, chunk of channels). The block's threads are a table of `columns` groups of channels by slices
// of the pixels, both powers of two; neighbouring threads are neighbours along what memory has side by side.
template <class C>
__launch_bounds__(kThreads, 1) AF_KERNEL crop_mean_fwd_kernel(const CropMean means, uint32_t columns) {
  AF_SHARED(Dual<C>, tables, 2 * AxisWeights<C>::kPixels);  // [2, kPixels], all threads write and read
  AF_SHARED(ChannelGroup<C>, partial, kThreads);  // [slices, columns], threads write and sum by halves
  const CropResize& p = means.crop;
  const int64_t k = blockIdx.x;
  const uint32_t thread = uint32_t(thread_index()), slices = kThreads / columns;
  const Items items(p.frames);
  const uint32_t column = items.groups_first ? thread % columns : thread / slices;
  const uint32_t slice = items.groups_first ? thread / columns : thread % slices;
  if (!p.valid<C>(k)) {
    for (int64_t c = int64_t(blockIdx.y) * kThreads + thread; c < p.patches.channels;
         c += int64_t(gridDim.y) * kThreads) {
      store_mean(means, k, c, C(__builtin_nan("")));
    }
    return;
  }
  const BoxWeights<C> weights(p, p.box<C>(k), tables);
  const int64_t frame = p.frames.offset(p.frame_of(k));
  for (uint32_t start = blockIdx.y * columns; start < items.groups; start += gridDim.y * columns) {
    const uint32_t first = (start + column) * kGroup;
    const int channels =
        int(min_of<int64_t>(kGroup, p.frames.channels - first));  // none beyond the last group
    ChannelGroup<C> sums{};
    C inside = 0;
    visit(p.frames.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* const image = typed<const T>(p.frames.data) + frame + first * p.frames.stride_c;
      for (uint32_t n = slice; n < weights.pixels(); n += slices) {
        const int64_t r = weights.y.range().begin + n / weights.width();
        const int64_t s = weights.x.range().begin + n % weights.width();
        const Dual<C> w_y = weights.y(r), w_x = weights.x(s);
        if (!is_read(w_y) || !is_read(w_x)) continue;
        const C w = w_y.value * w_x.value;
        const ChannelGroup<C> value =
            load_group<C>(image + r * p.frames.stride_y + s * p.frames.stride_x, p.frames.stride_c, channels);
        inside += w;
#pragma unroll
        for (int c = 0; c < kGroup; ++c) sums[c] += w * value[c];
      }
    });
#pragma unroll
    for (int c = 0; c < kGroup; ++c) {
      if (c < channels) sums[c] = scale_of<C>(p, first + c) * sums[c] + shift_of<C>(p, first + c) * inside;
    }
    partial[slice * columns + column] = sums;
    for (uint32_t half = kThreads / 2; half >= columns; half /= 2) {
      __syncthreads();
      if (thread >= half) continue;
      partial[thread] = partial[thread] + partial[thread + half];
    }
    if (thread < columns) {
      const uint32_t channel = (start + thread) * kGroup;
      const ChannelGroup<C> sum = partial[thread];
#pragma unroll
      for (int c = 0; c < kGroup; ++c) {
        if (channel + c < items.channels) store_mean(means, k, channel + c, sum[c]);
      }
    }
    __syncthreads();  // the sums are read before the next groups overwrite them
  }
}

// Grid: one block for each box.
template <class C>
__launch_bounds__(kThreads, 1) AF_KERNEL crop_mean_bwd_boxes_kernel(const CropMean means, C* d_boxes) {
  AF_SHARED(Dual<C>, tables, 2 * AxisWeights<C>::kPixels);  // [2, kPixels], all threads write and read
  const CropResize& p = means.crop;
  const int64_t k = blockIdx.x;
  C sums[4] = {};  // (cy, cx, h, w)
  if (p.valid<C>(k)) {
    const BoxWeights<C> weights(p, p.box<C>(k), tables);
    const int64_t frame = p.frames.offset(p.frame_of(k));
    const Items items(p.frames, weights.height(), weights.width());
    for (int64_t n = thread_index(); n < items.count(); n += kThreads) {
      const Item item = items[uint32_t(n)];
      const uint32_t first = item.first_channel;
      const int64_t r = weights.y.range().begin + item.y, s = weights.x.range().begin + item.x;
      const Dual<C> w_y = weights.y(r), w_x = weights.x(s);
      if (!is_read(w_y) || !is_read(w_x)) continue;
      ChannelGroup<C> value{};
      visit(p.frames.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* const image = typed<const T>(p.frames.data) + frame + first * p.frames.stride_c;
        value = load_group<C>(image + r * p.frames.stride_y + s * p.frames.stride_x, p.frames.stride_c,
                              item.channels);
      });
      C by_pixel = 0;
#pragma unroll
      for (int c = 0; c < kGroup; ++c) {
        if (c >= item.channels) break;
        by_pixel += load_mean<C>(means, k, first + c) *
                    (scale_of<C>(p, first + c) * value[c] + shift_of<C>(p, first + c));
      }
      add_pixel(sums, w_y, w_x, by_pixel);
    }
  }
  store_box_gradient(sums, d_boxes, k);
}

// Grid: (frame, chunk of it).
template <class C>
__launch_bounds__(kThreads, 1) AF_KERNEL crop_mean_bwd_frames_kernel(const CropMean means) {
  AF_SHARED(Dual<C>, tables, 2 * AxisWeights<C>::kPixels);  // [2, kPixels], all threads write and read
  const CropResize& p = means.crop;
  const int64_t frame = blockIdx.x, stride = int64_t(gridDim.y) * kThreads;
  const Items items(p.frames);
  for (int64_t start = int64_t(blockIdx.y) * kThreads; start < items.count(); start += stride) {
    const int64_t n = start + thread_index();
    const bool exists = n < items.count();
    const Item item = items[exists ? uint32_t(n) : 0];
    ChannelGroup<C> sums{};
    for_each_box<C>(p, frame, [&](int64_t k) {
      const BoxWeights<C> weights(p, p.box<C>(k), tables);
      const Range rows = weights.y.range(), columns = weights.x.range();
      if (exists && item.y >= rows.begin && item.y < rows.end && item.x >= columns.begin &&
          item.x < columns.end) {
        const C w = weights.y(item.y).value * weights.x(item.x).value;
#pragma unroll
        for (int c = 0; c < kGroup; ++c) {
          if (c < item.channels) sums[c] += w * load_mean<C>(means, k, item.first_channel + c);
        }
      }
      __syncthreads();  // the tables are read before the next box overwrites them
    });
    if (exists) store_frame_gradient(p, frame, item, sums);
  }
}

// Groups of channels that a block takes at once: enough slices are left for the pixels, which are a warp's
// or more where the pixels are what lies side by side in memory.
uint32_t columns_for(const ImageBatch& frames) {
  const Items items(frames);
  const uint32_t most = items.groups_first ? kThreads : items.pixels <= 1024 ? kWarps : 1;
  uint32_t columns = 1;
  while (columns < most && columns < items.groups) columns *= 2;
  return columns;
}

template <class C>
const char* fwd(const CropMean& p, void* stream) {
  const uint32_t columns = columns_for(p.crop.frames);
  const int64_t chunks = divide_up(Items(p.crop.frames).groups, columns);
  const dim3 grid(unsigned(p.crop.num_boxes()), unsigned(min_of(chunks, kMaxGridY)));
  return launch(crop_mean_fwd_kernel<C>, grid, dim3(kThreads), 0, stream, p, columns);
}

template <class C>
const char* bwd_boxes(const CropMean& p, void* d_boxes, void* stream) {
  return launch(crop_mean_bwd_boxes_kernel<C>, dim3(unsigned(p.crop.num_boxes())), dim3(kThreads), 0, stream,
                p, static_cast<C*>(d_boxes));
}

template <class C>
const char* bwd_frames(const CropMean& p, void* stream) {
  return launch(crop_mean_bwd_frames_kernel<C>, grid_over(p.crop.frames.count, Items(p.crop.frames).count()),
                dim3(kThreads), 0, stream, p);
}

}  // namespace

const char* crop_mean_fwd_cuda(const CropMean& p, void* stream) {
  if (p.crop.num_boxes() == 0) return nullptr;
  if (const char* why = why_not_launched(p.crop)) return why;
  return visit_compute(p.crop.double_precision,
                       [&](auto tag) { return fwd<typename decltype(tag)::type>(p, stream); });
}

const char* crop_mean_bwd_boxes_cuda(const CropMean& p, void* d_boxes, void* stream) {
  if (p.crop.num_boxes() == 0) return nullptr;
  if (const char* why = why_not_launched(p.crop)) return why;
  return visit_compute(p.crop.double_precision,
                       [&](auto tag) { return bwd_boxes<typename decltype(tag)::type>(p, d_boxes, stream); });
}

const char* crop_mean_bwd_frames_cuda(CropMean p, int32_t* chains, void* stream) {
  if (p.crop.frames.count == 0) return nullptr;
  if (const char* why = why_not_launched(p.crop)) return why;
  if (const char* why = chain_boxes(p.crop, chains, stream)) return why;
  return visit_compute(p.crop.double_precision,
                       [&](auto tag) { return bwd_frames<typename decltype(tag)::type>(p, stream); });
}

}  // namespace adafocus

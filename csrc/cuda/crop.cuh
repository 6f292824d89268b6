// Parts that the kernels of crop_resize and crop_mean share.
#pragma once

#include "adafocus/crop_resize.h"
#include "cuda/channel_group.cuh"
#include "cuda/intrinsics.h"
#include "cuda/warp.cuh"

namespace adafocus {

template <class T>
AF_DEVICE T* typed(void* data) {
  return static_cast<T*>(data);
}

// Scale and shift of a channel; without any, those that leave pixels as they are.
template <class C>
AF_DEVICE C scale_of(const CropResize& p, int64_t c) {
  return p.affine ? static_cast<const C*>(p.affine)[c] : C(1);
}

template <class C>
AF_DEVICE C shift_of(const CropResize& p, int64_t c) {
  return p.affine ? static_cast<const C*>(p.affine)[p.frames.channels + c] : C(0);
}

// Pixel and a group of its channels, for one thread.
struct Item {
  uint32_t y, x, first_channel;
  int channels;
};

// Items of one image, numbered so that neighbouring threads touch neighbouring memory.
struct Items {
  uint32_t pixels, width, channels, groups;
  bool groups_first;

  AF_HD explicit Items(const ImageBatch& images) : Items(images, images.height, images.width) {}

  // Items of a part of an image.
  AF_HD Items(const ImageBatch& images, int64_t height, int64_t width)
      : pixels(uint32_t(height * width)),
        width(uint32_t(width)),
        channels(uint32_t(images.channels)),
        groups(uint32_t(divide_up(images.channels, kGroup))),
        groups_first(images.stride_c == 1) {}

  AF_HD int64_t count() const { return int64_t(pixels) * groups; }

  AF_DEVICE Item operator[](uint32_t item) const {
    const uint32_t group = groups_first ? item % groups : item / pixels;
    const uint32_t pixel = groups_first ? item / groups : item % pixels;
    const uint32_t first = group * kGroup;
    return {pixel / width, pixel % width, first, int(min_of<uint32_t>(kGroup, channels - first))};
  }
};

// The reason why no kernel can take a call, or null: images and boxes are numbered in 32 bits.
inline const char* why_not_launched(const CropResize& p) {
  const auto elements = [](const ImageBatch& images) {
    return double(images.height) * double(images.width) * double(images.channels);
  };
  if (elements(p.frames) > 4e9 || elements(p.patches) > 4e9)
    return "one frame or patch has more than 4e9 elements";
  if (p.frames.count > INT32_MAX || p.num_boxes() > INT32_MAX)
    return "there are more than 2^31 frames or boxes";
  return nullptr;
}

// Grid of (image, chunk of its items), with as many chunks as keep the threads of a block busy.
inline dim3 grid_over(int64_t images, int64_t items) {
  const int64_t blocks = clamp_to<int64_t>(divide_up(items, kThreads), 1, kMaxGridY);
  return dim3(unsigned(images), unsigned(blocks), 1);
}

// Sums over all threads of the block, in an order that never changes; thread 0 has the results.
template <class C, int kCount>
AF_DEVICE void block_sum(C (&sums)[kCount]) {
  AF_SHARED(C, of_warp, kCount * kWarps);  // [kCount, kWarps], each warp's first lane writes, thread 0 reads
  const int thread = thread_index();
  for (int n = 0; n < kCount; ++n) {
    sums[n] = warp_sum(sums[n]);
    if (thread % kWarp == 0) of_warp[n * kWarps + thread / kWarp] = sums[n];
  }
  __syncthreads();
  if (thread != 0) return;
  for (int n = 0; n < kCount; ++n) {
    for (int warp = 1; warp < kWarps; ++warp) sums[n] += of_warp[n * kWarps + warp];
  }
}

// Adds a pixel's part of the gradient of the box that reads it, (cy, cx, h, w); `value` is the pixel times
// the gradient of the output.
template <class C>
AF_DEVICE void add_pixel(C (&sums)[4], const Dual<C>& w_y, const Dual<C>& w_x, C value) {
  sums[0] += w_y.by_centre * w_x.value * value;
  sums[1] += w_y.value * w_x.by_centre * value;
  sums[2] += w_y.by_extent * w_x.value * value;
  sums[3] += w_y.value * w_x.by_extent * value;
}

// Sums the gradient of box k over the block and writes it.
template <class C>
AF_DEVICE void store_box_gradient(C (&sums)[4], C* d_boxes, int64_t k) {
  block_sum(sums);
  if (thread_index() != 0) return;
  for (int n = 0; n < 4; ++n) d_boxes[4 * k + n] = sums[n];
}

// Writes an item of the gradient of a frame, given the gradient of its normalised pixel.
template <class C>
AF_DEVICE void store_frame_gradient(const CropResize& p, int64_t frame, const Item& item,
                                    ChannelGroup<C> gradient) {
#pragma unroll
  for (int c = 0; c < kGroup; ++c) {
    if (c < item.channels) gradient[c] *= scale_of<C>(p, item.first_channel + c);
  }
  visit(p.frames.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* const out = typed<T>(p.frames.data) + p.frames.offset(frame) + item.first_channel * p.frames.stride_c +
                   item.y * p.frames.stride_y + item.x * p.frames.stride_x;
    store_group(gradient, out, p.frames.stride_c, item.channels);
  });
}

// Calls f(k) in all threads of a block for each valid box of frame n, in the order of the boxes.
template <class C, class F>
AF_DEVICE void for_each_box(const CropResize& p, int64_t n, const F& f) {
  const bool chained = p.index_type != IndexType::kNone;
  const int64_t alone = !chained && n < p.num_boxes() && p.box<C>(n).finite() ? n : -1;  // of that number
  for (int64_t k = chained ? p.chains.first[n] : alone; k >= 0; k = chained ? p.chains.next[k] : -1) f(k);
}

// True for images that are dense in one of the two layouts, as those that the library allocates are; a stride
// that nothing steps by may be any.
inline bool is_dense(const ImageBatch& images) {
  const int64_t c = images.channels, h = images.height, w = images.width;
  const auto steps = [](int64_t size, int64_t stride, int64_t to_next) {
    return size == 1 || stride == to_next;
  };
  const bool interleaved =
      steps(c, images.stride_c, 1) && steps(w, images.stride_x, c) && steps(h, images.stride_y, w * c);
  const bool planes =
      steps(w, images.stride_x, 1) && steps(h, images.stride_y, w) && steps(c, images.stride_c, h * w);
  return images.lead_dims == 1 && (interleaved || planes) &&
         steps(images.count, images.lead_stride[0], c * h * w);
}

}  // namespace adafocus

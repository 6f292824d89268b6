// The gradient of crop_resize by the boxes for frames of three channels: a block goes through its box strip
// by strip, and stages each scanline that a strip reads in shared memory once (staged_scanlines.cuh).
#include "cuda/crop_resize_kernels.h"
#include "cuda/staged_scanlines.cuh"

namespace adafocus {
namespace {

// Gradient of one output pixel by the stored values, and by what the shift adds to each of them.
struct PixelGradient {
  float by_value[kChannels];
  float by_shift;

  template <class G>
  AF_DEVICE PixelGradient(const G* from, int64_t stride_c, const float (&scale)[kChannels],
                          const float (&shift)[kChannels]) {
    by_shift = 0;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      by_value[c] = load_as<float>(from[c * stride_c]);
      by_shift += by_value[c] * shift[c];
      by_value[c] *= scale[c];
    }
  }
};

// Products of a pixel's gradient with the two pixels that its column reads of a scanline.
struct Products {
  float left, right;
};

template <class Scanlines>
AF_DEVICE Products project(const PixelGradient& gradient, const Scanlines& scanlines, int at,
                           const typename Scanlines::PixelPair& column) {
  float left[kChannels], right[kChannels];
  scanlines.read(at, column, left, right);
  Products products{0, 0};
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    products.left += gradient.by_value[c] * left[c];
    products.right += gradient.by_value[c] * right[c];
  }
  return products;
}

// Adds one output pixel's part of the gradient of the box, (cy, cx, h, w).
template <class PixelPair>
AF_DEVICE void add_output(float (&sums)[4], float by_shift, const Products& top, const Products& bottom,
                          const ScanlinePair& row, const Slopes& slopes, const PixelPair& column) {
  const float y1 = row.u1, x1 = column.u1;
  const float d_y = (1.0f - x1) * (bottom.left - top.left) + x1 * (bottom.right - top.right) +
                    by_shift * slopes.inside * column.inside;
  const float d_x = (1.0f - y1) * (top.right - top.left) + y1 * (bottom.right - bottom.left) +
                    by_shift * row.inside * column.slopes.inside;
  sums[0] += d_y;
  sums[1] += d_x;
  sums[2] += d_y * slopes.offset;
  sums[3] += d_x * column.slopes.offset;
}

// Adds the part of a strip of `count` output rows, whose gradient is `grad`.
template <class G, class Scanlines>
AF_DEVICE void add_strip(float (&sums)[4], const CropResize& p, const G* grad, int count,
                         const Scanlines& scanlines, const float (&scale)[kChannels],
                         const float (&shift)[kChannels]) {
  for_each_column(int(p.patches.width), [&](int j, int i, int step) {
    const typename Scanlines::PixelPair column = scanlines.column(j);
    const G* from = grad + i * p.patches.stride_y + j * p.patches.stride_x;
    for (; i < count; i += step, from += step * p.patches.stride_y) {
      const ScanlinePair row = scanlines.row(i);
      const Slopes slopes = scanlines.slopes(i);
      const PixelGradient gradient(from, p.patches.stride_c, scale, shift);
      const Products top = project(gradient, scanlines, row.at0, column);
      const Products bottom = project(gradient, scanlines, row.at1, column);
      add_output(sums, gradient.by_shift, top, bottom, row, slopes, column);
    }
  });
}

// Grid: one block for each box.
template <class T, bool kInterleaved>
__launch_bounds__(kThreads, 3) AF_KERNEL
    crop_resize_bwd_boxes_staged_kernel(const CropResize p, const StagedLayout layout, float* d_boxes) {
  using Scanlines = StagedScanlines<T, kInterleaved>;
  AF_SHARED(typename Scanlines::Tables, tables, 1);  // [1], the first warp plans and lanes stage, all read
  const int64_t k = blockIdx.x;
  float sums[4] = {};  // (cy, cx, h, w)
  if (p.valid<float>(k)) {
    const Scanlines scanlines(p, k, /*valid=*/true, layout, tables[0]);
    float scale[kChannels], shift[kChannels];
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      scale[c] = scale_of<float>(p, c);
      shift[c] = shift_of<float>(p, c);
    }
    for (int first = 0; first < int(p.patches.height); first += layout.strip) {
      const int count = min_of(layout.strip, int(p.patches.height) - first);
      scanlines.stage(first, count);
      __syncthreads();
      visit_small_float(p.patches.dtype, [&](auto tag) {
        using G = typename decltype(tag)::type;
        const G* const grad = typed<const G>(p.patches.data) + p.patch_offset(k) + first * p.patches.stride_y;
        add_strip(sums, p, grad, count, scanlines, scale, shift);
      });
      __syncthreads();  // the strip is read before the next one overwrites it
    }
  }
  store_box_gradient(sums, d_boxes, k);
}

}  // namespace

bool can_stage_bwd_boxes(const CropResize& p) { return staged_layout(p, /*with_output=*/false).strip > 0; }

const char* crop_resize_bwd_boxes_staged(const CropResize& p, void* d_boxes, void* stream) {
  const StagedLayout layout = staged_layout(p, /*with_output=*/false);
  return visit_staged_frames(p, [&](auto tag, auto interleaved) {
    const auto kernel = crop_resize_bwd_boxes_staged_kernel<typename decltype(tag)::type, interleaved()>;
    return launch(kernel, dim3(unsigned(p.num_boxes())), dim3(kThreads), staged_bytes(p, layout), stream, p,
                  layout, static_cast<float*>(d_boxes));
  });
}

}  // namespace adafocus

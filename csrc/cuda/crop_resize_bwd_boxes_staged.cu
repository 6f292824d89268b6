// The gradient of crop_resize by the boxes for frames of three channels.
#include "cuda/crop_resize_kernels.h"
#include "cuda/staged_rows.cuh"

namespace adafocus {
namespace {

// Grid: one block for each box, which goes through it strip by strip.
template <class T, bool kInterleaved>
__launch_bounds__(kThreads, 3) AF_KERNEL
    crop_resize_bwd_boxes_staged_kernel(const CropResize p, const StagedLayout layout, float* d_boxes) {
  using Rows = StagedRows<T, kInterleaved>;
  AF_SHARED(typename Rows::Tables, tables, 1);
  const int64_t k = blockIdx.x;
  float sums[4] = {};  // (cy, cx, h, w)
  if (p.valid<float>(k)) {
    const Rows rows(p, k, /*valid=*/true, layout, tables[0]);
    float scale[kChannels], shift[kChannels];
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      scale[c] = scale_of<float>(p, c);
      shift[c] = shift_of<float>(p, c);
    }
    for (int first = 0; first < int(p.patches.height); first += layout.strip) {
      const int count = min_of(layout.strip, int(p.patches.height) - first);
      rows.stage(first, count);
      __syncthreads();
      visit_staged_output(p.patches.dtype, [&](auto tag) {
        using G = typename decltype(tag)::type;
        const G* const grad = typed<const G>(p.patches.data) + p.patch_offset(k) + first * p.patches.stride_y;
        for_each_column(int(p.patches.width), [&](int j, int i, int step) {
          const typename Rows::Column column = rows.column(j);
          const G* from = grad + i * p.patches.stride_y + j * p.patches.stride_x;
          for (; i < count; i += step, from += step * p.patches.stride_y) {
            const typename Rows::Row row = rows.row(i);
            const typename Rows::RowSlopes slopes = rows.slopes(i);
            float g[kChannels], of_shift = 0;  // by the stored pixels, and by what the shift adds to each
#pragma unroll
            for (int c = 0; c < kChannels; ++c) {
              g[c] = load_as<float>(from[c * p.patches.stride_c]);
              of_shift += g[c] * shift[c];
              g[c] *= scale[c];
            }
            // The gradient's products with the two pixels of a row.
            const auto project = [&](int at, float& at_left, float& at_right) {
              float left[kChannels], right[kChannels];
              rows.read(at, column, left, right);
              at_left = at_right = 0;
#pragma unroll
              for (int c = 0; c < kChannels; ++c) {
                at_left += g[c] * left[c];
                at_right += g[c] * right[c];
              }
            };
            float top_left, top_right, bottom_left, bottom_right;
            project(row.at0, top_left, top_right);
            project(row.at1, bottom_left, bottom_right);
            const float y1 = row.u1, x1 = column.u1;
            const float d_y = (1.0f - x1) * (bottom_left - top_left) + x1 * (bottom_right - top_right) +
                              of_shift * slopes.inside * column.inside;
            const float d_x = (1.0f - y1) * (top_right - top_left) + y1 * (bottom_right - bottom_left) +
                              of_shift * row.inside * column.slopes.inside;
            sums[0] += d_y;
            sums[1] += d_x;
            sums[2] += d_y * slopes.offset;
            sums[3] += d_x * column.slopes.offset;
          }
        });
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
  return with_frames(p, [&](auto type, auto interleaved) {
    const auto kernel = crop_resize_bwd_boxes_staged_kernel<typename decltype(type)::type,
                                                            decltype(interleaved)::type::value>;
    return launch(kernel, dim3(unsigned(p.num_boxes())), dim3(kThreads), staged_bytes(p, layout), stream, p,
                  layout, static_cast<float*>(d_boxes));
  });
}

}  // namespace adafocus

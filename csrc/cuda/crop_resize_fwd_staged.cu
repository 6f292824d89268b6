// The forward of crop_resize for frames of three channels.
#include "cuda/crop_resize_kernels.h"
#include "cuda/staged_rows.cuh"

namespace adafocus {
namespace {

// The patch's rows of a strip, collected in shared memory and written in 16-byte pieces.
template <class T>
class StagedOutput {
 public:
  AF_DEVICE StagedOutput(const CropResize& p, int64_t k, int first, int count, int pitch,
                         unsigned char* shared)
      : interleaved_(p.patches.stride_c == 1), out_w_(int(p.patches.width)), pitch_(pitch), shared_(shared) {
    const int64_t start = p.patch_offset(k) + first * p.patches.stride_y;
    to_ = static_cast<unsigned char*>(p.patches.data) + start * int64_t(sizeof(T));
    plane_ = p.patches.stride_c * int64_t(sizeof(T));
    bytes_ = count * out_w_ * (interleaved_ ? kChannels : 1) * int(sizeof(T));
  }

  AF_DEVICE void set(int i, int j, const float (&value)[kChannels]) const {
    const int pixel = i * out_w_ + j;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      unsigned char* const at =
          interleaved_ ? run(0) + (pixel * kChannels + c) * int(sizeof(T)) : run(c) + pixel * int(sizeof(T));
      *reinterpret_cast<T*>(at) = Store<T>::from(value[c]);
    }
  }

  // After a barrier.
  AF_DEVICE void write() const {
    for (int c = 0; c < (interleaved_ ? 1 : kChannels); ++c) unstage_bytes(to_ + c * plane_, run(c), bytes_);
  }

 private:
  AF_DEVICE unsigned char* run(int c) const {
    return shared_ + c * pitch_ + int(reinterpret_cast<uintptr_t>(to_ + c * plane_) & 15);
  }

  bool interleaved_;
  int out_w_, pitch_, bytes_;
  unsigned char *shared_, *to_;
  int64_t plane_;
};

// Grid: the strips of all boxes, those of a box side by side.
template <class T, bool kInterleaved>
__launch_bounds__(kThreads, 4) AF_KERNEL
    crop_resize_fwd_staged_kernel(const CropResize p, const StagedLayout layout, unsigned strips) {
  using Rows = StagedRows<T, kInterleaved>;
  AF_SHARED(typename Rows::Row, row_table, kMaxStrip);
  AF_SHARED(int, row_of_slot, Rows::kMaxRows + 1);
  AF_SHARED(int, segment_at, Rows::kMaxRows* Rows::kSegments);
  const int64_t k = blockIdx.x / strips;
  const int first = int(blockIdx.x % strips) * layout.strip;
  const int count = min_of(layout.strip, int(p.patches.height) - first);
  const bool valid = p.valid<float>(k);
  const Rows rows(p, k, valid ? p.frame_of(k) : 0, layout, row_table, row_of_slot, segment_at);
  if (valid) rows.stage(first, count);
  __syncthreads();
  float scale[kChannels], shift[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    scale[c] = scale_of<float>(p, c);
    shift[c] = shift_of<float>(p, c);
  }
  visit_staged_output(p.patches.dtype, [&](auto tag) {
    using Out = typename decltype(tag)::type;
    const StagedOutput<Out> out(p, k, first, count, layout.out_pitch, dynamic_shared() + layout.bytes(0));
    for_each_output(count, layout.out_w, [&](int i, int j) {
      float sums[kChannels] = {}, inside = 0;
      if (valid) {
        const typename Rows::Row row = rows.row(i);
        const typename Rows::Column column = rows.column(j);
        const float x1 = column.tap.u1, x0 = 1.0f - x1;
        const float inside_x = (column.tap.inside0() ? x0 : 0.0f) + (column.tap.inside1() ? x1 : 0.0f);
        const auto add = [&](int slot, float weight) {
          float left[kChannels], right[kChannels];
          rows.read(slot, column, left, right);
#pragma unroll
          for (int c = 0; c < kChannels; ++c) sums[c] += weight * (x0 * left[c] + x1 * right[c]);
          inside += weight * inside_x;
        };
        if (row.tap.inside0()) add(row.slot0, 1.0f - row.tap.u1);
        if (row.tap.inside1()) add(row.slot1, row.tap.u1);
      }
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        sums[c] = valid ? scale[c] * sums[c] + shift[c] * inside : __builtin_nanf("");
      }
      out.set(i, j, sums);
    });
    __syncthreads();
    out.write();
  });
}

int64_t strips_of(const CropResize& p, const StagedLayout& layout) {
  return (p.patches.height + layout.strip - 1) / layout.strip;
}

}  // namespace

bool can_stage_fwd(const CropResize& p) {
  const StagedLayout layout = staged_layout(p, /*with_output=*/true);
  return layout.strip > 0 && is_dense(p.patches) && p.num_boxes() * strips_of(p, layout) <= INT32_MAX;
}

const char* crop_resize_fwd_staged(const CropResize& p, void* stream) {
  const StagedLayout layout = staged_layout(p, /*with_output=*/true);
  const unsigned strips = unsigned(strips_of(p, layout));
  return with_frames(p, [&](auto type, auto interleaved) {
    const auto kernel =
        crop_resize_fwd_staged_kernel<typename decltype(type)::type, decltype(interleaved)::type::value>;
    return launch(kernel, dim3(unsigned(p.num_boxes()) * strips), dim3(kThreads), staged_bytes(p, layout),
                  stream, p, layout, strips);
  });
}

}  // namespace adafocus

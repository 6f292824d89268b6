// The forward of crop_resize for frames of three channels.
#include "cuda/crop_resize_kernels.h"
#include "cuda/staged_rows.cuh"

namespace adafocus {
namespace {

// The patch's rows of a strip, collected in shared memory and written in 16-byte pieces.
template <class T>
class StagedOutput {
 public:
  AF_DEVICE StagedOutput(const CropResize& p, int64_t k, int first, int count, const StagedLayout& layout)
      : interleaved_(p.patches.stride_c == 1),
        out_w_(layout.out_w),
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

  AF_DEVICE void set(int i, int j, const float (&value)[kChannels]) const {
    unsigned char* const pixel = shared_ + (i * out_w_ + j) * step_;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) *reinterpret_cast<T*>(pixel + at_[c]) = Store<T>::from(value[c]);
  }

  AF_DEVICE void write() const {
    __syncthreads();
    if (interleaved_) return unstage_bytes(to_, shared_ + at_[0], bytes_);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) unstage_bytes(to_ + c * plane_, shared_ + at_[c], bytes_);
  }

 private:
  bool interleaved_;
  int out_w_, step_, bytes_, at_[kChannels];
  unsigned char *shared_, *to_;
  int64_t plane_;
};

// Grid: the strips of all boxes, those of a box side by side.
template <class T, bool kInterleaved>
__launch_bounds__(kThreads, 4) AF_KERNEL
    crop_resize_fwd_staged_kernel(const CropResize p, const StagedLayout layout, unsigned strips) {
  using Rows = StagedRows<T, kInterleaved>;
  AF_SHARED(typename Rows::Tables, tables, 1);
  const int64_t k = blockIdx.x / strips;
  const int first = int(blockIdx.x % strips) * layout.strip;
  const int count = min_of(layout.strip, int(p.patches.height) - first);
  if (!p.valid<float>(k)) {
    visit_staged_output(p.patches.dtype, [&](auto tag) {
      const StagedOutput<typename decltype(tag)::type> out(p, k, first, count, layout);
      const float nan[kChannels] = {__builtin_nanf(""), __builtin_nanf(""), __builtin_nanf("")};
      for_each_output(count, layout.out_w, [&](int i, int j) { out.set(i, j, nan); });
      out.write();
    });
    return;
  }
  const Rows rows(p, k, p.frame_of(k), layout, tables[0]);
  rows.stage(first, count);
  __syncthreads();
  float scale[kChannels], shift[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    scale[c] = scale_of<float>(p, c);
    shift[c] = shift_of<float>(p, c);
  }
  visit_staged_output(p.patches.dtype, [&](auto tag) {
    const StagedOutput<typename decltype(tag)::type> out(p, k, first, count, layout);
    for_each_output(count, layout.out_w, [&](int i, int j) {
      const typename Rows::Row row = rows.row(i);
      const typename Rows::Column column = rows.column(j);
      float top[kChannels] = {}, bottom[kChannels] = {};
      if (row.at0 >= 0) rows.blend(row.at0, column, top);
      if (row.at1 >= 0) rows.blend(row.at1, column, bottom);
      const float u0 = 1.0f - row.u1, inside_y = (row.at0 >= 0 ? u0 : 0.0f) + (row.at1 >= 0 ? row.u1 : 0.0f);
      const float inside = inside_y * column.inside;
      float value[kChannels];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        value[c] = scale[c] * (u0 * top[c] + row.u1 * bottom[c]) + shift[c] * inside;
      }
      out.set(i, j, value);
    });
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

// temporal_shift on CUDA: a copy that picks the frame of every 16 bytes (dense frames) or of every element
// (any). ADAFOCUS_CUDA_KERNEL=any in the environment takes the latter for every call (kernel_choice.h).
#include "adafocus/strided_block.h"
#include "adafocus/temporal_shift.h"
#include "cuda/kernel_choice.h"
#include "cuda/move_elements.cuh"

namespace adafocus {
namespace {

// Frames that the groups of channels of a frame come from: null for zeros.
template <class T>
struct Sources {
  const T* frame[kShiftGroups];

  AF_DEVICE Sources(const TemporalShift& p, uint32_t n) {
    const uint32_t t = n % uint32_t(p.num_frames);
#pragma unroll
    for (int group = 0; group < kShiftGroups; ++group) {
      const int64_t source = p.source(n, t, group);
      frame[group] = source < 0 ? nullptr : static_cast<const T*>(p.from.data) + p.from_offset(source);
    }
  }

  AF_DEVICE const T* of(int group) const { return group == 0 ? frame[0] : group == 1 ? frame[1] : frame[2]; }
};

// Group of channel i; each group has `fold` channels but the last.
AF_DEVICE int group_of(uint32_t i, uint32_t fold) { return i < fold ? 0 : i < 2 * fold ? 1 : 2; }

// Pieces of 16 bytes: the channels from `first` on, from the frame of each group that has one of them.
struct Pieces {
  uint32_t first;
  Bytes16 from[kShiftGroups];
};

// Mask of the elements before number `end` in a word of elements of kBytes that begins with number `begin`.
template <int kBytes>
AF_DEVICE uint32_t bits_before(int end, int begin) {
  const int bits = clamp_to(8 * kBytes * (end - begin), 0, 32);
  return bits < 32 ? (1u << bits) - 1 : ~0u;
}

// For frames that are dense in the same order on both sides: `repeats` times `period` elements, in which the
// groups are runs of `fold`, `fold` and the rest. (Interleaved channels repeat in every pixel; planes are one
// repeat.) 16 bytes at a time, which a period has a whole number of. Grid: (frame, chunk of it).
template <int kBytes>
__launch_bounds__(kThreads) AF_KERNEL
    temporal_shift_fwd_dense_kernel(const TemporalShift p, uint32_t period, uint32_t fold, uint32_t vectors) {
  using T = element_t<kBytes>;
  constexpr int kElements = 16 / kBytes;
  const Sources<T> sources(p, blockIdx.x);
  T* const to = static_cast<T*>(p.to.data) + p.to_offset(blockIdx.x);
  const auto load = [&](uint32_t v) {
    const uint32_t at = v * kElements;
    Pieces pieces;
    pieces.first = at % period;
    const int first_group = group_of(pieces.first, fold);
    const int last_group = group_of(pieces.first + kElements - 1, fold);
#pragma unroll
    for (int group = 0; group < kShiftGroups; ++group) {
      const bool has = first_group <= group && group <= last_group && sources.frame[group];
      pieces.from[group] = has ? load_16(sources.frame[group] + at) : Bytes16{};
    }
    return pieces;
  };
  const auto store = [&](uint32_t v, const Pieces& pieces) {
    // Numbers of elements that come before the second group's, and before the rest.
    const int second = clamp_to(int(fold) - int(pieces.first), 0, kElements);
    const int rest = clamp_to(int(2 * fold) - int(pieces.first), 0, kElements);
    Bytes16 out;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const uint32_t before_second = bits_before<kBytes>(second, 4 * w / kBytes);
      const uint32_t before_rest = bits_before<kBytes>(rest, 4 * w / kBytes);
      const uint32_t shifted =
          (pieces.from[0].word[w] & before_second) | (pieces.from[1].word[w] & ~before_second);
      out.word[w] = (shifted & before_rest) | (pieces.from[2].word[w] & ~before_rest);
    }
    store_16(to + v * kElements, out);
  };
  move_elements(vectors, load, store);
}

// For any frames. Grid: (frame, chunk of it).
template <int kBytes>
__launch_bounds__(kThreads) AF_KERNEL temporal_shift_fwd_any_kernel(const TemporalShift p, uint32_t count) {
  using T = element_t<kBytes>;
  const Sources<T> sources(p, blockIdx.x);
  T* const to = static_cast<T*>(p.to.data) + p.to_offset(blockIdx.x);
  const uint32_t channels = uint32_t(p.to.channels), width = uint32_t(p.to.width);
  const uint32_t pixels = uint32_t(p.to.height) * width;
  const bool interleaved = p.to.stride_c == 1;
  const auto load = [&](uint32_t i) {
    const uint32_t c = interleaved ? i % channels : i / pixels;
    const uint32_t pixel = interleaved ? i / channels : i % pixels;
    const T* const frame = sources.of(group_of(c, uint32_t(p.fold)));
    return frame ? frame[c * p.from.stride_c + pixel / width * p.from.stride_y +
                         pixel % width * p.from.stride_x]
                 : T(0);
  };
  move_elements(count, load, [&](uint32_t i, T value) { to[i] = value; });
}

// True if both sides of a frame are the same run of memory, in 16 bytes that the groups' period is made of.
bool is_dense(const TemporalShift& p, int64_t period, int64_t elements) {
  StridedDim dims[] = {{p.to.channels, p.from.stride_c, p.to.stride_c},
                       {p.to.height, p.from.stride_y, p.to.stride_y},
                       {p.to.width, p.from.stride_x, p.to.stride_x}};
  int64_t misaligned = period % elements;
  for (const ImageBatch& images : {p.from, p.to}) {
    misaligned |= int64_t(reinterpret_cast<uintptr_t>(images.data) % 16) | images.lead_stride[0] % elements;
  }
  return merged_block(dims, 3).is_run() && misaligned == 0;
}

template <int kBytes>
const char* fwd(const TemporalShift& p, void* stream) {
  constexpr int64_t kElements = 16 / kBytes;
  const int64_t pixels = p.to.height * p.to.width, count = pixels * p.to.channels;
  if (count > kMaxMoved || p.to.count > INT32_MAX)
    return "there are more than 2^31 frames or elements in one";
  const auto grid = [&](int64_t moves) { return dim3(unsigned(p.to.count), move_blocks(moves, kThreads)); };
  const int64_t repeats = p.to.stride_c == 1 ? pixels : 1, planes = pixels / repeats;
  const int64_t period = planes * p.to.channels, vectors = count / kElements;
  const auto dense = [&] {
    return launch(temporal_shift_fwd_dense_kernel<kBytes>, grid(vectors), dim3(kThreads), 0, stream, p,
                  uint32_t(period), uint32_t(planes * p.fold), uint32_t(vectors));
  };
  const auto any = [&] {
    return launch(temporal_shift_fwd_any_kernel<kBytes>, grid(count), dim3(kThreads), 0, stream, p,
                  uint32_t(count));
  };
  return launch_fast_or_any(is_dense(p, period, kElements), dense, any);
}

}  // namespace

const char* temporal_shift_fwd_cuda(const TemporalShift& p, void* stream) {
  if (p.to.count * p.to.channels * p.to.height * p.to.width == 0) return nullptr;
  return visit_bytes<2, 4, 8>(size_of(p.to.dtype), [&](auto bytes) { return fwd<bytes>(p, stream); });
}

}  // namespace adafocus

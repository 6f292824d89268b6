// expected_value on CUDA: the gradient of the weights.
#include "cuda/expected_value.cuh"

namespace adafocus {
namespace {

// Writes dot [T] = <g_b, v_{b, t}>; `gradient` [gradient_size] has room for a part of g_b. `width` lanes
// share an item.
template <class C>
AF_DEVICE void multiply_values(const ExpectedValue& p, int64_t b, const Matrix& grad, C* gradient,
                               int gradient_size, C* dot) {
  const int items = int(p.weights.columns), lane = threadIdx.x;
  const int width = threads_across(p.depth, kWarp);
  const int together = thread_count() / width;
  for (int t = thread_index(); t < items; t += thread_count()) dot[t] = C(0);
  for (int64_t start = 0; start < p.depth; start += gradient_size) {
    const int count = int(min_of<int64_t>(p.depth - start, gradient_size));
    __syncthreads();  // the last part has been read
    visit(grad.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* const from = static_cast<const T*>(grad.data) + grad.offset(b, start);
      for (int d = thread_index(); d < count; d += thread_count()) {
        gradient[d] = load_as<C>(from[d * grad.column_stride]);
      }
    });
    __syncthreads();
    visit(p.values_dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      for (int base = 0; base < items; base += together) {
        const int t = base + thread_index() / width;
        const T* const from = static_cast<const T*>(p.values) + b * p.value_strides[0] +
                              t * p.value_strides[1] + start * p.value_strides[2];
        C sum = 0;
        for (int d = lane % width * kGroup; d < count && t < items; d += width * kGroup) {
          const int channels = min_of(count - d, kGroup);
          const ChannelGroup<C> value =
              load_group<C>(from + d * p.value_strides[2], p.value_strides[2], channels);
#pragma unroll
          for (int c = 0; c < kGroup; ++c) {
            if (c < channels) sum += value[c] * gradient[d + c];
          }
        }
        for (int distance = width / 2; distance > 0; distance /= 2) {
          sum += __shfl_xor_sync(kAllLanes, sum, distance);
        }
        if (t < items && lane % width == 0) dot[t] += sum;
      }
    });
  }
  __syncthreads();
}

// Grid: one block for each row.
template <class C, int R>
__launch_bounds__(kWarp* kRowWarps<R>, 1) AF_KERNEL
    expected_value_bwd_weights_kernel(const ExpectedValue p, const Matrix grad, bool normaliser_grad,
                                      const Matrix d_weights) {
  AF_SHARED(C, weight, kWarp * R);    // [T, then zeros], all threads write and read
  AF_SHARED(C, dot, kWarp * R);       // [T]: <g, v>, then w <g, v>, all threads write and read
  AF_SHARED(C, d_weight, kWarp * R);  // [T, then zeros], each item's by one thread at a time
  AF_SHARED(ChannelGroup<C>, partial, kWarp * kRowWarps<R>);  // [threads], all threads write and read
  const int64_t b = blockIdx.x;
  const int items = int(p.weights.columns);
  const C* const q = static_cast<const C*>(p.coefficients) + b * items;
  load_weights(p.weights, b, kWarp * R, weight);
  multiply_values(p, b, grad, reinterpret_cast<C*>(partial), kWarp * kRowWarps<R> * kGroup, dot);
  for (int t = thread_index(); t < kWarp * R; t += thread_count()) {
    d_weight[t] = t < items ? q[t] * dot[t] : C(0);
    dot[t] = t < items ? dot[t] * weight[t] : C(0);
  }
  __syncthreads();
  if (normaliser_grad && p.num_samples > 0) {
    C sum[R] = {};
    for_each_step<R>(p, b, weight, [&](const WarpRace<R>& race, InverseRest<C> inverse) {
      const C slope = race.sum_of_left(dot) * inverse.slope;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        if (!race.is_left(r)) sum[r] += slope;
      }
    });
    const C steps = C(p.num_samples) * C(p.k);
    sum_over_warps(sum, items, partial, [&](int t, C total) { d_weight[t] += total / steps; });
  } else if (normaliser_grad && p.k == 2) {
    for (int t = thread_index(); t < items; t += thread_count()) {
      const C slope = inverse_without(weight, items, t).slope;
      d_weight[t] += weight[t] * sum_of_others(dot, items, t) * slope / 2;
    }
  }
  visit(d_weights.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int t = thread_index(); t < items; t += thread_count()) {
      const T raw = static_cast<const T*>(p.weights.data)[p.weights.offset(b, t)];
      const bool counts = load_as<C>(raw) >= C(0);
      static_cast<T*>(d_weights.data)[d_weights.offset(b, t)] = Store<T>::from(counts ? d_weight[t] : C(0));
    }
  });
}

}  // namespace

const char* expected_value_bwd_weights_cuda(const ExpectedValue& p, const Matrix& grad, bool normaliser_grad,
                                            const Matrix& d_weights, void* stream) {
  if (p.weights.rows == 0) return nullptr;
  return visit_row(p, [&](auto tag, auto items) {
    return launch(expected_value_bwd_weights_kernel<typename decltype(tag)::type, items()>,
                  dim3(unsigned(p.weights.rows)), dim3(kWarp, kRowWarps<items()>), 0, stream, p, grad,
                  normaliser_grad, d_weights);
  });
}

}  // namespace adafocus

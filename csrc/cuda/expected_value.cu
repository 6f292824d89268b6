// expected_value on CUDA: forward, and the gradient of the values.
#include "cuda/expected_value.cuh"

namespace adafocus {
namespace {

// Writes out[b, :] = sum over t of share[t] v[b, t, :]. The threads are a table of `columns` groups of the
// depth by slices of the items.
template <class C>
AF_DEVICE void weigh_values(const ExpectedValue& p, int64_t b, const C* share, ChannelGroup<C>* partial,
                            const Matrix& out) {
  const int threads = thread_count(), thread = thread_index();
  const int columns = threads_across(p.depth, threads), slices = threads / columns;
  for (int64_t start = 0; start < p.depth; start += columns * kGroup) {
    const int64_t first = start + thread % columns * kGroup;
    const int count = int(clamp_to<int64_t>(p.depth - first, 0, kGroup));
    ChannelGroup<C> sum{};
    visit(p.values_dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* const from =
          static_cast<const T*>(p.values) + b * p.value_strides[0] + first * p.value_strides[2];
#pragma unroll 4
      for (int t = thread / columns; t < int(p.weights.columns); t += slices) {
        const ChannelGroup<C> value = load_group<C>(from + t * p.value_strides[1], p.value_strides[2], count);
#pragma unroll
        for (int c = 0; c < kGroup; ++c) sum[c] += share[t] * value[c];
      }
    });
    partial[thread] = sum;
    for (int half = threads / 2; half >= columns; half /= 2) {
      __syncthreads();
      if (thread >= half) continue;
      partial[thread] = partial[thread] + partial[thread + half];
    }
    if (thread < columns) {
      visit(out.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        store_group(partial[thread], static_cast<T*>(out.data) + out.offset(b, first), out.column_stride,
                    count);
      });
    }
    // (Where there are next ones, a thread's sum is its own: there are as many columns as threads.)
  }
}

// Grid: one block for each row.
template <class C, int R>
__launch_bounds__(kWarp* kRowWarps<R>, 1) AF_KERNEL
    expected_value_fwd_kernel(const ExpectedValue p, const Matrix out) {
  AF_SHARED(C, weight, kWarp * R);  // [T, then zeros], all threads write and read
  AF_SHARED(C, share, kWarp * R);   // [T]: q w, all threads write and read
  AF_SHARED(C, odds, kWarp * R);    // [T]: w / S of the step after the item, all threads write and read
  AF_SHARED(ChannelGroup<C>, partial, kWarp * kRowWarps<R>);  // [threads], each writes its own, others add it
  const int64_t b = blockIdx.x;
  const int items = int(p.weights.columns);
  C* const q = static_cast<C*>(p.coefficients) + b * items;
  const auto keep = [&](int t, C value) {
    q[t] = value;
    share[t] = value * weight[t];
  };
  load_weights(p.weights, b, kWarp * R, weight);
  __syncthreads();
  if (p.num_samples > 0) {
    C sum[R] = {};
    for_each_step<R>(p, b, weight, [&](const WarpRace<R>& race, InverseRest<C> inverse) {
#pragma unroll
      for (int r = 0; r < R; ++r) {
        if (race.is_left(r)) sum[r] += inverse.value;
      }
    });
    const C samples = C(p.num_samples), k = C(p.k);
    sum_over_warps(sum, items, partial, [&](int t, C total) { keep(t, (samples + total) / (samples * k)); });
  } else {
    for (int t = thread_index(); t < items; t += thread_count()) {
      odds[t] = p.k == 1 ? C(1) : weight[t] * inverse_without(weight, items, t).value;
    }
    __syncthreads();
    for (int t = thread_index(); t < items; t += thread_count()) {
      keep(t, p.k == 1 ? C(1) : (1 + sum_of_others(odds, items, t)) / 2);
    }
    __syncthreads();
  }
  weigh_values(p, b, share, partial, out);
}

// Grid: (rows [b, t], groups of the depth); the threads are a table of `columns` groups by rows.
template <class C>
__launch_bounds__(kThreads, 1) AF_KERNEL
    expected_value_bwd_values_kernel(const ExpectedValue p, const Matrix grad, void* d_values) {
  const int64_t row = int64_t(blockIdx.x) * blockDim.y + threadIdx.y, items = p.weights.columns;
  if (row >= p.weights.rows * items) return;
  const int64_t b = row / items, t = row % items;
  C share = static_cast<const C*>(p.coefficients)[row];
  visit(p.weights.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T weight = static_cast<const T*>(p.weights.data)[p.weights.offset(b, t)];
    share *= C(clean_weight(load_as<compute_t<T>>(weight)));
  });
  for (int64_t first = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * kGroup; first < p.depth;
       first += int64_t(gridDim.y) * blockDim.x * kGroup) {
    const int count = int(min_of<int64_t>(p.depth - first, kGroup));
    ChannelGroup<C> value{};
    visit(grad.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      value =
          load_group<C>(static_cast<const T*>(grad.data) + grad.offset(b, first), grad.column_stride, count);
    });
#pragma unroll
    for (int c = 0; c < kGroup; ++c) value[c] *= share;
    visit(p.values_dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      store_group(value, static_cast<T*>(d_values) + row * p.depth + first, 1, count);
    });
  }
}

template <class C>
const char* bwd_values(const ExpectedValue& p, const Matrix& grad, void* d_values, void* stream) {
  const int columns = threads_across(p.depth, kThreads), rows = kThreads / columns;
  const int64_t wide = columns * kGroup;
  const dim3 grid(unsigned((p.weights.rows * p.weights.columns + rows - 1) / rows),
                  unsigned(min_of((p.depth + wide - 1) / wide, kMaxGridY)));
  return launch(expected_value_bwd_values_kernel<C>, grid, dim3(unsigned(columns), unsigned(rows)), 0, stream,
                p, grad, d_values);
}

}  // namespace

const char* expected_value_fwd_cuda(const ExpectedValue& p, const Matrix& out, void* stream) {
  if (p.weights.rows == 0) return nullptr;
  return visit_row(p, [&](auto tag, auto items) {
    return launch(expected_value_fwd_kernel<typename decltype(tag)::type, items()>,
                  dim3(unsigned(p.weights.rows)), dim3(kWarp, kRowWarps<items()>), 0, stream, p, out);
  });
}

const char* expected_value_bwd_values_cuda(const ExpectedValue& p, const Matrix& grad, void* d_values,
                                           void* stream) {
  if (p.weights.rows * p.weights.columns * p.depth == 0) return nullptr;
  return visit_compute(p.double_precision, [&](auto tag) {
    return bwd_values<typename decltype(tag)::type>(p, grad, d_values, stream);
  });
}

}  // namespace adafocus

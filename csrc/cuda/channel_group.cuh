// Groups of four channels (of a pixel, or of the depth of a value) that one thread works on, moved by one
// instruction where memory allows it.
#pragma once

#include "adafocus/dtype.h"
#include "cuda/launch.h"

namespace adafocus {

constexpr int kGroup = 4;  // channels

// Threads that share the groups of so many channels: a power of two up to `most`, which is one.
AF_HD int threads_across(int64_t channels, int most) {
  int threads = 1;
  while (threads < most && int64_t(threads) * kGroup < channels) threads *= 2;
  return threads;
}

// Channels of a group in registers; those beyond the last channel of the pixel are zero. In shared memory it
// is read and written as a whole: lanes that take one word each would want every fourth bank.
template <class C>
struct alignas(16) ChannelGroup {
  C value[kGroup];
  AF_DEVICE C& operator[](int c) { return value[c]; }
  AF_DEVICE const C& operator[](int c) const { return value[c]; }
};

template <class C>
AF_DEVICE ChannelGroup<C> operator+(ChannelGroup<C> a, ChannelGroup<C> b) {
#pragma unroll
  for (int c = 0; c < kGroup; ++c) a[c] += b[c];
  return a;
}

// Group in memory, moved by one instruction (double: two).
template <class T>
struct alignas(sizeof(T) == 8 ? 16 : kGroup * sizeof(T)) PackedGroup {
  T value[kGroup];
};

template <class T>
AF_DEVICE bool is_packed(const T* at, int64_t stride_c, int channels) {
  return stride_c == 1 && channels == kGroup &&
         reinterpret_cast<uintptr_t>(at) % alignof(PackedGroup<T>) == 0;
}

template <class C, class T>
AF_DEVICE ChannelGroup<C> load_group(const T* from, int64_t stride_c, int channels) {
  ChannelGroup<C> group{};
  if (is_packed(from, stride_c, channels)) {
    const PackedGroup<T> packed = *reinterpret_cast<const PackedGroup<T>*>(from);
#pragma unroll
    for (int c = 0; c < kGroup; ++c) group[c] = load_as<C>(packed.value[c]);
  } else {
#pragma unroll
    for (int c = 0; c < kGroup; ++c) {
      if (c < channels) group[c] = load_as<C>(from[c * stride_c]);
    }
  }
  return group;
}

template <class C, class T>
AF_DEVICE void store_group(const ChannelGroup<C>& group, T* to, int64_t stride_c, int channels) {
  if (is_packed(to, stride_c, channels)) {
    PackedGroup<T> packed;
#pragma unroll
    for (int c = 0; c < kGroup; ++c) packed.value[c] = Store<T>::from(group[c]);
    *reinterpret_cast<PackedGroup<T>*>(to) = packed;
  } else {
#pragma unroll
    for (int c = 0; c < kGroup; ++c) {
      if (c < channels) to[c * stride_c] = Store<T>::from(group[c]);
    }
  }
}

}  // namespace adafocus

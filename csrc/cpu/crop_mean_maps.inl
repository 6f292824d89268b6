// crop_mean of frames of many channels (maps) on the CPU. Both passes read the pixels of a box once and write
// next to nothing:
//
//   forward            out[c] = sum over r, s of w_y[r] w_x[s] v[c, r, s]
//   gradient of boxes  all four numbers are sums over r, s of weights times u[r, s], the sum over c of
//                      gradient[c] v[c, r, s]
//
// so there is one of two loops a pass, by whether channels lie side by side or apart.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafocus/image_batch.h"
#include "cpu/isa.h"
#include "cpu/lanes.inl"
#include "cpu/map_sums.inl"
#include "cpu/scanline_io.inl"
#include "cpu/scanline_sums.inl"
#include "cpu/scratch.h"

namespace adafocus {
namespace AF_ISA {
namespace {

// The sums of boxes whose pixels are y.pixel x x.pixel, on maps whose channels lie side by side.
template <class C>
struct PixelSums {
  const ImageBatch& frames;
  const WeightedPixels<C>&y, &x;

  static bool suits(const ImageBatch& frames) { return frames.stride_c == 1 && frames.channels >= 64; }

  // Calls f(n, b, pixels) for pixels [b, b + n) of scanline y.pixel[a] of the frame at `offset`, with
  // pixels [kPixelsTogether], the last of which is repeated.
  template <class F>
  void for_each_pixels(int64_t offset, int64_t a, const F& f) const {
    visit(frames.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* const scanline = static_cast<const T*>(frames.data) + offset + y.pixel[a] * frames.stride_y;
      for (int64_t b = 0; b < x.count; b += kPixelsTogether) {
        const T* pixel[kPixelsTogether];
        for (int64_t j = 0; j < kPixelsTogether; ++j) {
          pixel[j] = scanline + x.pixel[min_of(b + j, x.count - 1)] * frames.stride_x;
        }
        f(min_of(kPixelsTogether, x.count - b), b, pixel);
      }
    });
  }

  // out [C] = the sums over pixels
  void sum_pixels(int64_t offset, C* out) const {
    memset(out, 0, frames.channels * sizeof(C));
    for (int64_t a = 0; a < y.count; ++a) {
      for_each_pixels(offset, a, [&](int64_t n, int64_t b, const auto* pixel) {
        C weight[kPixelsTogether];
        for (int64_t j = 0; j < n; ++j) weight[j] = y.weight[kValue][a] * x.weight[kValue][b + j];
        visit_int<4, 3, 2, 1>(
            n, [&](auto count) { add_weighted_pixels<count.value>(pixel, weight, frames.channels, out); });
      });
    }
  }

  // Calls f(a, sums [x.count]) with the sums over channels, each times its factor, of every scanline.
  template <class F>
  void sum_channels(int64_t offset, const C* factor, double* sums, const F& f) const {
    for (int64_t a = 0; a < y.count; ++a) {
      for_each_pixels(offset, a, [&](int64_t n, int64_t b, const auto* pixel) {
        double dots[kPixelsTogether];
        dot_pixels(pixel, factor, frames.channels, dots);
        for (int64_t j = 0; j < n; ++j) sums[b + j] = dots[j];
      });
      f(a, sums);
    }
  }
};

// The same on maps whose channels lie apart. A run is of all scanlines at once where that takes no more
// vectors than one scanline after the other, as on a map of 7 x 7.
template <class C>
class RunSums {
 public:
  RunSums(Scratch& scratch, const ImageBatch& images, const WeightedPixels<C>& w_y,
          const WeightedPixels<C>& w_x)
      : frames_(images), y_(w_y), x_(w_x) {
    const int64_t most = suits(images) ? max_of(images.width, kMostTogether) + kWide<C> : 0;
    weight_ = scratch.take<C>(most);
    mask_ = scratch.take<mask_t<C>>(most);
    sums_ = scratch.take<C>(most);
    totals_ = scratch.take<double>(most);
    for (C*& run : buffer_) {
      run = scratch.take<C>(most);
      memset(run, 0, most * sizeof(C));
    }
  }

  static bool suits(const ImageBatch& frames) { return frames.stride_c != 1 && frames.channels > kLanes; }

  // True if a run of the box would not be mostly gaps. A box that reads nothing has no runs.
  bool set_box() {
    scanlines_ = x_.count > 0 ? y_.count : 0;
    if (scanlines_ == 0) return true;
    const int64_t columns = x_.pixel[x_.count - 1] - x_.pixel[0] + 1;
    const int64_t elements = (y_.pixel[y_.count - 1] - y_.pixel[0]) * frames_.width + columns;
    const Runs<C> whole(frames_.dtype, frames_.stride_x, elements);
    runs_ = Runs<C>(frames_.dtype, frames_.stride_x, columns);
    together_ = frames_.stride_y == frames_.width * frames_.stride_x && elements <= kMostTogether &&
                whole.vectors <= scanlines_ * runs_.vectors;
    if (together_) {
      runs_ = whole;
      scanlines_ = 1;
    }
    return together_ || columns <= 2 * x_.count;
  }

  // out [C] = the sums over pixels
  void sum_pixels(int64_t offset, C* out) {
    memset(out, 0, frames_.channels * sizeof(C));
    if (scanlines_ == 0) return;
    set_weights();
    for_each_block([&](int64_t first, int64_t end) {
      for (int64_t a = 0; a < scanlines_; ++a) {
        const C scale = together_ ? C(1) : y_.weight[kValue][a];
        for_each_runs(offset, a, first, end, [&](auto n, int64_t c, const C* const* run) {
          add_sums_of_runs<n.value>(runs_, run, weight_, mask_, scale, out + c);
        });
      }
    });
  }

  // Calls f(a, sums [x.count]) with the sums over channels, each times its factor, of every scanline.
  template <class F>
  void sum_channels(int64_t offset, const C* factor, double* sums, const F& f) {
    for (int64_t a = 0; a < y_.count; ++a) {
      if (a < scanlines_) sum_runs(offset, a, factor);
      for (int64_t b = 0; b < x_.count; ++b) sums[b] = totals_[element_of(a, b)];
      f(a, sums);
    }
  }

 private:
  static constexpr int64_t kMostTogether = 512;  // elements of a run of several scanlines
  static constexpr int64_t kBlock = 32;          // channels that are summed in C, as in dot_pixels
  static constexpr int64_t kAhead = 16;          // channels between what is prefetched and what is summed

  // The element of a run that pixel x.pixel[b] of scanline y.pixel[a] is.
  int64_t element_of(int64_t a, int64_t b) const {
    return (together_ ? y_.pixel[a] - y_.pixel[0] : 0) * frames_.width + x_.pixel[b] - x_.pixel[0];
  }

  void set_weights() {
    memset(weight_, 0, runs_.places() * sizeof(C));
    memset(mask_, 0, runs_.places() * sizeof(mask_t<C>));
    for (int64_t a = 0; a < (together_ ? y_.count : 1); ++a) {
      for (int64_t b = 0; b < x_.count; ++b) {
        const int64_t place = runs_.place(element_of(a, b));
        weight_[place] = (together_ ? y_.weight[kValue][a] : C(1)) * x_.weight[kValue][b];
        mask_[place] = mask_t<C>(-1);
      }
    }
  }

  // Calls f(begin, end) for blocks of channels.
  template <class F>
  void for_each_block(const F& f) const {
    for (int64_t c = 0; c < frames_.channels; c += kBlock) f(c, min_of(c + kBlock, frames_.channels));
  }

  // Calls f(std::integral_constant<int, n>, c, runs [n]) with run a of channels [c, c + n), for all channels
  // of [begin, end).
  template <class F>
  void for_each_runs(int64_t offset, int64_t a, int64_t begin, int64_t end, const F& f) {
    offset += y_.pixel[a] * frames_.stride_y + x_.pixel[0] * frames_.stride_x;
    for (int64_t c = begin; c < end; c += kRunsTogether) {
      const int64_t n = min_of(kRunsTogether, end - c);
      const C* run[kRunsTogether];
      for (int64_t j = 0; j < n; ++j) {
        const int64_t from = offset + (c + j) * frames_.stride_c;
        run[j] = runs_.load(element(frames_.data, frames_.dtype, from), buffer_[j]);
        // The gaps between runs mislead the processor's own guesses.
        if (runs_.overlap) {
          const int64_t ahead = from + kAhead * frames_.stride_c;
          prefetch(element(frames_.data, frames_.dtype, ahead), runs_.count * size_of(frames_.dtype));
        }
      }
      visit_int<4, 3, 2, 1>(n, [&](auto count) { f(count, c, run); });
    }
  }

  // totals [elements of a run] = the sum over channels of run a, each times its factor
  void sum_runs(int64_t offset, int64_t a, const C* factor) {
    memset(totals_, 0, runs_.count * sizeof(double));
    for_each_block([&](int64_t first, int64_t end) {
      memset(sums_, 0, runs_.places() * sizeof(C));
      for_each_runs(offset, a, first, end, [&](auto n, int64_t c, const C* const* run) {
        add_scaled_runs<n.value>(runs_, run, factor + c, sums_);
      });
      for (int64_t e = 0; e < runs_.last_place(); ++e) totals_[e] += sums_[e];
      for (int64_t e = runs_.last_place(); e < runs_.count; ++e) totals_[e] += sums_[runs_.place(e)];
    });
  }

  const ImageBatch& frames_;
  const WeightedPixels<C>&y_, &x_;
  Runs<C> runs_;
  int64_t scanlines_;         // runs of a channel
  bool together_;             // a run is of all scanlines
  C* weight_;                 // [vectors][lanes]
  mask_t<C>* mask_;           // [vectors][lanes] the elements that are read
  C* buffer_[kRunsTogether];  // [kRunsTogether][vectors][lanes]
  C* sums_;                   // [vectors][lanes] over a block of channels
  double* totals_;            // [elements of a run] over all channels
};

// Both, and which of them a box takes.
template <class C>
class MapSums {
 public:
  MapSums(Scratch& scratch, const ImageBatch& frames, const WeightedPixels<C>& y, const WeightedPixels<C>& x)
      : frames_(frames), pixels_{frames, y, x}, runs_(scratch, frames, y, x) {}

  // Calls f with the sums for the pixels that y and x hold now; returns false if neither suits them.
  template <class F>
  bool visit(const F& f) {
    if (PixelSums<C>::suits(frames_)) {
      f(pixels_);
      return true;
    }
    if (!RunSums<C>::suits(frames_) || !runs_.set_box()) return false;
    f(runs_);
    return true;
  }

 private:
  const ImageBatch& frames_;
  PixelSums<C> pixels_;
  RunSums<C> runs_;
};

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

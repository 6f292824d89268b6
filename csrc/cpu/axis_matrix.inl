// The weights of an axis as a banded matrix, which has a row for each output and a column for each pixel.
#pragma once

#include <cstdint>
#include <new>

#include "adafocus/crop_resize.h"
#include "adafocus/geometry.h"
#include "cpu/isa.h"
#include "cpu/scanline_sums.inl"
#include "cpu/scratch.h"

namespace adafocus {
namespace AF_ISA {
namespace {

// A block of memory that grows, and loses its contents then.
template <class T>
class Growing {
 public:
  explicit Growing(Scratch& scratch) : scratch_(scratch) {}

  T* at_least(int64_t count) {
    if (!data_ || count > capacity_) {
      capacity_ = 2 * count;
      data_ = scratch_.take<T>(capacity_);
    }
    return data_;
  }

 private:
  Scratch& scratch_;
  T* data_ = nullptr;  // [capacity_]
  int64_t capacity_ = 0;
};

// A row of a banded matrix: its entries are in columns [begin, begin + count), and its first is number
// `entry` of all.
struct Band {
  int64_t begin, count, entry;
};

template <class C>
class BandedMatrix {
 public:
  BandedMatrix(Scratch& scratch, int64_t max_rows) : bands_(scratch.take<Band>(max_rows)), block_(scratch) {}

  // The weights of footprints [count], whose pixels are counted from `origin` on.
  template <class Footprint>
  void set(const Footprint* footprints, int64_t count, int64_t origin) {
    rows_ = count;
    for (int64_t q = 0; q < rows_; ++q) {
      const Footprint& footprint = footprints[q];
      bands_[q] = footprint.begin < footprint.end
                      ? Band{footprint.begin - origin, footprint.end - footprint.begin, 0}
                      : Band{};
    }
    number_entries();
    for_each([&](int64_t q, int64_t s, int64_t entry) {
      values_[entry] = footprints[q].weight(origin + s).value;
    });
  }

  // The transpose of a matrix with so many columns. Bands move one way from row to row, so those of the
  // transpose have no gaps.
  void set_transposed(const BandedMatrix& other, int64_t columns) {
    rows_ = columns;
    for (int64_t s = 0; s < rows_; ++s) bands_[s] = {};
    other.for_each([&](int64_t q, int64_t s, int64_t) {
      if (bands_[s].count++ == 0) bands_[s].begin = q;
    });
    number_entries();
    other.for_each([&](int64_t q, int64_t s, int64_t entry) {
      values_[bands_[s].entry + q - bands_[s].begin] = other.values_[entry];
    });
  }

  int64_t entries() const { return entries_; }

  // Calls f(row, column, number of the entry) for every entry, in order.
  template <class F>
  AF_HD void for_each(const F& f) const {
    for (int64_t q = 0; q < rows_; ++q) {
      const Band band = bands_[q];
      for (int64_t t = 0; t < band.count; ++t) f(q, band.begin + t, band.entry + t);
    }
  }

  // out [rows][pixel_stride] = this times a scanline buffer [columns][pixel_stride]; writes up to kLanes
  // numbers beyond.
  void multiply(const C* __restrict__ buffer, int64_t pixel_stride, C* __restrict__ out) const {
    const Band* const bands = bands_;
    const C* const values = values_;
    const int64_t rows = rows_;
    for (int64_t q = 0; q < rows; ++q) {
      sum_pixels(buffer + bands[q].begin * pixel_stride, values + bands[q].entry, bands[q].count,
                 pixel_stride, out + q * pixel_stride);
    }
  }

 private:
  void number_entries() {
    entries_ = 0;
    for (int64_t q = 0; q < rows_; ++q) {
      bands_[q].entry = entries_;
      entries_ += bands_[q].count;
    }
    values_ = block_.at_least(entries_);
  }

  Band* bands_;  // [rows_]
  int64_t rows_ = 0, entries_ = 0;
  C* values_ = nullptr;  // [entries_]
  Growing<C> block_;     // the memory of values_
};

// The footprints of a box along the frame's columns, and their weights.
template <template <class> class Footprint, class C>
struct ColumnFootprints {
  Footprint<C>* footprints;  // [P_w]
  Range range{0, 0};         // columns that all footprints lie in
  BandedMatrix<C> weights;   // [P_w][count()] A_x

  ColumnFootprints(Scratch& scratch, const CropResize& p)
      : footprints(scratch.take<Footprint<C>>(p.patches.width)), weights(scratch, p.patches.width) {}

  int64_t count() const { return range.end - range.begin; }

  void set(const CropResize& p, const Box<C>& box) {
    const int64_t out_w = p.patches.width, width = p.frames.width;
    int64_t begin = width, end = 0;
    for (int64_t j = 0; j < out_w; ++j) {
      const auto* x = new (&footprints[j]) Footprint<C>(box.cx, box.w, j, out_w, width, p.border);
      if (x->begin >= x->end) continue;
      begin = min_of(begin, x->begin);
      end = max_of(end, x->end);
    }
    range = begin < end ? Range{begin, end} : Range{0, 0};
    weights.set(footprints, out_w, range.begin);
  }
};

// The footprint of scanline i of a patch along the frame's rows.
template <template <class> class Footprint, class C>
Footprint<C> scanline_footprint(const CropResize& p, const Box<C>& box, int64_t i) {
  return {box.cy, box.h, i, p.patches.height, p.frames.height, p.border};
}

}  // namespace
}  // namespace AF_ISA
}  // namespace adafocus

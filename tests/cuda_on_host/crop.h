// The parameters of the ops over boxes, made from arrays as csrc/bindings makes them from tensors. What it
// checks for its callers is not checked here.
#pragma once

#include <algorithm>

#include "adafocus/crop_resize.h"
#include "views.h"

namespace adafocus {

// Everything but the patches. A call without frames to read has no valid box.
inline CropResize parameters(const ImageBatch& frames, const Array& boxes, const Array* frame_index,
                             const Array* affine, const std::string& padding) {
  CropResize p{};
  p.frames = frames;
  p.boxes = boxes.data();
  p.double_precision = boxes.dtype == "float64";
  p.border = padding == "border";
  if (frame_index) {
    p.frame_index = frame_index->data();
    p.index_type = frame_index->dtype == "int32" ? IndexType::kInt32 : IndexType::kInt64;
  }
  if (affine) p.affine = affine->data();
  if (frames.count * frames.channels * frames.height * frames.width == 0) p.frames.count = 0;
  return p;
}

// Room for the chains of a call's boxes, of exactly that size.
inline cuda_on_host::Guarded room_for_chains(const CropResize& p) {
  const int64_t count = p.frames.count + p.num_boxes();
  const cuda_on_host::Guarded room(count * sizeof(int32_t));
  std::fill_n(room.as<int32_t>(), count, 77);
  return room;
}

}  // namespace adafocus

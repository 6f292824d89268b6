// Launchers of the kernels of crop_resize, from which crop_resize.cu chooses.
#pragma once

#include "adafocus/crop_resize.h"

namespace adafocus {

// For any call: all strides, element types, numbers of channels, and both kinds of footprints.
const char* crop_resize_fwd_any(const CropResize& p, void* stream);
const char* crop_resize_bwd_boxes_any(const CropResize& p, void* d_boxes, void* stream);
const char* crop_resize_bwd_frames_any(const CropResize& p, void* stream);

// For frames of three channels, whose scanlines are staged in shared memory.
bool can_stage_fwd(const CropResize& p);
const char* crop_resize_fwd_staged(const CropResize& p, void* stream);
bool can_stage_bwd_boxes(const CropResize& p);
const char* crop_resize_bwd_boxes_staged(const CropResize& p, void* d_boxes, void* stream);

// For the gradient of dense frames, tile by tile.
bool can_tile_bwd_frames(const CropResize& p);
const char* crop_resize_bwd_frames_tiled(const CropResize& p, void* stream);

}  // namespace adafocus

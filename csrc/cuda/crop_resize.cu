// crop_resize on CUDA: the kernel that suits each call. The kernels are a ladder, each with one idea more
// than the one before. Read _any first: it says what all of them compute.
//
//   any        crop_resize_any.cu
//     idea     A thread makes one pixel of a patch, or in the gradient of the frames one pixel of a frame,
//              and four of its channels, straight from global memory.
//     chosen   Where no other kernel can take the call.
//
//   staged     crop_resize_fwd_staged.cu, crop_resize_bwd_boxes_staged.cu
//     idea     A block copies each scanline that a few output rows read into shared memory once, 16 bytes
//              at a time whatever the type, with a margin for the padding (staged_scanlines.cuh).
//     chosen   For bilinear patches of three channels that are neither uint8 nor float64, if they read a
//              fair share of the pixels of their scanlines (staged_layout.h).
//     saves    Reading a pixel of a frame up to four times, element by element, with a test for the padding.
//
//   + output   crop_resize_fwd_staged.cu
//     idea     The patch's strip is collected in shared memory, too.
//     saves    All stores but those of 16 bytes.
//
//   + bytes    staged_scanlines.cuh
//     idea     Six bytes are three words, shifted; a byte becomes a float by a permutation and a subtraction.
//     saves    Six loads and six conversions of a scanline's two pixels.
//
//   tiled      crop_resize_bwd_frames_tiled.cu
//     idea     A block sums a band of a frame in shared memory over all boxes; a thread has a column of it,
//              and goes down the patch once, row by row.
//     chosen   For the gradient of dense frames that are neither uint8 nor float64, by bilinear patches.
//     saves    Searching for the readers of each pixel, reading a row for each scanline that it reads, and
//              all stores but those of four elements.
//
// ADAFOCUS_CUDA_KERNEL=any in the environment takes _any where another kernel would run (kernel_choice.h): it
// is the oracle of the others in tests, and a row beside them in benchmarks.
#include "cuda/box_chains.cuh"
#include "cuda/crop.cuh"
#include "cuda/crop_resize_kernels.h"
#include "cuda/kernel_choice.h"

namespace adafocus {

const char* crop_resize_fwd_cuda(const CropResize& p, void* stream) {
  if (p.num_boxes() == 0) return nullptr;
  if (const char* why = why_not_launched(p)) return why;
  return launch_fast_or_any(
      can_stage_fwd(p), [&] { return crop_resize_fwd_staged(p, stream); },
      [&] { return crop_resize_fwd_any(p, stream); });
}

const char* crop_resize_bwd_boxes_cuda(const CropResize& p, void* d_boxes, void* stream) {
  if (p.num_boxes() == 0) return nullptr;
  if (const char* why = why_not_launched(p)) return why;
  return launch_fast_or_any(
      can_stage_bwd_boxes(p), [&] { return crop_resize_bwd_boxes_staged(p, d_boxes, stream); },
      [&] { return crop_resize_bwd_boxes_any(p, d_boxes, stream); });
}

const char* crop_resize_bwd_frames_cuda(CropResize p, int32_t* chains, void* stream) {
  if (p.frames.count == 0) return nullptr;
  if (const char* why = why_not_launched(p)) return why;
  if (const char* why = chain_boxes(p, chains, stream)) return why;
  return launch_fast_or_any(
      can_tile_bwd_frames(p), [&] { return crop_resize_bwd_frames_tiled(p, stream); },
      [&] { return crop_resize_bwd_frames_any(p, stream); });
}

}  // namespace adafocus

"""Schemas of the raw ops, once for every backend. Raw ops are not differentiable by themselves.

The extension implements them for CPU and CUDA tensors; shapes, dtypes and meanings are those of the
functions with the same names in `_reference/`.
"""

import torch

library = torch.library.Library("adafocus", "DEF")

library.define("_build_info() -> str")

library.define(
    "_crop_resize_fwd(Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt out_h, SymInt out_w,"
    " str padding, ScalarType out_dtype, bool channels_last) -> Tensor"
)
library.define(
    "_crop_resize_bwd_boxes(Tensor grad, Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine,"
    " str padding) -> Tensor"
)
library.define(
    "_crop_resize_bwd_frames(Tensor grad, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt num_frames,"
    " SymInt height, SymInt width, str padding, ScalarType frames_dtype, bool channels_last) -> Tensor"
)

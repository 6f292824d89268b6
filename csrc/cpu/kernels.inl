// The kernels of all ops that are compiled for each instruction set; included by each isa_*.cpp.
#include "cpu/crop_mean.inl"
#include "cpu/crop_resize.inl"
#include "cpu/depthwise_conv3d.inl"
#include "cpu/depthwise_conv3d_bwd_weight.inl"
#include "cpu/exit_gate.inl"
#include "cpu/expected_value.inl"
#include "cpu/quantile_frames.inl"
#include "cpu/weighted_sample.inl"

// The CPU kernels for what every processor of the target architecture has.
#define AF_ISA baseline
#include "cpu/crop_mean.inl"
#include "cpu/crop_resize.inl"
#include "cpu/exit_gate.inl"
#include "cpu/expected_value.inl"
#include "cpu/quantile_frames.inl"
#include "cpu/weighted_sample.inl"

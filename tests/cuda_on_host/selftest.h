// Launchers of the kernels that test the harness itself: in [threads], out [threads] and a choice.
#pragma once

#include <cstdint>

#include "cuda_on_host.h"

using Launcher = const char* (*)(dim3 grid, dim3 block, size_t shared_bytes, const uint32_t* in,
                                 uint32_t* out, int choice);

struct SelfTest {
  const char* name;
  Launcher launch;
};

extern const SelfTest kSelfTests[];
extern const int kSelfTestCount;

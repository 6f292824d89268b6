// The CUDA code of this build.
#pragma once

namespace adafocus {

// Toolkit and architectures of the CUDA code, such as "13.0, sm_80 sm_86".
const char* cuda_build();

}  // namespace adafocus

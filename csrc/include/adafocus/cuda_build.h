// The build of the CUDA code.
#pragma once

namespace adafocus {

// The toolkit and the architectures of the CUDA code, such as "13.0, sm_80 sm_86".
const char* cuda_build();

}  // namespace adafocus

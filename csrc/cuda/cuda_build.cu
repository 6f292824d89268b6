#include "adafocus/cuda_build.h"

#define AF_STRING(x) #x
#define AF_VERSION(major, minor) AF_STRING(major) "." AF_STRING(minor)

namespace adafocus {

const char* cuda_build() {
  return AF_VERSION(__CUDACC_VER_MAJOR__, __CUDACC_VER_MINOR__) ", " ADAFOCUS_ARCHITECTURES;
}

}  // namespace adafocus

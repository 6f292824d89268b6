#include <cstdio>

#include "adafocus/cuda_build.h"

namespace adafocus {

const char* cuda_build() {
  static char text[256];
  const int architectures[] = {__CUDA_ARCH_LIST__};
  int at = snprintf(text, sizeof(text), "%d.%d,", __CUDACC_VER_MAJOR__, __CUDACC_VER_MINOR__);
  for (int architecture : architectures) {
    at += snprintf(text + at, sizeof(text) - at, " sm_%d", architecture / 10);
  }
  return text;
}

}  // namespace adafocus

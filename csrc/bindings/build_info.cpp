// The instruction set in use and the CUDA toolkit that the library was built with.
#include "bindings/tensor.h"
#include "cpu/dispatch.h"

#ifdef USE_CUDA
#include "adafocus/cuda_build.h"
#endif

namespace {

// One line for each part: "cpu: ...", "cuda: ...".
std::string build_info() {
  std::string info = std::string("cpu: ") + adafocus::isa_name();
#ifdef USE_CUDA
  info += std::string("\ncuda: ") + adafocus::cuda_build();
#endif
  return info;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adafocus, CompositeExplicitAutograd, m) {
  m.impl("_build_info", TORCH_BOX(&build_info));
}

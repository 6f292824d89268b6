// The choice between an op's kernels: a fast one for the calls that it can take, and a simple one for any
// call.
//
// The environment variable ADAFOCUS_CUDA_KERNEL, read at each call, can ask for the simple one, so that tests
// and benchmarks have it beside the fast one on the same call:
//   unset, empty or "fast"   the fast kernel where it can take the call,
//   "any"                    the kernel for any call.
#pragma once

#include <cstdlib>
#include <cstring>

namespace adafocus {

// Launches fast(), or any() if the fast kernel cannot take the call or the environment asks for the other
// one; returns as they do.
template <class Fast, class Any>
const char* launch_fast_or_any(bool fast_can, const Fast& fast, const Any& any) {
  const char* const set = std::getenv("ADAFOCUS_CUDA_KERNEL");
  const char* const choice = set && *set ? set : "fast";
  if (std::strcmp(choice, "fast") == 0) return fast_can ? fast() : any();
  if (std::strcmp(choice, "any") == 0) return any();
  return "the environment variable ADAFOCUS_CUDA_KERNEL must be \"fast\" or \"any\"";
}

}  // namespace adafocus

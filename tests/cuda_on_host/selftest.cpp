// The self tests for Python: each kernel by its name, with the sizes of its launch.
#include "selftest.h"

#include "array.h"

using cuda_on_host::Array;

static const cuda_on_host::Bindings bindings([](pybind11::module_& module) {
  for (int i = 0; i < kSelfTestCount; ++i) {
    const Launcher launch = kSelfTests[i].launch;
    module.def(kSelfTests[i].name, [launch](const Array& out, const Array& in, unsigned grid, unsigned block,
                                            size_t shared_bytes, int choice) {
      cuda_on_host::raise_if(launch(grid, block, shared_bytes, static_cast<uint32_t*>(in.data()),
                                    static_cast<uint32_t*>(out.data()), choice));
    });
  }
});

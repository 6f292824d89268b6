// The launcher of temporal_shift for Python.
#include "adafocus/temporal_shift.h"

#include "views.h"

namespace adafocus {
namespace {

void temporal_shift_fwd(const Array& out, const Array& x, int64_t num_frames, int64_t fold, bool inverse) {
  raise_if(temporal_shift_fwd_cuda({images(x), images(out), num_frames, fold, inverse}, nullptr));
}

const cuda_on_host::Bindings bindings([](pybind11::module_& module) {
  module.def("temporal_shift_fwd", temporal_shift_fwd);
});

}  // namespace
}  // namespace adafocus

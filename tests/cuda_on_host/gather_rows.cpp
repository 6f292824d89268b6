// The launcher of gather_rows for Python.
#include "gather_rows.h"

namespace adafocus {
namespace {

void gather_rows_fwd(const Array& out, const Array& x, const Array& index, const Array* count,
                     int64_t element_size) {
  raise_if(gather_rows_fwd_cuda(row_copy(x, out, x, index, count, element_size), nullptr));
}

const cuda_on_host::Bindings bindings([](pybind11::module_& module) {
  module.def("gather_rows_fwd", gather_rows_fwd);
});

}  // namespace
}  // namespace adafocus

// The launcher of scatter_rows for Python.
#include "adafocus/scatter_rows.h"

#include "gather_rows.h"

namespace adafocus {
namespace {

void scatter_rows_fwd(const Array& out, const Array& index, const Array& rows, const Array* count,
                      int64_t element_size) {
  raise_if(scatter_rows_fwd_cuda(row_copy(rows, out, out, index, count, element_size), nullptr));
}

const cuda_on_host::Bindings bindings([](pybind11::module_& module) {
  module.def("scatter_rows_fwd", scatter_rows_fwd);
});

}  // namespace
}  // namespace adafocus

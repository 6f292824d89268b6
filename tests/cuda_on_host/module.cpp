// The module that the worker imports: arrays, the begin of a call, what it launched and found, and the
// functions of an op.
#include "array.h"
#include "cuda_on_host.h"

PYBIND11_MODULE(cuda_on_host, module) {
  using cuda_on_host::Array;
  pybind11::class_<Array>(module, "Array")
      .def(pybind11::init<std::string, std::vector<int64_t>, std::vector<int64_t>, std::string, size_t>())
      .def("bytes", &Array::bytes);
  module.def("begin_call", &cuda_on_host::begin_call);
  module.def("launched", &cuda_on_host::launched);
  module.def("found_races", &cuda_on_host::found_races);
  module.def("bank_conflicts", &cuda_on_host::bank_conflicts);
  for (const auto add : cuda_on_host::Bindings::all()) add(module);
}

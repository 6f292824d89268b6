// The launcher of exit_gate for Python.
#include "adafocus/exit_gate.h"

#include <vector>

#include "views.h"

namespace adafocus {
namespace {

template <class T>
T* typed(const Array& array) {
  return static_cast<T*>(array.data());
}

void exit_gate_fwd(const Array& score, const Array& exited, const Array& keep, const Array& leave,
                   const Array& counts, const Array& logits, const Array* threshold, double bound,
                   const std::string& criterion, const Array* active) {
  ExitGate p{};
  p.logits = matrix(logits);
  p.confidence = criterion == "confidence";
  p.bound = bound;
  if (threshold) {
    p.threshold = threshold->data();
    p.threshold_dtype = dtype_of(*threshold);
  }
  if (active) {
    p.active_kind = active->dtype == "bool" ? Active::kMask : Active::kList;
    p.active_type = active->dtype == "int64" ? IndexType::kInt64 : IndexType::kInt32;
    p.active = active->data();
    p.num_active = active->sizes[0];
  }
  p.capacity = keep.sizes[0];
  p.score = score.data();
  p.exited = typed<uint8_t>(exited);
  p.keep = typed<int64_t>(keep);
  p.leave = typed<int64_t>(leave);
  p.counts = typed<int64_t>(counts);
  std::vector<uint32_t> scratch(exit_gate_scratch_words(p.logits.rows), ~0u);
  raise_if(exit_gate_fwd_cuda(p, scratch.data(), nullptr));
}

const cuda_on_host::Bindings bindings([](pybind11::module_& module) {
  module.def("exit_gate_fwd", exit_gate_fwd);
});

}  // namespace
}  // namespace adafocus

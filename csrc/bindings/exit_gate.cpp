// The raw op of exit_gate: checks and allocation for any device, and how each device runs its kernels.
#include "adafocus/exit_gate.h"

#include <tuple>

#include "bindings/tensor.h"

namespace adafocus {
namespace {

struct Cpu {
  static void fwd(const ExitGate& p, const Tensor&) {
    parallel_over(p.logits.rows, p.logits.columns,
                  [&](int64_t begin, int64_t end) { exit_gate_fwd_scores_cpu(p, begin, end); });
    exit_gate_fwd_compact_cpu(p);
  }
};

#ifdef USE_CUDA
struct Cuda {
  static void fwd(const ExitGate& p, const Tensor& logits) {
    const Tensor scratch = torch::stable::empty({exit_gate_scratch_words(p.logits.rows)}, ScalarType::Int,
                                                std::nullopt, logits.device());
    void* const words = scratch.mutable_data_ptr();
    launch_on_device_of(
        logits, [&](void* stream) { return exit_gate_fwd_cuda(p, static_cast<uint32_t*>(words), stream); });
  }
};
#endif

void set_active(ExitGate& p, const Tensor& active, const Tensor& logits) {
  check_same_device("active", active, "logits", logits);
  STD_TORCH_CHECK(active.dim() == 1 && active.is_contiguous(), "active must be contiguous, of one dimension");
  p.active = active.const_data_ptr();
  if (active.scalar_type() == ScalarType::Bool) {
    STD_TORCH_CHECK(active.size(0) == p.logits.rows, "active must be [N] with N=", p.logits.rows, ", got ",
                    active.size(0));
    p.active_kind = Active::kMask;
  } else {
    p.active_kind = Active::kList;
    p.active_type = index_type_of("active, if not bool,", active.scalar_type());
    p.num_active = active.size(0);
  }
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> fwd(const Tensor& logits, const OptionalTensor& threshold,
                                                       double bound, const std::string& criterion,
                                                       const OptionalTensor& active, int64_t capacity) {
  ExitGate p{};
  p.logits = matrix("logits", logits);
  STD_TORCH_CHECK(p.logits.columns > 0, "logits must be [N, C] with C > 0");
  STD_TORCH_CHECK(criterion == "entropy" || criterion == "confidence",
                  "criterion must be entropy or confidence, got ", criterion);
  STD_TORCH_CHECK(capacity >= 0, "capacity must not be negative, got ", capacity);
  p.confidence = criterion == "confidence";
  p.bound = bound;
  if (threshold) {
    check_same_device("threshold", *threshold, "logits", logits);
    STD_TORCH_CHECK(threshold->numel() == 1 && threshold->scalar_type() != ScalarType::Byte,
                    "threshold must be one floating-point number");
    p.threshold = threshold->const_data_ptr();
    p.threshold_dtype = dtype_of(threshold->scalar_type());
  }
  if (active) set_active(p, *active, logits);
  const auto empty = [&](int64_t size, ScalarType dtype) {
    return torch::stable::empty({size}, dtype, std::nullopt, logits.device());
  };
  const Tensor score = empty(p.logits.rows, p.double_precision() ? ScalarType::Double : ScalarType::Float);
  const Tensor exited = empty(p.logits.rows, ScalarType::Bool);
  const Tensor keep = empty(capacity, ScalarType::Long), leave = empty(capacity, ScalarType::Long);
  const Tensor counts = empty(2, ScalarType::Long);
  p.capacity = capacity;
  p.score = score.mutable_data_ptr();
  p.exited = static_cast<uint8_t*>(exited.mutable_data_ptr());
  p.keep = keep.mutable_data_ptr<int64_t>();
  p.leave = leave.mutable_data_ptr<int64_t>();
  p.counts = counts.mutable_data_ptr<int64_t>();
  Device::fwd(p, logits);
  return {score, exited, keep, leave, counts};
}

}  // namespace
}  // namespace adafocus

STABLE_TORCH_LIBRARY_IMPL(adafocus, CPU, m) {
  m.impl("_exit_gate_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cpu>));
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(adafocus, CUDA, m) {
  m.impl("_exit_gate_fwd", TORCH_BOX(&adafocus::fwd<adafocus::Cuda>));
}
#endif

"""How exact every op must be, and how its gradients are checked; the calls are those of `adafocus_ops.examples`."""

from dataclasses import dataclass, field
from typing import Any

from adafocus_ops.examples import EXAMPLES, OpExamples


@dataclass(frozen=True)
class OpSpec:
    """One op.

    tolerance bounds, in units of the machine epsilon times the example's conditioning, the error of each
    result relative to the largest value of the exact result: "forward", and the gradient of each
    differentiable argument by its position. The comments beside the numbers give the worst that was seen.
    """

    name: str
    tolerance: dict[Any, float] = field(default_factory=lambda: {"forward": 0})
    gradcheck: dict[str, Any] = field(default_factory=dict)  # arguments whose gradient is that of the forward
    gradcheck_step: float = 1e-4
    gradient_kernels: int = 1  # raw ops that each gradient is made of

    @property
    def examples(self) -> OpExamples:
        return EXAMPLES[self.name]


SPECS = (
    OpSpec("crop_resize", tolerance={"forward": 2, 0: 2, 1: 2}),  # 0.8, 0.6 and 1.1 seen
    OpSpec("crop_mean", tolerance={"forward": 2, 0: 2, 1: 2}),
    OpSpec("weighted_sample"),
    OpSpec(
        "expected_value",
        tolerance={"forward": 2, 0: 2, 1: 2},
        # With the default the normaliser is a constant, which differences do not know.
        gradcheck={"normaliser_grad": True},
        gradcheck_step=1e-6,  # a longer one changes who wins a race
    ),
    OpSpec("quantile_frames"),
    OpSpec("exit_gate", tolerance={"forward": 8}),  # 3.4 seen
    OpSpec(
        "gather_rows",
        gradient_kernels=0,  # index_add, which adds up rows that were gathered twice
        tolerance={"forward": 0, 0: 0},  # moves values, computes none
    ),
    OpSpec("scatter_rows"),
    OpSpec("temporal_shift", tolerance={"forward": 0, 0: 0}),
    OpSpec("depthwise_conv3d", tolerance={"forward": 2, 0: 2, 1: 2, 2: 2}),
)

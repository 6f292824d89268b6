"""Cases of temporal_shift, beside zeros and slices, and a plain copy to measure it by."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adafocus_ops import temporal_shift
from bench.harness.case import LAYOUTS, OURS, Call, Case, Prepared, Targets, dtype_name

NUM_FRAMES = 8  # of a clip
FOLD_DIV = 8
SHAPES = {"cpu": (16, 512, 28, 28), "cuda": (1024, 512, 28, 28)}  # within the second stage of ResNet-50


@dataclass(frozen=True)
class Shift:
    """temporal_shift of a stage's features."""

    dtype: torch.dtype
    layout: str
    backward: bool = False  # alone: the forward pass is not timed

    op = "temporal_shift"

    def case(self, targets: Mapping[str, Targets]) -> Case:
        """The shift as something to time."""
        mode = "backward" if self.backward else "forward"
        dtype = dtype_name(self.dtype)
        return Case(
            op=self.op,
            name=f"temporal_shift {dtype}, {self.layout}, {mode}",
            input=f"{{}} frames of features, {NUM_FRAMES} a clip",
            mode=mode,
            dtype=dtype,
            layout=self.layout,
            reference="zeros and slices",
            rival="clone",
            tolerance=0,
            targets=targets,
            launch_bound=False,
            prepare=self.prepare,
            rival_does_less=True,
        )

    def prepare(self, device: torch.device) -> Prepared:
        """Every call, ready to run, and the bytes that none can do without."""
        generator = torch.Generator(device).manual_seed(0)
        x, grad = (
            torch.randn(SHAPES[device.type], generator=generator, device=device)
            .to(self.dtype)
            .contiguous(memory_format=LAYOUTS[self.layout])
            for _ in range(2)
        )
        x.requires_grad_(self.backward)
        shifts = {OURS: lambda: temporal_shift(x, NUM_FRAMES, fold_div=FOLD_DIV), "zeros and slices": lambda: sliced(x)}
        calls: dict[str, Call] = {name: self.passes(shift, x, grad) for name, shift in shifts.items()}
        calls["clone"] = lambda: (x.detach().clone(),)
        return Prepared(calls, 2 * x.nbytes)

    def passes(self, forward: Call, x: Tensor, grad: Tensor) -> Call:
        """The pass that is timed."""
        if not self.backward:
            return lambda: (forward(),)
        saved = functools.cache(forward)
        return lambda: torch.autograd.grad(saved(), x, grad, retain_graph=True)


def sliced(x: Tensor) -> Tensor:
    """The shift as TSM publishes it: zeros, and the parts written into them."""
    clips, fold = x.unflatten(0, (-1, NUM_FRAMES)), x.shape[1] // FOLD_DIV
    out = torch.zeros_like(clips)
    out[:, :-1, :fold] = clips[:, 1:, :fold]
    out[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
    out[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
    return out.flatten(0, 1)


CASES = [
    Shift(dtype, layout, backward).case(
        {"cuda": Targets(bandwidth=0.8)} | ({} if backward or dtype != torch.float32 else {"cpu": Targets(ratio=0.9)})
    )
    for dtype in (torch.float32, torch.float16)
    for layout in LAYOUTS
    for backward in (False, True)
]

"""Cases of depthwise_conv3d, beside torch's conv3d in both layouts."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv3d

from adafocus_ops import depthwise_conv3d
from bench.harness.case import OURS, Call, Case, Prepared, Targets, dtype_name

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last_3d": torch.channels_last_3d}
TORCH = {"contiguous": "torch conv3d, contiguous", "channels_last_3d": "torch conv3d, channels_last_3d"}
CLIPS = {"cpu": 1, "cuda": 16}


@dataclass(frozen=True)
class Form:
    """A convolution of X3D."""

    name: str
    shape: tuple[int, int, int, int]  # C, T, H, W
    taps: tuple[int, int, int]
    stride: tuple[int, int, int]
    padding: tuple[int, int, int]


FORMS = (
    Form("3x3x3", (54, 32, 64, 64), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    Form("3x3x3, strides 1, 2, 2", (54, 16, 112, 112), (3, 3, 3), (1, 2, 2), (1, 1, 1)),
    Form("5x1x1", (24, 16, 112, 112), (5, 1, 1), (1, 1, 1), (2, 0, 0)),
    Form("3x3x3 of small maps", (216, 16, 14, 14), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
)


@dataclass(frozen=True)
class Convolution:
    """One form on clips of features; backward is that to x and to the weight, alone."""

    form: Form
    dtype: torch.dtype
    layout: str
    backward: bool = False

    op = "depthwise_conv3d"

    def case(self, targets: Mapping[str, Targets]) -> Case:
        """The convolution as something to time."""
        mode = "backward" if self.backward else "forward"
        dtype = dtype_name(self.dtype)
        channels, *size = self.form.shape
        return Case(
            op=self.op,
            name=f"depthwise_conv3d {self.form.name}, {dtype}, {self.layout}, {mode}",
            input=f"{{}} clips of {channels} channels of {' x '.join(map(str, size))}, {self.form.name}",
            mode=mode,
            dtype=dtype,
            layout=self.layout,
            reference="torch conv3d in float64",
            rival=TORCH[self.layout],
            # Results of 16 bits are rounded once; sums of float32 over all places are in the gradient of the weight.
            tolerance=1e-5 if self.dtype == torch.float32 else 1e-2,
            targets=targets,
            launch_bound=False,
            prepare=self.prepare,
        )

    def prepare(self, device: torch.device) -> Prepared:
        """Every call, ready to run, and the bytes that none can do without."""
        channels, *size = self.form.shape
        generator = torch.Generator(device).manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device).to(self.dtype)

        x, weight = draw(CLIPS[device.type], channels, *size), draw(channels, 1, *self.form.taps)
        how = {"stride": self.form.stride, "padding": self.form.padding}
        torchs = functools.partial(conv3d, **how, groups=channels)
        grad = draw(*torchs(x, weight).shape)
        calls: dict[str, Call] = {OURS: self.passes(functools.partial(depthwise_conv3d, **how), x, weight, grad)}
        for layout, name in TORCH.items():
            calls[name] = self.passes(torchs, x, weight, grad, layout)
        exact = [t.double() for t in (x, weight, grad)]
        calls["torch conv3d in float64"] = self.passes(torchs, *exact)
        moved = (x.nbytes + grad.nbytes) * (2 if self.backward else 1)
        return Prepared(calls, moved)

    def passes(self, forward: Callable, x: Tensor, weight: Tensor, grad: Tensor, layout: str | None = None) -> Call:
        """The pass that is timed, on tensors of a layout."""
        memory_format = LAYOUTS[layout or self.layout]
        x, grad = (t.contiguous(memory_format=memory_format) for t in (x, grad))
        if not self.backward:
            return lambda: (forward(x, weight),)
        x, weight = (t.detach().requires_grad_() for t in (x, weight))
        saved = functools.cache(lambda: forward(x, weight))
        return lambda: torch.autograd.grad(saved(), (x, weight), grad, retain_graph=True)


def _targets(form: Form, dtype: torch.dtype, layout: str, backward: bool) -> dict[str, Targets]:
    """Faster than torch in the same layout, and a share of a GPU's bandwidth where its sums leave that much."""
    if backward or dtype != torch.float32:
        return {}
    on_cpu = {"cpu": Targets(ratio=1.5)} if form is FORMS[0] else {}
    on_gpu = {"cuda": Targets(bandwidth=0.5)} if layout == "channels_last_3d" else {}
    return on_cpu | on_gpu


CASES = [
    Convolution(form, dtype, layout, backward).case(_targets(form, dtype, layout, backward))
    for form in FORMS
    for dtype in (torch.float32, torch.float16)
    for layout in LAYOUTS
    for backward in (False, True)
]

"""What a model must do at least: multiply-adds and bytes by layer, and the time that follows from a device's rates."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

import adafocus_ops
from adafocus_models import VideoModel

LAYERS = (nn.Conv2d, nn.Conv3d, nn.Linear, nn.GRUCell)


class Rates(NamedTuple):
    """What a device does at most."""

    gb_per_s: float
    gmac_per_s: float


# An RTX 3090's data sheet, 16 bits with sums in float32, and the share of the floor that kernels are taken to reach.
RTX_3090 = Rates(936, 35_500)
REACHED = 0.6


class Work(NamedTuple):
    """One layer, for one video."""

    multiply_adds: int
    elements: float  # of its input, weights and result, each once; weights by the batch


def work_of(model: VideoModel, batch_size: int) -> list[Work]:
    """Every layer that a forward of the model runs, counted on meta tensors."""
    found: list[Work] = []

    def count(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        weights = sum(p.numel() for p in module.parameters())
        x = inputs[0].numel()
        per_output = weights if isinstance(module, nn.GRUCell) else module.weight[0].numel()
        multiply_adds = output.shape[0] * weights if isinstance(module, nn.GRUCell) else output.numel() * per_output
        found.append(Work(multiply_adds, x + output.numel() + weights / batch_size))

    layers = [module for module in model.modules() if isinstance(module, LAYERS)]
    hooks = [module.register_forward_hook(count) for module in layers]
    size = (3, model.frame_size, model.frame_size)
    counts = [count for count in (model.num_candidate_frames, model.num_glance_frames) if count]
    inputs = [torch.empty(1, count, *size, device="meta") for count in counts]
    weights = {name: value.to("meta") for name, value in model.state_dict().items()}
    try:
        with torch.no_grad(), adafocus_ops.use_backend("reference"):
            torch.func.functional_call(model, weights, tuple(inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def floor_ms(work: list[Work], rates: Rates, element_size: int) -> float:
    """Milliseconds a video if every layer takes the longer of its arithmetic and its memory traffic."""
    return (
        sum(
            max(layer.multiply_adds / rates.gmac_per_s, layer.elements * element_size / rates.gb_per_s)
            for layer in work
        )
        / 1e6
    )


def roofline(work: list[Work], ms: float, rates: Rates, element_size: int) -> dict[str, float]:
    """Part of a record: the work of a video, and the shares of the device's rates at which it took ms milliseconds."""
    multiply_adds = sum(layer.multiply_adds for layer in work)
    num_bytes = sum(layer.elements for layer in work) * element_size
    return {
        "multiply_adds": multiply_adds,
        "bytes": num_bytes,
        "copy_share": num_bytes / ms / 1e6 / rates.gb_per_s,
        "matrix_share": multiply_adds / ms / 1e6 / rates.gmac_per_s,
        "floor_share": floor_ms(work, rates, element_size) / ms,
        "predicted_rtx_3090": 1e3 / (floor_ms(work, RTX_3090, 2) / REACHED),
    }

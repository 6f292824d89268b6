"""Cost of a model: the multiply-adds of one video."""

from collections import Counter
from functools import partial

import torch
from torch import Tensor, nn

import adafocus_ops
from adafocus_ops import ExitGate
from adafocus_ops.checks import describe, require

from .video_model import VideoModel

# Layers whose multiply-adds count.
COUNTED = (nn.Conv2d, nn.Conv3d, nn.Linear, nn.GRUCell)


def multiply_adds(model: VideoModel) -> dict[str, int]:
    """Multiply-adds of one video, counted as in the paper (whose "FLOPs" these are).

    Those of convolutions, matrix products and recurrent cells on the way to the last exit; no biases,
    normalisation, activations, pooling, interpolation or auxiliary heads.

    Args:
        model: compiled (torch.compile) or within DataParallel or DistributedDataParallel too.

    Returns:
        stage -> count for "glance", "policy", "focus" and "head" as far as the model has them, their sum
        "total", and for a model with an early exit "exit0", what a video costs that leaves there.

    Raises:
        TypeError: another module.

    Source: Uni-AdaFocus, Tables II to V.
    """
    model = _checked(model)
    counts, _ = _count_on_meta(model)
    result = {stage: sum(counts[name] for name in names) for stage, names in model.stage_modules.items()}
    result["total"] = sum(result.values())
    if model.num_exits > 1:
        _, (result["exit0"],) = _count_on_meta(model, leaves=True)
    return result


def exit_costs(model: VideoModel) -> list[int]:
    """Multiply-adds of a video that leaves at each of the model's exits, as `solve_thresholds` takes them.

    Args:
        model: as `multiply_adds`, whose "total" is the cost of the last exit.

    Raises:
        TypeError: another module.
    """
    model = _checked(model)
    _, spent = _count_on_meta(model, leaves=False)
    return [*spent, multiply_adds(model)["total"]]


def _count_on_meta(model: VideoModel, leaves: bool | None = None) -> tuple[Counter, list[int]]:
    """Child module -> multiply-adds, of one video; and what it has cost at each exit where a gate was asked.

    The gate lets it leave at once, or never, going through one exit after the other; None for no gate, which takes
    all frames at once. On meta tensors only shapes are computed; the reference backend runs on any device.
    """
    counts, spent = Counter(), []
    hooks = [
        module.register_forward_hook(partial(_count, counts, name))
        for name, child in model.named_children()
        for module in child.modules()
        if isinstance(module, COUNTED)
    ]

    def gate(logits: Tensor) -> ExitGate:
        spent.append(counts.total())
        rows = torch.arange(logits.shape[0], device=logits.device)
        keep, leave = (rows[:0], rows) if leaves else (rows, rows[:0])
        return ExitGate(score=None, exited=None, keep=keep, leave=leave, counts=None)

    size = (3, model.frame_size, model.frame_size)
    frames = torch.empty(1, model.num_candidate_frames, *size, device="meta")
    glance_frames = torch.empty(1, model.num_glance_frames, *size, device="meta") if model.has_glance else None
    weights = {name: value.to("meta") for name, value in model.state_dict().items()}
    chosen = gate if leaves is not None and model.num_exits > 1 else None
    training = model.training
    try:
        model.eval()
        # Encoders that are compiled themselves call their hooks only where nothing is compiled.
        with torch.no_grad(), adafocus_ops.use_backend("reference"), torch.compiler.set_stance("force_eager"):
            torch.func.functional_call(model, weights, (frames, glance_frames), {"gate": chosen})
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return counts, spent


def _checked(model: nn.Module) -> VideoModel:
    model = _unwrapped(model)
    require(isinstance(model, VideoModel), lambda: f"model must be a VideoModel, got {describe(model)}", TypeError)
    return model


def _unwrapped(model: nn.Module) -> nn.Module:
    """The module within torch.compile's and the parallel ones', in any order."""
    for wrapper in ("_orig_mod", "module"):
        if not isinstance(model, VideoModel) and hasattr(model, wrapper):
            return _unwrapped(getattr(model, wrapper))
    return model


def _count(counts: Counter, name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
    if isinstance(module, nn.GRUCell):
        counts[name] += output.shape[0] * (module.weight_ih.numel() + module.weight_hh.numel())
    else:  # every number that comes out is the product of one filter with what it covers
        counts[name] += output.numel() * module.weight[0].numel()

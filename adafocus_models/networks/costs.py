"""Cost of a model: the multiply-adds of one video."""

from collections import Counter
from functools import partial

import torch
from torch import Tensor, nn

import adafocus_ops
from adafocus_ops.checks import describe, require

from .video_model import VideoModel


def multiply_adds(model: VideoModel) -> dict[str, int]:
    """Multiply-adds of one video, counted as in the paper (whose "FLOPs" these are).

    Those of convolutions and matrix products on the way to the last exit; no biases, normalisation,
    activations, pooling, interpolation or auxiliary heads.

    Args:
        model: compiled (torch.compile) or within DataParallel or DistributedDataParallel too.

    Returns:
        stage -> count for "glance", "policy", "focus" and "head" as far as the model has them, their sum
        "total", and for a model with an early exit "exit0", what a video costs that leaves there.

    Raises:
        TypeError: another module.

    Source: Uni-AdaFocus, Tables II to V.
    """
    model = _unwrapped(model)
    require(isinstance(model, VideoModel), lambda: f"model must be a VideoModel, got {describe(model)}", TypeError)
    counts = Counter()  # child module -> multiply-adds
    hooks = [
        module.register_forward_hook(partial(_count, counts, name))
        for name, child in model.named_children()
        for module in child.modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear)
    ]
    # On meta tensors only shapes are computed; the reference backend runs on any device.
    size = (3, model.frame_size, model.frame_size)
    frames = torch.empty(1, model.num_candidate_frames, *size, device="meta")
    glance_frames = torch.empty(1, model.num_glance_frames, *size, device="meta")
    weights = {name: value.to("meta") for name, value in model.state_dict().items()}
    training = model.training
    try:
        model.eval()
        # Encoders that are compiled themselves call their hooks only where nothing is compiled.
        with torch.no_grad(), adafocus_ops.use_backend("reference"), torch.compiler.set_stance("force_eager"):
            torch.func.functional_call(model, weights, (frames, glance_frames))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    result = {stage: sum(counts[name] for name in names) for stage, names in model.stage_modules.items()}
    result["total"] = sum(result.values())
    if model.exit0_modules:
        result["exit0"] = sum(counts[name] for name in model.exit0_modules)
    return result


def _unwrapped(model: nn.Module) -> nn.Module:
    """The module within torch.compile's and the parallel ones', in any order."""
    for wrapper in ("_orig_mod", "module"):
        if not isinstance(model, VideoModel) and hasattr(model, wrapper):
            return _unwrapped(getattr(model, wrapper))
    return model


def _count(counts: Counter, name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
    # Every number that comes out is the product of one filter with what it covers.
    counts[name] += output.numel() * module.weight[0].numel()

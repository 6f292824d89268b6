"""How a recipe's numbers reach the weights: groups with rates of their own, their schedule, dropout, 16 bits."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from adafocus_ops.checks import require

from ..networks import AdaFocusV1, AdaFocusV1TSM, VideoModel
from .adafocus_v1 import V1_STAGES, V1_TSM_STAGES
from .recipes import Recipe

ENCODERS = ("glance_encoder", "focus_encoder")


def parts_that_learn(model: VideoModel, recipe: Recipe) -> tuple[str, ...]:
    """Names of the children of a model that a run trains; of AdaFocus those of its stage."""
    stages = {AdaFocusV1: V1_STAGES, AdaFocusV1TSM: V1_TSM_STAGES}.get(type(model))
    if stages is None:
        return tuple(name for name, _ in model.named_children())
    stage = recipe.objective.get("stage")
    require(
        stage in range(len(stages)),
        lambda: f"{type(model).__name__} is trained in stages: set objective.stage to 0, 1, 2 or 3, got {stage!r}",
    )
    return stages[stage]


def parameter_groups(model: VideoModel, recipe: Recipe, rates: Mapping[str, float]) -> list[dict]:
    """The weights that learn, by their rates, for an optimizer; each with its "name" and initial learning rate.

    Args:
        rates: beginning of a weight's name -> its share of the recipe's learning rate, of which the longest counts.

    Raises:
        ValueError: a rate of the recipe's own that no weight has.
    """
    groups: dict[str, list[Tensor]] = {}
    learning = parts_that_learn(model, recipe)
    for name, parameter in model.named_parameters():
        if name.partition(".")[0] in learning and parameter.requires_grad:
            matching = [each for each in rates if name == each or name.startswith(f"{each}.")]
            groups.setdefault(max(matching, key=len, default=""), []).append(parameter)
    unknown = [name for name in recipe.rates if name not in groups]
    require(
        not unknown, lambda: f"rates has {', '.join(unknown)}, which is how no weight that learns is called: see RATES"
    )
    return [
        {"name": name or "others", "params": parameters, "initial_lr": recipe.learning_rate * rates.get(name, 1.0)}
        for name, parameters in groups.items()
    ]


def make_optimizer(groups: list[dict], recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with momentum, as published, or AdamW."""
    groups = [{**group, "lr": group["initial_lr"]} for group in groups]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def set_rates(optimizer: torch.optim.Optimizer, epoch: int, epochs: int) -> None:
    """Half a cosine from the initial rates to almost 0, constant within an epoch, as published."""
    share = 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * share


def set_dropout(model: VideoModel, recipe: Recipe) -> None:
    """Of the heads: auxiliary ones, and those of a network with temporal shift, by `dropout`; others by
    `head_dropout`. What an encoder drops within is its own."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and not name.startswith(ENCODERS):
            auxiliary = name == "dropout" or "aux_head" in name
            module.p = recipe.dropout if auxiliary else recipe.head_dropout


def set_training(model: VideoModel, recipe: Recipe) -> None:
    """Training mode for what learns, and of its BatchNorm as the recipe has it."""
    learning = parts_that_learn(model, recipe)
    model.train()
    for name, child in model.named_children():
        child.train(name in learning or not any(True for _ in child.parameters()))
    if recipe.batch_norm == "frozen":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


@contextmanager
def encoders_in(model: VideoModel, device: torch.device, precision: str) -> Iterator[None]:
    """Within the block the encoders compute in 16 bits where that is safe, and their maps are float32."""
    if precision == "float32":
        yield
        return
    dtype = getattr(torch, precision)

    def in_16_bits(encoder: nn.Module) -> None:
        plain = encoder.forward

        def forward(frames: Tensor) -> Tensor:
            with torch.autocast(device.type, dtype):
                return plain(frames).float()

        encoder.forward = forward

    with ExitStack() as stack:
        for name in ENCODERS:
            if hasattr(model, name):
                encoder = getattr(model, name)
                in_16_bits(encoder)
                stack.callback(delattr, encoder, "forward")
        yield

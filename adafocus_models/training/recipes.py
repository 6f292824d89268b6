"""How each network is trained on each data set of the paper: small records, every number of which can be changed."""

import ast
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adafocus_ops.checks import require

PRECISIONS = ("float32", "bfloat16", "float16")
OPTIMIZERS = ("sgd", "adamw")
BATCH_NORMS = ("batch", "synchronised", "frozen")
METRICS = ("top1", "mAP")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Recipe:
    """One training run, but for its videos.

    Source: Uni-AdaFocus, Appendix H.3, and the published configurations.
    """

    model: str  # a name of `list_models`
    num_classes: int
    batch_size: int  # videos a step, of all processes and accumulated parts together
    learning_rate: float  # of the focus encoder, for this batch size
    weight_decay: float
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of the model: patch_size and so on
    epochs: int = 50
    rates: Mapping[str, float] = field(default_factory=dict)  # part of the model -> its rate, as a share; see RATES
    momentum: float = 0.9
    dropout: float = 0.0  # of what auxiliary heads see, or with a temporal shift of all features
    head_dropout: float = 0.0  # of what the classifiers of steps see
    objective: Mapping[str, Any] = field(default_factory=dict)  # its options: size_weight, stage, ...
    policy_warmup: float = 0.0  # epochs in which the policies of a Uni-AdaFocus network stay as they are
    clip_norm: float | None = None  # the longest gradient of all weights together
    precision: str = "float32"  # of the encoders: "float32", "bfloat16" or "float16"
    flip: bool = True  # half of the videos; not where classes have sides
    batch_norm: str = (
        "batch"  # each process's own statistics; "synchronised" on GPUs; "frozen" uses and keeps those there
    )
    accumulate: int = 1  # parts that a process cuts its share of a batch into, one after the other
    optimizer: str = "sgd"  # with momentum; or "adamw"
    metric: str = "top1"  # by which the best checkpoint is chosen: "top1" or "mAP", of the validation videos
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_classes", "batch_size", "epochs", "accumulate"):
            count = getattr(self, name)
            fits = isinstance(count, int) and not isinstance(count, bool) and count >= 1
            require(fits, lambda name=name, count=count: f"{name} must be a whole number of at least 1, got {count!r}")
        for name in ("learning_rate", "weight_decay", "momentum", "policy_warmup"):
            value = getattr(self, name)
            require(
                _is_number(value) and value >= 0,
                lambda name=name, value=value: f"{name} must be a number of at least 0, got {value!r}",
            )
        require(isinstance(self.flip, bool), lambda: f"flip must be True or False, got {self.flip!r}")
        for name in ("dropout", "head_dropout"):
            value = getattr(self, name)
            require(
                _is_number(value) and 0 <= value < 1,
                lambda name=name, value=value: f"{name} must be a number in [0, 1), got {value!r}",
            )
        require(
            self.clip_norm is None or (_is_number(self.clip_norm) and self.clip_norm > 0),
            lambda: f"clip_norm must be a number above 0 or None, got {self.clip_norm!r}",
        )
        choices = {
            "precision": PRECISIONS,
            "optimizer": OPTIMIZERS,
            "batch_norm": BATCH_NORMS,
            "metric": METRICS,
        }
        for name, known in choices.items():
            value = getattr(self, name)
            require(
                value in known,
                lambda name=name, known=known, value=value: f"{name} must be one of {', '.join(known)}, got {value!r}",
            )

    def as_dict(self) -> dict[str, Any]:
        """Of plain numbers, texts and dicts, for a checkpoint."""
        return dataclasses.asdict(self)


# Architecture -> parts of the network, by the beginning of their weights' names, and their rates as shares of the
# recipe's; 1 for all others. The longest beginning counts. AdaFocusV2's are not stated, and taken to be the same.
_FRAME_BY_FRAME = {
    "temporal_policy": 0.2,
    "spatial_policy": 0.2,
    "glance_encoder": 0.5,
    "glance_aux_head": 0.5,
    "spatial_aux_head": 0.5,
}
RATES: Mapping[str, Mapping[str, float]] = {
    "uni_adafocus": {**_FRAME_BY_FRAME, "glance_head": 20.0, "focus_head": 20.0},
    "uni_adafocus_tsm": {**_FRAME_BY_FRAME, "glance_head": 0.5},
    "uni_adafocus_x3d": {**_FRAME_BY_FRAME, "temporal_policy": 0.4, "spatial_policy": 0.4, "glance_head": 0.5},
    "adafocus_v2": {"spatial_policy": 0.2, "glance_encoder": 0.5, "glance_aux_head": 0.5, "head": 20.0},
    "adafocus_v2_tsm": {"spatial_policy": 0.2, "glance_encoder": 0.5, "glance_aux_head": 0.5, "glance_head": 0.5},
}

_WITH_SHIFT = Recipe(
    model="uni_adafocus_tsm_128_8+12",
    num_classes=174,
    batch_size=64,
    learning_rate=0.02,
    weight_decay=1e-3,
    dropout=0.5,
    objective={"size_weight": 0.5},
    clip_norm=20.0,
    flip=False,
)
_ACTIVITYNET = Recipe(
    model="uni_adafocus_128_16+16",
    num_classes=200,
    batch_size=32,
    learning_rate=0.002,
    weight_decay=2e-4,
    dropout=0.2,
    head_dropout=0.2,
    objective={"size_weight": 1.0},
    metric="mAP",
)
# The paper says no numbers for these: those of ActivityNet, with which it shares the implementation.
_FEW_VIDEOS = dataclasses.replace(_ACTIVITYNET, num_classes=2, metric="top1")

RECIPES: Mapping[str, Recipe] = {
    "activitynet": _ACTIVITYNET,
    "fcvid": dataclasses.replace(
        _ACTIVITYNET, num_classes=239, batch_size=64, learning_rate=0.004, weight_decay=1e-4, precision="float16"
    ),
    "mini_kinetics": dataclasses.replace(
        _ACTIVITYNET,
        batch_size=48,
        learning_rate=0.003,
        weight_decay=1e-4,
        dropout=0.1,
        objective={"size_weight": 0.75},
        precision="float16",
        metric="top1",
    ),
    "something_v1": _WITH_SHIFT,
    "something_v2": dataclasses.replace(_WITH_SHIFT, weight_decay=5e-4),
    "jester": dataclasses.replace(_WITH_SHIFT, num_classes=27, objective={"size_weight": 0.25}),
    "diving48": dataclasses.replace(_WITH_SHIFT, num_classes=48),  # no numbers in the paper: Something-Something's
    "kinetics400": Recipe(
        model="uni_adafocus_x3d_128_16+32",
        num_classes=400,
        batch_size=64,
        learning_rate=0.005,
        weight_decay=5e-5,
        dropout=0.5,
        head_dropout=0.5,
        objective={"size_weight": 0.5},
        clip_norm=20.0,
    ),
    "rlvs": _FEW_VIDEOS,
    "adni": _FEW_VIDEOS,
    "oasis": _FEW_VIDEOS,
    "ppmi": _FEW_VIDEOS,
}


def changed(recipe: Recipe, changes: Mapping[str, str]) -> tuple[Recipe, list[str]]:
    """The recipe with other numbers, and what follows from that, to be told.

    Args:
        changes: name of a field -> its value as text; "arguments.patch_size", "rates.focus_encoder" and
            "objective.size_weight" for entries of the fields that have some. Where the batch size changes and the
            learning rate does not, the rate is scaled with it.

    Raises:
        ValueError: a name that does not exist, or a value that does not fit.
    """
    fields = {each.name: getattr(recipe, each.name) for each in dataclasses.fields(recipe)}
    new = dict(fields)
    for name, text in changes.items():
        whole, _, entry = name.partition(".")
        nests = whole in fields and isinstance(fields[whole], Mapping)
        known = sorted(f"{each}.NAME" if isinstance(value, Mapping) else each for each, value in fields.items())
        require(
            whole in fields and nests == bool(entry),
            lambda name=name, known=known: f"there is no {name!r} to set; there are {', '.join(known)}",
        )
        value = _value(text)
        new[whole] = {**new[whole], entry: value} if entry else _as_field(whole, value)
    told = []
    if new["batch_size"] != recipe.batch_size and "learning_rate" not in changes and isinstance(new["batch_size"], int):
        new["learning_rate"] = recipe.learning_rate * new["batch_size"] / recipe.batch_size
        told.append(
            f"learning rate {new['learning_rate']:g} for batches of {new['batch_size']}, scaled from"
            f" {recipe.learning_rate:g} for {recipe.batch_size}"
        )
    return Recipe(**new), told


def rates_of(recipe: Recipe, architecture: str) -> dict[str, float]:
    """Beginning of a weight's name -> its share of the learning rate: the published one, or the recipe's."""
    return {**RATES.get(architecture, {}), **recipe.rates}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
    except (SyntaxError, ValueError):
        return text


def _as_field(name: str, value: Any) -> Any:
    """Whole numbers where a field is of numbers."""
    default = getattr(_ACTIVITYNET, name)
    return (
        float(value) if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool) else value
    )

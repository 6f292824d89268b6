"""Weights to and from files: our own format, the published checkpoints, and ImageNet's for the encoders."""

import os
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adafocus_ops.checks import describe, require

# Names beyond this many are counted, not listed, in an error.
LISTED = 20

Source = str | os.PathLike | Mapping[str, Tensor]


def load_checkpoint(model: nn.Module, source: Source) -> None:
    """Loads a whole model under our names or the published ones (see `VideoModel.load_checkpoint`)."""
    state = _read(source)
    own = {name: name for name in model.state_dict()}
    naming = max((own, published_names(model)), key=lambda names: len(state.keys() & set(names.values())))
    _load(model, state, naming)


def save_checkpoint(model: nn.Module, path: str | os.PathLike) -> None:
    """Writes the state dict to a .safetensors file."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    _safetensors().save_file(state, path)


def load_backbone(backbone: nn.Module, source: Source) -> None:
    """Loads torchvision's weights (ImageNet's, say) into a MobileNetV2 or ResNet50 of this package.

    Args:
        backbone: for example model.glance_encoder or model.focus_encoder.
        source: a file or a state dict of torchvision's mobilenet_v2 or resnet50. The classifier's entries
            (classifier.*, fc.*) are ignored; num_batches_tracked, which old files lack, may be missing.

    Raises:
        ValueError: names that are missing or unexpected, or shapes that differ; the message lists them.
    """
    state = {name: value for name, value in _read(source).items() if not name.startswith(("classifier.", "fc."))}
    naming = {
        name: name for name in backbone.state_dict() if name in state or not name.endswith(".num_batches_tracked")
    }
    _load(backbone, state, naming)


def published_names(model: nn.Module) -> dict[str, str]:
    """Our name -> name in the published checkpoint, for every entry of the state dict; {} if none is published.

    The model says how its parts are called (`published_prefixes`), each encoder how its layers are.
    """
    if not model.published_prefixes:
        return {}
    renamed = {"": "", **model.published_prefixes}  # module -> published module
    for encoder in ("glance_encoder", "focus_encoder"):
        for layer, published in getattr(model, encoder).published_layers().items():
            renamed[f"{encoder}.{layer}"] = f"{renamed[encoder]}.{published}"
    return {name: _published_name(name, renamed) for name in model.state_dict()}


def _published_name(name: str, renamed: Mapping[str, str]) -> str:
    """The name with the longest prefix that has another name replaced; renamed has the empty prefix."""
    prefix = name
    while prefix not in renamed:
        prefix = prefix.rpartition(".")[0]
    return renamed[prefix] + name[len(prefix) :]


def _read(source: Source) -> dict[str, Tensor]:
    """The weights in a file or mapping, without what commonly surrounds them."""
    state: Any = source if isinstance(source, Mapping) else _read_file(os.fspath(source))
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    require(isinstance(state, Mapping), lambda: f"a checkpoint must hold a state dict, got {describe(state)}")
    strangers = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    require(not strangers, lambda: f"a state dict must hold tensors only; these entries are none: {_listed(strangers)}")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _read_file(path: str) -> Any:
    """Content of a checkpoint file.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged, no checkpoint, or holds more than tensors and plain containers.
    """
    try:
        if path.endswith(".safetensors"):
            return _safetensors().load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ImportError):
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} must hold tensors and plain containers only, to be read safely: {error}") from error
    except Exception as error:  # each reader has its own for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} must be a checkpoint, but it cannot be read: {reason}") from error


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError("checkpoints are .safetensors files: pip install safetensors") from error
    return safetensors.torch


def _load(model: nn.Module, state: Mapping[str, Tensor], naming: Mapping[str, str]) -> None:
    """Copies state into the model, whose entry `ours` is called naming[ours] there; all of it or nothing."""
    own = model.state_dict()
    missing = [theirs for theirs in naming.values() if theirs not in state]
    unexpected = sorted(state.keys() - set(naming.values()))
    reshaped = {
        theirs: (tuple(own[ours].shape), tuple(state[theirs].shape))
        for ours, theirs in naming.items()
        if theirs in state and state[theirs].shape != own[ours].shape
    }
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing: {_listed(missing)}")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected: {_listed(unexpected)}")
    if reshaped:
        lines = [f"{name} must be {expected}, got {got}" for name, (expected, got) in reshaped.items()]
        problems.append(f"{len(reshaped)} of another shape: {_listed(lines)}")
    problems += _class_count(model, reshaped.values())
    require(not problems, lambda: f"the checkpoint does not fit this {type(model).__name__}: " + "; ".join(problems))
    # Not strict: an entry that may be missing (see load_backbone) is not in naming.
    model.load_state_dict({ours: state[theirs] for ours, theirs in naming.items()}, strict=False)


def _class_count(model: nn.Module, shapes: Iterable[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[str]:
    """A phrase for each other number of classes that explains why shapes (expected, got) differ."""
    classes = getattr(model, "num_classes", None)
    found = {got[0] for expected, got in shapes if expected[:1] == (classes,) and got[:1] and got[1:] == expected[1:]}
    return [f"it seems to be for num_classes={count}, this model has {classes}" for count in sorted(found)]


def _listed(names: list[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")

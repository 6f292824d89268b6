"""Weights to and from files: our own format, the published checkpoints, and other models' for the encoders."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from adafocus_ops.checks import describe, require

from .checkpoint_files import read_file, safetensors

# Names beyond this many are counted, not listed, in an error.
LISTED = 20

# Where training programs keep the weights, the first that is there; averaged ones only where there are no others.
CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "state_dict_ema", "model_ema", "ema")
# How the classifiers begin that lie beside a backbone in torchvision's and SlowFast's files.
CLASSIFIERS = ("classifier.", "fc.", "head.lin_5.", "head.projection.")
# What torch's own wrappers put into the names of a part that they wrap.
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")

Source = str | os.PathLike | Mapping[str, Tensor]


def load_checkpoint(model: nn.Module, source: Source, *, new_heads: bool = False) -> list[str]:
    """Loads a whole model under our names or the published ones (see `VideoModel.load_checkpoint`)."""
    own = {name: name for name in model.state_dict()}
    heads = _heads(model) if new_heads else ()
    extras, parts = getattr(model, "published_extras", ()), getattr(model, "published_parts", {})
    return _load(model, read(source, parts), (own, published_names(model)), new=heads, beside=extras)


def save_checkpoint(model: nn.Module, path: str | os.PathLike) -> None:
    """Writes the state dict to a .safetensors file."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    safetensors().save_file(state, path)


def load_backbone(backbone: nn.Module, source: Source) -> None:
    """Loads the weights of another model (ImageNet's of torchvision, say) into a MobileNetV2, ResNet50 or X3D.

    Args:
        backbone: for example model.glance_encoder or model.focus_encoder.
        source: a file or a state dict (see `VideoModel.load_checkpoint`) of torchvision's mobilenet_v2 or resnet50,
            of TSM's models on them, of SlowFast's X3D, or of any model that has one of these as a part. What lies
            beside the backbone in it, such as its classifier, is ignored; num_batches_tracked, which old files lack,
            may be missing.

    Raises:
        ValueError: names that are missing or unexpected, or shapes that differ; the message lists them.
    """
    own = {name: name for name in backbone.state_dict()}
    published = _renamed(own, {"": "", **published_layers(backbone)})
    unshifted = {ours: theirs.replace(".net.", ".") for ours, theirs in published.items()}
    _load(backbone, read(source), (own, published, unshifted), beside=CLASSIFIERS)


def published_names(model: nn.Module) -> dict[str, str]:
    """Our name -> name in the published checkpoint, for every entry of the state dict; {} if none is published."""
    renamed = model.published_prefixes()
    return _renamed(model.state_dict(), {"": "", **renamed}) if renamed else {}


def published_layers(encoder: nn.Module) -> Mapping[str, str]:
    """Layer -> its name in published checkpoints, of those that are called otherwise there; none in an encoder that
    does not say."""
    return getattr(encoder, "published_layers", dict)()


def beneath(ours: str, theirs: str, layers: Mapping[str, str]) -> dict[str, str]:
    """Names of a part, and of its layers that are called otherwise: {"encoder": "net", "encoder.a": "net.b"}."""
    return {ours: theirs, **{f"{ours}.{layer}": f"{theirs}.{published}" for layer, published in layers.items()}}


def _renamed(names: Iterable[str], renamed: Mapping[str, str]) -> dict[str, str]:
    """Name -> what it is with other names for some prefixes, of which the longest counts."""
    return {name: _published_name(name, renamed) for name in names}


def _published_name(name: str, renamed: Mapping[str, str]) -> str:
    """The name with the longest prefix that has another name replaced; renamed has the empty prefix."""
    prefix = name
    while prefix not in renamed:
        prefix = prefix.rpartition(".")[0]
    return (renamed[prefix] + name[len(prefix) :]).removeprefix(".")  # a part may be the whole


def read(source: Source, parts: Mapping[str, str] = MappingProxyType({})) -> dict[str, Tensor]:
    """The weights in a file or mapping, without what commonly surrounds them and their names.

    Args:
        parts: key of a state dict that may lie beside the others -> how its names begin in the whole.
    """
    outermost: Any = source if isinstance(source, Mapping) else read_file(os.fspath(source))
    state = outermost
    for _ in CONTAINERS:  # not for ever: a pickle may contain itself
        inside = [
            state[key] for key in CONTAINERS if isinstance(state, Mapping) and isinstance(state.get(key), Mapping)
        ]
        state = inside[0] if inside else state
    require(isinstance(state, Mapping), lambda: f"a checkpoint must hold a state dict, got {describe(state)}")
    there = {key: outermost[key] for key in parts if isinstance(outermost.get(key), Mapping)}
    if there:
        whole = {} if state is outermost else state
        state = {parts[key] + name: value for key, part in there.items() for name, value in part.items()} | whole
    strangers = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    require(not strangers, lambda: f"a state dict must hold tensors only; these entries are none: {_listed(strangers)}")
    return {_unwrapped(str(name)): value for name, value in state.items()}


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _part(state: Mapping[str, Tensor], names: Iterable[str]) -> tuple[int, dict[str, Tensor]]:
    """The part of a state dict whose entries, beneath some prefix ("module.", say), have these names.

    Returns:
        how many of the names it has, and the entries beneath that prefix: all, if it is empty.

    Raises:
        ValueError: beneath two prefixes there are all of the names.
    """
    names = set(names)
    found = Counter()
    for name in state:
        pieces = name.split(".")
        tails = (".".join(pieces[i:]) for i in range(len(pieces)))
        found.update(name.removesuffix(tail) for tail in tails if tail in names)
    if not found:
        return 0, dict(state)
    # A state dict without a prefix may have parts that look alike.
    prefix = max(found, key=lambda each: (found[each], each == ""))
    twice = [each for each, count in found.items() if count == found[prefix] > len(names) / 2]
    require(
        prefix == "" or len(twice) <= 1,
        lambda: f"the checkpoint has these weights more than once, under {', '.join(twice)}: pass one as a state dict",
    )
    return found[prefix], {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}


def _heads(model: nn.Module) -> list[str]:
    """Entries of the layers that give a number for every class."""
    layers = {name for name, module in model.named_modules() if getattr(module, "out_features", 0) == model.num_classes}
    return [name for name in model.state_dict() if name.rpartition(".")[0] in layers]


def _load(
    model: nn.Module,
    state: Mapping[str, Tensor],
    namings: Iterable[Mapping[str, str]],
    *,
    new: Iterable[str] = (),
    beside: tuple[str, ...] = (),
) -> list[str]:
    """Copies state into the model, all of it or nothing.

    Args:
        namings: our name -> that in the state, in several ways, of which the one that fits best counts.
        new: entries that stay as they are.
        beside: how names in the state begin that are ignored.

    Returns:
        the entries that stay, as a list.
    """
    own, new = model.state_dict(), list(new)
    _, state, naming = max(((*_part(state, each.values()), each) for each in namings), key=lambda found: found[0])
    wanted = {
        ours: theirs
        for ours, theirs in naming.items()
        if ours not in new and (theirs in state or not ours.endswith(".num_batches_tracked"))
    }
    missing = [theirs for theirs in wanted.values() if theirs not in state]
    unexpected = sorted(name for name in state.keys() - set(naming.values()) if not name.startswith(beside))
    reshaped = {
        theirs: (tuple(own[ours].shape), tuple(state[theirs].shape))
        for ours, theirs in wanted.items()
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
    # Not strict: what stays new or may be missing is not in it.
    model.load_state_dict({ours: state[theirs] for ours, theirs in wanted.items()}, strict=False)
    return new


def _class_count(model: nn.Module, shapes: Iterable[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[str]:
    """A phrase for each other number of classes that explains why shapes (expected, got) differ."""
    classes = getattr(model, "num_classes", None)
    found = {got[0] for expected, got in shapes if expected[:1] == (classes,) and got[:1] and got[1:] == expected[1:]}
    return [
        f"it seems to be for num_classes={count}, this model has {classes}; new_heads=True loads all but the heads"
        for count in sorted(found)
    ]


def _listed(names: list[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")

"""Models by name: every architecture, and the paper's configurations of them, collected from their files."""

from typing import Any

from adafocus_ops.checks import require

from .networks import Configuration, TSMPlus, UniAdaFocusTSM, VideoModel, tsm_plus, uni_adafocus_tsm

_ARCHITECTURES: dict[str, type[VideoModel]] = {"uni_adafocus_tsm": UniAdaFocusTSM, "tsm_plus": TSMPlus}
_CONFIGURATIONS = {made.name: made for made in (*uni_adafocus_tsm.CONFIGURATIONS, *tsm_plus.CONFIGURATIONS)}


def architectures() -> dict[str, type[VideoModel]]:
    """Name -> class, which says what its models have: num_exits, has_early_exit, has_policy, stage_methods."""
    return dict(_ARCHITECTURES)


def configurations() -> dict[str, Configuration]:
    """Name -> one of the paper's models, with the figures that the paper states."""
    return dict(_CONFIGURATIONS)


def list_models() -> list[str]:
    """Names that `create_model` takes: the architectures, then the paper's configurations of them."""
    return [*_ARCHITECTURES, *_CONFIGURATIONS]


def create_model(name: str, **overrides: Any) -> VideoModel:
    """A model with random weights, in training mode as every new module.

    Args:
        name: one of `list_models()`. A configuration is named after its architecture, patch size, and
            glance + focus frames: "uni_adafocus_tsm_96_8+12".
        overrides: arguments of the architecture, such as num_classes, that replace the configuration's.

    Raises:
        ValueError: an unknown name (the message lists those there are), or an argument that does not fit.
        TypeError: an argument that the architecture does not have.
    """
    require(name in list_models(), lambda: f"name must be one of {', '.join(list_models())}, got {name!r}")
    if name in _ARCHITECTURES:
        return _ARCHITECTURES[name](**overrides)
    configuration = _CONFIGURATIONS[name]
    return _ARCHITECTURES[configuration.architecture](**{**configuration.arguments, **overrides})

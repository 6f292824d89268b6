"""Models by name: every architecture, and the paper's configurations of them, collected from their files."""

from typing import Any

from adafocus_ops.checks import require

from . import networks
from .networks import Configuration, VideoModel

_ARCHITECTURES: dict[str, type[VideoModel]] = {
    "uni_adafocus": networks.UniAdaFocus,
    "uni_adafocus_tsm": networks.UniAdaFocusTSM,
    "uni_adafocus_x3d": networks.UniAdaFocusX3D,
    "adafocus_v2": networks.AdaFocusV2,
    "adafocus_v2_tsm": networks.AdaFocusV2TSM,
    "adafocus_v1": networks.AdaFocusV1,
    "adafocus_v1_tsm": networks.AdaFocusV1TSM,
    "tsm": networks.TSM,
    "tsm_plus": networks.TSMPlus,
    "x3d_s": networks.X3DS,
    "x3d_m": networks.X3DM,
    "x3d_l": networks.X3DL,
}
_FILES = (
    networks.uni_adafocus,
    networks.uni_adafocus_tsm,
    networks.uni_adafocus_x3d,
    networks.adafocus_v2,
    networks.adafocus_v2_tsm,
    networks.adafocus_v1,
    networks.adafocus_v1_tsm,
    networks.tsm,
    networks.tsm_plus,
    networks.x3d,
)
_CONFIGURATIONS = {made.name: made for file in _FILES for made in file.CONFIGURATIONS}


def architectures() -> dict[str, type[VideoModel]]:
    """Name -> class, which says what its models have: num_exits, has_early_exit, has_policy, stage_methods."""
    return dict(_ARCHITECTURES)


def configurations() -> dict[str, Configuration]:
    """Name -> one of the paper's models, with the figures that the paper states."""
    return dict(_CONFIGURATIONS)


def list_models() -> list[str]:
    """Names that `create_model` takes: the architectures, then the paper's configurations of them."""
    return [*_ARCHITECTURES, *_CONFIGURATIONS]


def architecture_of(name: str) -> str:
    """The architecture of a name of `list_models()`."""
    return _CONFIGURATIONS[name].architecture if name in _CONFIGURATIONS else name


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
    arguments = _CONFIGURATIONS[name].arguments if name in _CONFIGURATIONS else {}
    return _ARCHITECTURES[architecture_of(name)](**{**arguments, **overrides})

"""Models by name."""

from typing import Any

from adafocus_ops.checks import require

from .networks import TSMPlus, UniAdaFocusTSM, VideoModel

ARCHITECTURES: dict[str, type[VideoModel]] = {"uni_adafocus_tsm": UniAdaFocusTSM, "tsm_plus": TSMPlus}

# The paper's configurations (Table IV): name -> architecture and its arguments.
CONFIGURATIONS: dict[str, tuple[str, dict[str, int]]] = {
    f"uni_adafocus_tsm_{patch}_8+{k}": ("uni_adafocus_tsm", {"patch_size": patch, "num_focus_frames": k})
    for patch, k in ((96, 8), (96, 12), (128, 12), (128, 16))
} | {"tsm_plus_8+8": ("tsm_plus", {})}


def list_models() -> list[str]:
    """Names that `create_model` takes: the architectures, then the paper's configurations of them."""
    return [*ARCHITECTURES, *CONFIGURATIONS]


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
    architecture, arguments = CONFIGURATIONS.get(name, (name, {}))
    return ARCHITECTURES[architecture](**(arguments | overrides))

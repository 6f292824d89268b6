"""The contract of a runtime: whoever can compute a layer, or a whole module, in another way than the model does."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..layers import Layer


class Runtime:
    """A way to compute. A subclass says where it can run, and offers forms of layers, of whole modules, or of both.

    What it offers is checked against the folded module and timed before it is used, so it may well be slower, or
    wrong in a case that its author did not see. Offering nothing, by an empty mapping or None, is always allowed.
    """

    name: str
    offers_layers = False  # rather than whole modules

    def __init_subclass__(cls) -> None:
        cls.offers_layers = cls.layer_forms is not Runtime.layer_forms

    def why_not(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """The reason why it cannot run on this device with weights of this dtype, a sentence; None if it can."""
        return None

    def asked_only(self, device: torch.device) -> str | None:
        """The reason why runtime="auto" leaves it out on this device, a sentence; None if it is among the choices."""
        return None

    def version(self) -> str | None:
        """Of what it is made with beside torch, for choices to be known as stale; None if of nothing."""
        return None

    def layer_forms(self, layer: Layer, x: Tensor, other: Tensor | None = None) -> Mapping[str, nn.Module]:
        """Label -> a module with the signature of the layer, fit for x and other and for any batch like them.

        Labels are kept in choices; with several forms, each is a candidate of its own.
        """
        return {}

    def module_form(self, module: nn.Module, x: Tensor) -> nn.Module | None:
        """A module that computes what `module` does, for x and for any batch like it.

        Args:
            module: folded, in evaluation mode, in the dtype and memory format that it is to have.
            x: [M, 3, H, W] of that dtype, or what else the module takes; it may be laid out in another way then.
        """
        return None

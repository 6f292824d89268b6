"""torch.compile of a whole module, as a user would call it."""

import torch
from torch import Tensor, nn

from .runtime import Runtime


class Compile(Runtime):
    """torch.compile(mode="max-autotune-no-cudagraphs"): the engine captures graphs itself, of the whole forward."""

    name = "compile"

    def asked_only(self, device: torch.device) -> str | None:
        if device.type == "cpu":
            return "on a CPU it calls the same oneDNN as `library` and takes minutes to prepare; ask for it by name"
        return None

    def module_form(self, module: nn.Module, x: Tensor) -> nn.Module:
        mode = "max-autotune-no-cudagraphs" if x.is_cuda else "default"
        return torch.compile(module, mode=mode, dynamic=False)

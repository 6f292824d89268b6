"""OpenVINO, on a CPU: a whole module, where the package openvino is installed."""

import functools
import io
import threading
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ..onnx_files import PACKAGE, not_installed, write_onnx
from .runtime import Runtime

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class OpenVINO(Runtime):
    """A model of OpenVINO, with as many threads as torch has when it is made."""

    name = "openvino"

    def why_not(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if device.type != "cpu":
            return "OpenVINO runs on a CPU here"
        if dtype not in PRECISIONS:
            return f"OpenVINO computes in float32 or bfloat16, not in {str(dtype).removeprefix('torch.')}"
        reason = not_installed("openvino", PACKAGE)
        if reason is None and dtype == torch.bfloat16 and not _has_bfloat16():
            return "this processor has no bfloat16 arithmetic for OpenVINO (avx512_bf16 or amx_bf16)"
        return reason

    def version(self) -> str | None:
        return metadata.version("openvino") if find_spec("openvino") else None

    def module_form(self, module: nn.Module, x: Tensor) -> nn.Module:
        return OpenVINOModule(module, x)


class OpenVINOModule(nn.Module):
    """A model compiled for the shape that it was made with, and, when one comes, for all others."""

    memory_format = torch.contiguous_format  # of what it takes and gives

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        super().__init__()
        file = io.BytesIO()
        write_onnx(module, x, file)
        self.file = file.getvalue()
        self.config = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": PRECISIONS[x.dtype],
        }
        self.dtype, self.shape = x.dtype, x.shape
        self.request, self.any_request = self._compile(list(x.shape)), None
        result = self.request.get_output_tensor().shape
        self.result_shape, self.rows_a_row = tuple(result[1:]), (result[0], x.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        import openvino

        if x.shape != self.shape and self.any_request is None:
            self.any_request = self._compile([-1, *x.shape[1:]])
        request = self.request if x.shape == self.shape else self.any_request
        x = x.float().contiguous()
        given, asked = self.rows_a_row
        out = torch.empty((x.shape[0] * given // asked, *self.result_shape))
        # Memory of torch, which both stay in until the call returns.
        request.set_input_tensor(openvino.Tensor(x.numpy(), shared_memory=True))
        request.set_output_tensor(openvino.Tensor(out.numpy(), shared_memory=True))
        request.infer()
        return out.to(self.dtype)

    def _compile(self, shape: list[int]) -> Any:
        model = _core().read_model(self.file)
        model.reshape(shape)
        return _core().compile_model(model, "CPU", self.config).create_infer_request()


_making_core = threading.Lock()


def _core() -> Any:
    with _making_core:
        return _only_core()


@functools.cache
def _only_core() -> Any:
    """One for the process. Each puts a stack of its own in the place of the one that signal handlers run on, and takes
    it away at its end: of two that end in the order in which they began, the process is left with one that is gone,
    and dies at its next signal (OpenVINO 2026.4)."""
    import openvino

    return openvino.Core()


def _has_bfloat16() -> bool:
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

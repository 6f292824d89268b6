"""ONNX Runtime, on a CPU: a whole module, where the package onnxruntime is installed."""

import io
from importlib import metadata
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from ..onnx_files import INPUT, PACKAGE, not_installed, write_onnx
from .runtime import Runtime


class OnnxRuntime(Runtime):
    """A session of ONNX Runtime, with as many threads as torch has when it is made."""

    name = "onnxruntime"

    def why_not(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if device.type != "cpu":
            return "ONNX Runtime runs on a CPU here"
        if dtype != torch.float32:
            return f"ONNX Runtime computes in float32 here, not in {str(dtype).removeprefix('torch.')}"
        return not_installed("onnxruntime", PACKAGE)

    def version(self) -> str | None:
        return metadata.version("onnxruntime") if find_spec("onnxruntime") else None

    def module_form(self, module: nn.Module, x: Tensor) -> nn.Module:
        return OnnxRuntimeModule(module, x)


class OnnxRuntimeModule(nn.Module):
    """A session, whose memory for results is its own."""

    memory_format = torch.contiguous_format  # of what it takes and gives

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        super().__init__()
        import onnxruntime

        file = io.BytesIO()
        write_onnx(module, x, file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that wait in a loop after a run would take the processor from torch's, whose turn it is then.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors alone
        self.session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])

    def forward(self, x: Tensor) -> Tensor:
        [out] = self.session.run(None, {INPUT: x.contiguous().numpy()})
        return torch.from_numpy(out)

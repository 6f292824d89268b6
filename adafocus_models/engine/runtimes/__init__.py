"""Who can compute what a model asks for; a runtime is one file here, and its name in RUNTIMES."""

from .compiled import Compile
from .library import Library
from .onnxruntime_cpu import OnnxRuntime
from .openvino_cpu import OpenVINO
from .runtime import Runtime

RUNTIMES: dict[str, Runtime] = {each.name: each for each in (Library(), Compile(), OpenVINO(), OnnxRuntime())}

__all__ = ["RUNTIMES", "Runtime"]

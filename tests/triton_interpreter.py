"""Triton's interpreter, put right where it differs from a GPU and made quick enough for a test suite."""

from types import SimpleNamespace

import numpy as np
import triton.language as tl
from triton.runtime import interpreter


def install() -> None:
    """Call it after TRITON_INTERPRET is set and before the first kernel runs."""
    # The interpreter patches the language for each call of each function; once is enough.
    interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    interpreter._patch_lang = lambda function: interpreter._LangPatchScope()
    # It checks integers for overflow, which a GPU does not either.
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)
    interpreter.InterpreterBuilder.cast_impl = _cast


def _cast(builder, src, dst_type, cast=interpreter.InterpreterBuilder.cast_impl):
    """float32 becomes bfloat16 by rounding to nearest even, as on a GPU; the interpreter cuts bits off."""
    if (src.dtype.scalar, dst_type.scalar) != (tl.float32, tl.bfloat16):
        return cast(builder, src, dst_type)
    bits = src.data.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return interpreter.TensorHandle(np.where(np.isnan(src.data), 0x7FC0, rounded).astype(np.uint16), tl.bfloat16)

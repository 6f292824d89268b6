"""Triton's interpreter, put right where it differs from a GPU, and made quick enough for a test suite."""

import functools
import math
from types import SimpleNamespace

import numpy as np
import triton.language as tl
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter


def install() -> None:
    """Call it after TRITON_INTERPRET is set and before the first kernel runs."""
    interpreter.InterpreterBuilder.cast_impl = _cast
    interpreter._patch_attr = _give_semantic
    tl.core._unwrap_if_constexpr = _unwrap
    # The interpreter patches the language for each call of each function; once is enough.
    interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    interpreter._patch_lang = lambda function: interpreter._LangPatchScope()
    # It checks integers for overflow, which a GPU does not either.
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)
    np.seterr(divide="ignore", over="ignore", invalid="ignore")  # nor for these
    # It makes and checks new types for whatever it computes.
    interpreter._get_np_dtype = _np_dtype
    tl.block_type.__init__ = _describe_block
    tl.tensor.__init__ = _describe_tensor
    tl.dtype.__eq__ = _is_dtype
    tl.tuple.__eq__ = _is_tuple
    TritonSemantic.binary_op_type_checking_impl = _check_operands
    TritonSemantic.broadcast_impl_value = _broadcast
    interpreter.ReduceOps.apply_impl = _reduce


def _cast(builder, src, dst_type, cast=interpreter.InterpreterBuilder.cast_impl):
    """bfloat16 as on a GPU: rounded to nearest even, with subnormal numbers; the interpreter cuts bits off."""
    types = (src.dtype.scalar, dst_type.scalar)
    if types == (tl.float32, tl.bfloat16):
        bits = src.data.view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return interpreter.TensorHandle(np.where(np.isnan(src.data), 0x7FC0, rounded).astype(np.uint16), tl.bfloat16)
    if types == (tl.bfloat16, tl.float32):
        return interpreter.TensorHandle((src.data.astype(np.uint32) << 16).view(np.float32), tl.float32)
    return cast(builder, src, dst_type)


def _give_semantic(owner, name: str, member, builder, scope) -> None:
    """What the language calls needs its meaning, which the interpreter puts in through two functions around it."""
    member = getattr(member, "__wrapped__", member)

    def call(*args, **kwargs):
        kwargs["_semantic"] = interpreter.interpreter_semantic
        return member(*args, **kwargs)

    scope.set_attr(owner, name, call)


def _unwrap(value, unwrap=tl.core._unwrap_if_constexpr):
    return value if type(value) in PLAIN else unwrap(value)


PLAIN = {tl.tensor, tl.dtype, tl.block_type, tl.pointer_type, int, float, bool, str, type(None)}


def _is_dtype(dtype, other, equals=tl.dtype.__eq__) -> bool:
    return dtype is other or equals(dtype, other)


def _is_tuple(values, other, equals=tl.tuple.__eq__) -> tl.constexpr:
    return TRUE if values is other else equals(values, other)


TRUE = tl.constexpr(True)


def _describe_block(block, element_ty, shape) -> None:
    block.element_ty = element_ty
    block.shape, block.numel, block.name = _block_shape(tuple(map(tl.core._unwrap_if_constexpr, shape)))


@functools.cache
def _block_shape(shape: tuple[int, ...]) -> tuple:
    return tl.tuple(shape), math.prod(shape), str(shape)


def _describe_tensor(tensor, handle, type) -> None:
    tensor.handle, tensor.type, tensor.dtype = handle, type, type.scalar
    tensor.shape, tensor.numel = _tensor_shape(tuple(type.shape) if type.is_block() else ())


@functools.cache
def _tensor_shape(shape: tuple[int, ...]) -> tuple:
    return tl.tuple([tl.constexpr(size) for size in shape]), tl.constexpr(math.prod(shape))


def _check_operands(semantic, a, b, *args, check=TritonSemantic.binary_op_type_checking_impl, **kwargs):
    """Values of one type are fit for any operation; a number takes the type of the block, where it has its values."""
    if type(a) is type(b) is tl.tensor and a.dtype == b.dtype and not a.dtype.is_ptr():
        return _broadcast(semantic, a, b)
    if type(a) is tl.tensor and type(b) in NUMBERS.get(a.dtype.name, ()):
        return a, _constant(repr(b), a.dtype, tuple(a.handle.data.shape), a.type.is_block())
    if type(b) is tl.tensor and type(a) in NUMBERS.get(b.dtype.name, ()):
        return _constant(repr(a), b.dtype, tuple(b.handle.data.shape), b.type.is_block()), b
    return check(semantic, a, b, *args, **kwargs)


NUMBERS = {"int32": (int,), "int64": (int,), "fp32": (int, float), "fp64": (int, float)}


@functools.cache
def _constant(value: str, dtype, shape: tuple[int, ...], block: bool) -> tl.tensor:
    data = np.full(shape, int(value) if dtype.is_int() else float(value), interpreter._get_np_dtype(dtype))
    return tl.tensor(interpreter.TensorHandle(data, dtype), tl.block_type(dtype, shape) if block else dtype)


def _broadcast(semantic, a, b):
    """As numpy does, which also says what does not fit."""
    if a.type is b.type or not (a.type.is_block() or b.type.is_block()):
        return a, b
    shape = _common_shape(a.handle.data.shape, b.handle.data.shape)
    return _spread(a, shape), _spread(b, shape)


_common_shape = functools.cache(np.broadcast_shapes)


def _spread(tensor, shape: tuple[int, ...]) -> tl.tensor:
    if tensor.type.is_block() and tensor.handle.data.shape == shape:
        return tensor
    data = np.broadcast_to(tensor.handle.data, shape)
    return tl.tensor(interpreter.TensorHandle(data, tensor.handle.dtype), tl.block_type(tensor.dtype, shape))


def _np_dtype(dtype, find=interpreter._get_np_dtype):
    return _np_dtype_of(dtype) if type(dtype) is tl.dtype else find(dtype)


_np_dtype_of = functools.cache(interpreter._get_np_dtype)


def _reduce(reduction, input, reduce=interpreter.ReduceOps.apply_impl):
    """Exclusive or, which sorting is made of, all at once; the interpreter goes from element to element."""
    if reduction.combine_fn is not tl.standard._xor_combine:
        return reduce(reduction, input)
    data = np.bitwise_xor.reduce(input[0].handle.data, axis=reduction.axis, keepdims=reduction.keep_dims)
    return reduction.to_tensor(data, input[0].dtype)

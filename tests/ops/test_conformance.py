"""One suite for every op on every backend: op x backend x dtype x layout x example."""

import pytest
import torch
from op_specs import SPECS, OpSpec
from torch import Tensor

import adafocus_ops
from adafocus_ops.examples import Example
from conftest import device_of, is_emulated, require_backend


def cells():
    for spec in SPECS:
        for dtype in spec.examples.dtypes:
            for layout in spec.examples.layouts:
                name = f"{spec.name}-{str(dtype).removeprefix('torch.')}-{layout}"
                yield pytest.param(spec, dtype, layout, id=name)


cell = pytest.mark.parametrize(("spec", "dtype", "layout"), list(cells()))
differentiable_cell = pytest.mark.parametrize(
    ("spec", "dtype", "layout"),
    [c for c in cells() if c.values[0].examples.differentiable and c.values[1].is_floating_point],
)


def to(value, device=None, dtype=None):
    """Moves the tensors of an argument; dtype changes floating-point ones only."""
    if not isinstance(value, Tensor):
        return value
    value = value if device is None or value.device.type == device else value.to(device)
    return value.to(dtype) if dtype is not None and value.is_floating_point() else value


def call(spec: OpSpec, example: Example, backend: str, device: str = "cpu", dtype=None, **more):
    kwargs = {name: to(value, device, dtype) for name, value in example.kwargs.items()}
    args = [to(value, device, dtype) for value in example.args]
    return spec.examples.call(*args, backend=backend, **kwargs, **more)


def outputs(result) -> list[Tensor]:
    """The tensors of a result, of a function that returns one or a tuple."""
    return [t.cpu() for t in (result if isinstance(result, tuple) else (result,))]


def assert_close(got: Tensor, exact: Tensor, epsilons: float, what: str) -> None:
    """The error is at most `epsilons` machine epsilons (of the type of `got`, float32 at least where that is finer
    than the arithmetic) of the largest exact value; what is not floating point is equal."""
    assert got.shape == exact.shape, what
    if not got.is_floating_point():
        assert torch.equal(got, exact), what
        return
    if not got.numel():
        return
    unit = torch.finfo(got.dtype).eps
    error = (got.double() - exact.double()).abs().max().item()
    scale = exact.double().abs().max().item()
    # Half types hold what float32 arithmetic gives, rounded once: half a unit.
    bound = epsilons * unit if unit < 1e-5 else 0.5 * unit + epsilons * torch.finfo(torch.float32).eps
    assert error <= bound * scale, (
        f"{what}: error {error:.3e}, {error / (unit * scale + 1e-300):.1f} eps of {scale:.3e}"
    )


@cell
def test_forward_matches_the_reference_in_float64(request, spec, dtype, layout, backend):
    device = device_of(backend)
    require_backend(request, spec.name, backend, device)
    for example in spec.examples.small(dtype, layout):
        exact = outputs(call(spec, example, "reference", dtype=torch.float64))
        got = outputs(call(spec, example, backend, device))
        for g, e in zip(got, exact, strict=True):
            assert_close(g, e, spec.tolerance["forward"] * example.conditioning, f"{example.name} on {backend}")


@pytest.mark.parametrize(("spec", "dtype", "layout"), [c for c in cells() if c.values[0].examples.into])
def test_results_are_the_same_bits_where_the_caller_wants_them(request, spec, dtype, layout, backend):
    """On what shows every argument: a result in memory that is given, none of which is left as it was."""
    device = device_of(backend)
    require_backend(request, spec.name, backend, device)
    for example in spec.examples.small(dtype, layout):
        if example.name not in spec.examples.traced:
            continue
        expected = call(spec, example, backend, device)
        out = torch.empty_like(expected).fill_(float("nan"))
        args = [to(value, device) for value in example.args]
        kwargs = {name: to(value, device) for name, value in example.kwargs.items()}
        assert spec.examples.into(out, *args, backend=backend, **kwargs) is out
        assert torch.equal(*(t.contiguous().view(torch.uint8) for t in (out, expected))), example.name


def gradients(spec: OpSpec, example: Example, backend: str, device: str, upstream: Tensor, dtype=None) -> list[Tensor]:
    args = [to(value, device, dtype) for value in example.args]
    differentiable = spec.examples.differentiable_of(example)
    for i in differentiable:
        args[i] = args[i].detach().requires_grad_()
    kwargs = {name: to(value, device, dtype) for name, value in example.kwargs.items()}
    out = spec.examples.call(*args, backend=backend, **kwargs)
    wanted = [args[i] for i in differentiable]
    return [g.cpu() for g in torch.autograd.grad(out, wanted, upstream.to(out))]


@differentiable_cell
def test_gradients_match_the_reference_in_float64(request, spec, dtype, layout, backend):
    device = device_of(backend)
    require_backend(request, spec.name, backend, device)
    for example in spec.examples.small(dtype, layout):
        out = call(spec, example, "reference")
        upstream = torch.empty_like(out, dtype=dtype)  # in the memory format of the output
        upstream.copy_(torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
        exact = gradients(spec, example, "reference", "cpu", upstream, torch.float64)
        got = gradients(spec, example, backend, device, upstream)
        for i, g, e in zip(spec.examples.differentiable_of(example), got, exact, strict=True):
            assert g.dtype == example.args[i].dtype
            assert_close(
                g, e, spec.tolerance[i] * example.conditioning, f"gradient of argument {i}, {example.name} on {backend}"
            )


@pytest.mark.slow_if_interpreted("the gradients are held to those of the reference, of which differences are taken")
@pytest.mark.parametrize("spec", [s for s in SPECS if s.examples.differentiable], ids=lambda s: s.name)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradcheck(request, spec, layout, backend):
    device = device_of(backend)
    require_backend(request, spec.name, backend, device)
    for example in spec.examples.small(torch.float64, layout):
        if not example.gradcheck:
            continue
        if sum(a.numel() for a in example.args if isinstance(a, Tensor)) > 10_000:
            continue  # the numerical Jacobian of the wide maps would take minutes and tests nothing else
        args = [to(value, device) for value in example.args]
        kwargs = {name: to(value, device) for name, value in example.kwargs.items()} | spec.gradcheck

        differentiable = spec.examples.differentiable_of(example)

        def of_differentiable(*tensors, args=args, kwargs=kwargs, differentiable=differentiable):
            full = list(args)
            for i, t in zip(differentiable, tensors, strict=True):
                full[i] = t
            return spec.examples.call(*full, backend=backend, **kwargs)

        inputs = [args[i].detach().requires_grad_() for i in differentiable]
        assert torch.autograd.gradcheck(of_differentiable, inputs, eps=spec.gradcheck_step, fast_mode=True), (
            example.name
        )


class CalledOps(torch.utils._python_dispatch.TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@differentiable_cell
def test_each_gradient_is_computed_only_when_asked_for(request, spec, dtype, layout, backend):
    device = device_of(backend)
    require_backend(request, spec.name, backend, device)
    example = next(spec.examples.small(dtype, layout))
    upstream = torch.ones_like(call(spec, example, "reference"))
    everything = gradients(spec, example, backend, device, upstream)
    for i, expected in zip(spec.examples.differentiable_of(example), everything, strict=True):
        args = [to(value, device) for value in example.args]
        args[i] = args[i].detach().requires_grad_()
        kwargs = {name: to(value, device) for name, value in example.kwargs.items()}
        out = spec.examples.call(*args, backend=backend, **kwargs)
        with CalledOps() as called:
            (alone,) = torch.autograd.grad(out, [args[i]], upstream.to(out))
        assert torch.equal(alone.cpu(), expected)
        kernels = [name for name in called.names if name.startswith("adafocus.")]
        assert len(kernels) == spec.gradient_kernels, kernels


@pytest.mark.slow_if_interpreted("the interpreter has one thread, and takes programs in their order")
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_results_are_bitwise_reproducible(request, spec, backend):
    """From run to run, and for our own kernels whatever the number of threads."""
    device = device_of(backend)
    require_backend(request, spec.name, backend, device)
    threads = torch.get_num_threads()

    def run(example, count):
        torch.set_num_threads(count)
        results = outputs(call(spec, example, backend, device))
        if spec.examples.differentiable:
            upstream = torch.randn(results[0].shape, generator=torch.Generator().manual_seed(1))
            results += gradients(spec, example, backend, device, upstream)
        return results

    try:
        for example in spec.examples.small(torch.float32, "contiguous"):
            first = run(example, threads)
            one = backend == "reference" or is_emulated(backend)
            for count in (threads,) if one else (threads, 1, 2, 3):
                assert all(map(torch.equal, first, run(example, count))), f"{example.name}, {count} threads"
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("spec", [s for s in SPECS if s.examples.differentiable], ids=lambda s: s.name)
def test_compiles_in_full_with_dynamic_batch(request, spec, backend):
    device = device_of(backend)
    require_backend(request, spec.name, backend, device)
    example = next(spec.examples.small(torch.float32, "contiguous"))
    args = [to(value, device) for value in example.args]
    kwargs = {name: to(value, device) for name, value in example.kwargs.items()}
    differentiable, batched = spec.examples.differentiable_of(example), spec.examples.batched_arguments

    def loss(*tensors):
        full = list(args)
        for i, t in zip(differentiable, tensors, strict=True):
            full[i] = t
        return spec.examples.call(*full, backend=backend, **kwargs).square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for repeat in (1, 2, 3, 0):
        tensors = []
        for i in differentiable:
            t = args[i]
            if i in batched:
                t = torch.cat([t] * repeat) if repeat else t[:0]
            tensors.append(t.detach().requires_grad_())
        expected, got = loss(*tensors), compiled(*tensors)
        torch.testing.assert_close(got, expected)
        for g, e in zip(torch.autograd.grad(got, tensors), torch.autograd.grad(expected, tensors), strict=True):
            torch.testing.assert_close(g, e)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_a_backend_that_cannot_run_says_why(spec, backend):
    reason = adafocus_ops.backends.why_not(backend, spec.name, "cpu")
    example = next(spec.examples.small(torch.float32, "contiguous"))
    if reason is None:
        call(spec, example, backend)
    else:
        with pytest.raises(RuntimeError, match=f"backend '{backend}' cannot run {spec.name}: "):
            call(spec, example, backend)

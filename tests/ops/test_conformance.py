"""One suite for every op on every backend: op x backend x dtype x layout x sample."""

import pytest
import torch
from op_specs import SPECS, OpSpec, Sample
from torch import Tensor

import adafocus_ops
from conftest import device_of, is_emulated, require_backend


def cells():
    for spec in SPECS:
        for dtype in spec.dtypes:
            for layout in spec.layouts:
                name = f"{spec.name}-{str(dtype).removeprefix('torch.')}-{layout}"
                yield pytest.param(spec, dtype, layout, id=name)


cell = pytest.mark.parametrize(("spec", "dtype", "layout"), list(cells()))
differentiable_cell = pytest.mark.parametrize(
    ("spec", "dtype", "layout"),
    [c for c in cells() if c.values[0].differentiable and c.values[1].is_floating_point],
)


def to(value, device=None, dtype=None):
    """Moves the tensors of an argument; dtype changes floating-point ones only."""
    if not isinstance(value, Tensor):
        return value
    value = value if device is None or value.device.type == device else value.to(device)
    return value.to(dtype) if dtype is not None and value.is_floating_point() else value


def call(spec: OpSpec, sample: Sample, backend: str, device: str = "cpu", dtype=None, **more):
    kwargs = {name: to(value, device, dtype) for name, value in sample.kwargs.items()}
    args = [to(value, device, dtype) for value in sample.args]
    return spec.fn(*args, backend=backend, **kwargs, **more)


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
    for sample in spec.samples(dtype, layout):
        exact = outputs(call(spec, sample, "reference", dtype=torch.float64))
        got = outputs(call(spec, sample, backend, device))
        for g, e in zip(got, exact, strict=True):
            assert_close(g, e, spec.tolerance["forward"] * sample.conditioning, f"{sample.name} on {backend}")


def gradients(spec: OpSpec, sample: Sample, backend: str, device: str, upstream: Tensor, dtype=None) -> list[Tensor]:
    args = [to(value, device, dtype) for value in sample.args]
    for i in spec.differentiable:
        args[i] = args[i].detach().requires_grad_()
    kwargs = {name: to(value, device, dtype) for name, value in sample.kwargs.items()}
    out = spec.fn(*args, backend=backend, **kwargs)
    wanted = [args[i] for i in spec.differentiable]
    return [g.cpu() for g in torch.autograd.grad(out, wanted, upstream.to(out))]


@differentiable_cell
def test_gradients_match_the_reference_in_float64(request, spec, dtype, layout, backend):
    device = device_of(backend)
    require_backend(request, spec.name, backend, device)
    for sample in spec.samples(dtype, layout):
        out = call(spec, sample, "reference")
        upstream = torch.empty_like(out, dtype=dtype)  # in the memory format of the output
        upstream.copy_(torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
        exact = gradients(spec, sample, "reference", "cpu", upstream, torch.float64)
        got = gradients(spec, sample, backend, device, upstream)
        for i, g, e in zip(spec.differentiable, got, exact, strict=True):
            assert g.dtype == sample.args[i].dtype
            assert_close(
                g, e, spec.tolerance[i] * sample.conditioning, f"gradient of argument {i}, {sample.name} on {backend}"
            )


@pytest.mark.parametrize("spec", [s for s in SPECS if s.differentiable], ids=lambda s: s.name)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradcheck(request, spec, layout, backend):
    device = device_of(backend)
    require_backend(request, spec.name, backend, device)
    for sample in spec.samples(torch.float64, layout):
        if not sample.gradcheck:
            continue
        if sum(a.numel() for a in sample.args if isinstance(a, Tensor)) > 10_000:
            continue  # the numerical Jacobian of the wide maps would take minutes and tests nothing else
        args = [to(value, device) for value in sample.args]
        kwargs = {name: to(value, device) for name, value in sample.kwargs.items()} | spec.gradcheck

        def of_differentiable(*tensors, args=args, kwargs=kwargs):
            full = list(args)
            for i, t in zip(spec.differentiable, tensors, strict=True):
                full[i] = t
            return spec.fn(*full, backend=backend, **kwargs)

        inputs = [args[i].detach().requires_grad_() for i in spec.differentiable]
        assert torch.autograd.gradcheck(of_differentiable, inputs, eps=spec.gradcheck_step, fast_mode=True), sample.name


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
    sample = next(spec.samples(dtype, layout))
    upstream = torch.ones_like(call(spec, sample, "reference"))
    everything = gradients(spec, sample, backend, device, upstream)
    for i, expected in zip(spec.differentiable, everything, strict=True):
        args = [to(value, device) for value in sample.args]
        args[i] = args[i].detach().requires_grad_()
        kwargs = {name: to(value, device) for name, value in sample.kwargs.items()}
        out = spec.fn(*args, backend=backend, **kwargs)
        with CalledOps() as called:
            (alone,) = torch.autograd.grad(out, [args[i]], upstream.to(out))
        assert torch.equal(alone.cpu(), expected)
        kernels = [name for name in called.names if name.startswith("adafocus.")]
        assert len(kernels) == (0 if backend == "reference" else spec.gradient_kernels), kernels


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_results_are_bitwise_reproducible(request, spec, backend):
    """From run to run, and for our own kernels whatever the number of threads."""
    device = device_of(backend)
    require_backend(request, spec.name, backend, device)
    threads = torch.get_num_threads()

    def run(sample, count):
        torch.set_num_threads(count)
        results = outputs(call(spec, sample, backend, device))
        if spec.differentiable:
            upstream = torch.randn(results[0].shape, generator=torch.Generator().manual_seed(1))
            results += gradients(spec, sample, backend, device, upstream)
        return results

    try:
        for sample in spec.samples(torch.float32, "contiguous"):
            first = run(sample, threads)
            one = backend == "reference" or is_emulated(backend)
            for count in (threads,) if one else (threads, 1, 2, 3):
                assert all(map(torch.equal, first, run(sample, count))), f"{sample.name}, {count} threads"
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("spec", [s for s in SPECS if s.differentiable], ids=lambda s: s.name)
def test_compiles_in_full_with_dynamic_batch(request, spec, backend):
    device = device_of(backend)
    require_backend(request, spec.name, backend, device)
    sample = next(spec.samples(torch.float32, "contiguous"))
    kwargs = {name: to(value, device) for name, value in sample.kwargs.items()}

    def loss(*tensors):
        full = list(sample.args)
        for i, t in zip(spec.differentiable, tensors, strict=True):
            full[i] = t
        return spec.fn(*full, backend=backend, **kwargs).square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for repeat in (1, 2, 3, 0):
        tensors = []
        for i in spec.differentiable:
            t = torch.cat([to(sample.args[i], device)] * repeat) if repeat else to(sample.args[i], device)[:0]
            tensors.append(t.detach().requires_grad_())
        expected, got = loss(*tensors), compiled(*tensors)
        torch.testing.assert_close(got, expected)
        for g, e in zip(torch.autograd.grad(got, tensors), torch.autograd.grad(expected, tensors), strict=True):
            torch.testing.assert_close(g, e)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_a_backend_that_cannot_run_says_why(spec, backend):
    reason = adafocus_ops.backends.why_not(backend, spec.name, "cpu")
    sample = next(spec.samples(torch.float32, "contiguous"))
    if reason is None:
        call(spec, sample, backend)
    else:
        with pytest.raises(RuntimeError, match=f"backend '{backend}' cannot run {spec.name}: "):
            call(spec, sample, backend)

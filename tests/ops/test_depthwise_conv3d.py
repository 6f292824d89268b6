"""depthwise_conv3d: torch's conv3d in float64, layouts, forms of the kernels, gradients, bad arguments."""

import pytest
import torch
from torch.nn.functional import conv3d

from adafocus_ops import depthwise_conv3d
from adafocus_ops.examples.tensors import LAYOUTS, random_clips
from conftest import device_of, is_emulated, require_backend

X3D = ((3, 3, 3), 1, 1), ((3, 3, 3), (1, 2, 2), 1), ((5, 1, 1), 1, (2, 0, 0))
OTHERS = (
    ((1, 1, 1), (1, 2, 3), 0),
    ((2, 2, 2), 1, 1),
    ((3, 3, 3), 2, 0),
    ((3, 3, 3), (1, 2, 2), (2, 2, 2)),
    ((5, 5, 5), 1, 2),
    ((4, 5, 3), (2, 3, 4), (1, 2, 2)),
    ((1, 7, 7), (1, 2, 1), (0, 6, 3)),
)


def compare(backend, shape, taps, stride, padding, *, dtype=torch.float32, layout="contiguous", bias=True) -> None:
    """Result and gradients are those of torch's conv3d in float64."""
    device, generator = device_of(backend), torch.Generator().manual_seed(1)
    channels = shape[1]
    inputs = [random_clips(shape, dtype, layout), torch.randn(channels, 1, *taps, generator=generator).to(dtype)]
    inputs += [torch.randn(channels, generator=generator).to(dtype)] if bias else []
    exact = [t.double().requires_grad_() for t in inputs]
    inputs = [t.to(device).detach().requires_grad_() for t in inputs]
    got = depthwise_conv3d(*inputs, stride=stride, padding=padding, backend=backend)
    expected = conv3d(*exact, stride=stride, padding=padding, groups=channels)
    assert got.shape == expected.shape
    grad = torch.empty_like(got).copy_(torch.randn(got.shape, generator=generator))
    got = [got, *torch.autograd.grad(got, inputs, grad)]
    expected = [expected, *torch.autograd.grad(expected, exact, grad.cpu().double())]
    for name, ours, theirs in zip(("result", "x", "weight", "bias"), got, expected, strict=False):
        assert ours.dtype == dtype
        # Sums over all places are of noise that cancels: their rounding is that of larger sums. 11 and 5 seen.
        epsilons = 30 if name in ("weight", "bias") else 10
        bound = torch.finfo(dtype).eps * (epsilons if dtype.itemsize >= 4 else 0.55)
        error = (ours.cpu().double() - theirs).abs().max() / theirs.abs().max()
        assert error <= bound, f"{name}: {error / torch.finfo(dtype).eps:.1f} eps"


@pytest.mark.parametrize(
    ("layout", "dtype"), [*zip(LAYOUTS, (torch.float32, torch.float16, torch.float64), strict=True)], ids=str
)
@pytest.mark.parametrize(("taps", "stride", "padding"), [*X3D, *OTHERS])
def test_on_the_cpu(request, taps, stride, padding, dtype, layout):
    """Several blocks of channels, bands of rows and tiles of a row, whole and not."""
    require_backend(request, "depthwise_conv3d", "cpu", "cpu")
    for shape in ((1, 70, 3, 11, 18), (2, 3, 5, 9, 7), (1, 9, 3, 4, 33)):
        compare("cpu", shape, taps, stride, padding, dtype=dtype, layout=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("taps", "stride", "padding"), [*X3D, OTHERS[3]])
def test_forms_of_the_gpu_kernels(request, backend, taps, stride, padding, layout):
    """Vectors of all lengths that channels divide into, tiles that the last place is in the middle of."""
    if backend in ("cpu", "reference", "triton"):
        pytest.skip(f"of {backend} other tests see all that there is")
    require_backend(request, "depthwise_conv3d", backend, device_of(backend))
    for channels, dtype in ((8, torch.float16), (6, torch.float16), (5, torch.float32), (24, torch.float32)):
        compare(backend, (2, channels, 3, 3, 6), taps, stride, padding, dtype=dtype, layout=layout, bias=channels < 8)


@pytest.mark.parametrize(("taps", "stride", "padding"), OTHERS)
def test_any_kernel(request, backend, taps, stride, padding):
    require_backend(request, "depthwise_conv3d", backend, device_of(backend))
    if backend == "triton" and is_emulated(backend):
        pytest.skip("the interpreter takes a second for each")
    compare(backend, (1, 3, 4, 5, 6), taps, stride, padding)


def test_memory_formats(request, backend, device):
    """The result and the gradient of x lie as x does."""
    require_backend(request, "depthwise_conv3d", backend, device)
    x, weight = torch.randn(1, 4, 3, 4, 5, device=device), torch.randn(4, 1, 3, 3, 3, device=device)
    last = x.to(memory_format=torch.channels_last_3d)
    for given in (x, last, last[:, :, :, ::2], last.expand(2, -1, -1, -1, -1), x.transpose(3, 4)):
        given = given.detach().requires_grad_()
        y = depthwise_conv3d(given, weight, padding=1, backend=backend)
        (d_x,) = torch.autograd.grad(y, given, torch.ones_like(y))
        memory_format = torch.channels_last_3d if given.stride(1) == 1 else torch.contiguous_format
        assert y.is_contiguous(memory_format=memory_format)
        assert d_x.is_contiguous(memory_format=memory_format)


def test_the_weights_dtype_is_its_own(request, backend, device):
    """As under autocast: features of 16 bits, parameters of 32, which are not rounded."""
    require_backend(request, "depthwise_conv3d", backend, device)
    x = torch.randn(1, 4, 2, 3, 4, device=device).bfloat16()
    weight, bias = torch.randn(4, 1, 3, 3, 3, device=device), torch.randn(4, device=device)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    y = depthwise_conv3d(*leaves, padding=1, backend=backend)
    exact = conv3d(x.double(), weight.double(), bias.double(), padding=1, groups=4)
    assert y.dtype == torch.bfloat16
    assert ((y.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-6).all()
    grads = torch.autograd.grad(y, leaves, torch.ones_like(y))
    assert [g.dtype for g in grads] == [torch.bfloat16, torch.float32, torch.float32]


def test_not_a_number_stays_within_reach(request, backend, device):
    """Infinities and NaN reach the outputs whose taps read them, and no others."""
    require_backend(request, "depthwise_conv3d", backend, device)
    weight = torch.ones(3, 1, 3, 3, 3, device=device)
    for memory_format in (torch.contiguous_format, torch.channels_last_3d):
        x = torch.zeros(1, 3, 3, 5, 9, device=device)
        x[0, 1, 0, 2, 4] = torch.nan
        y = depthwise_conv3d(x.to(memory_format=memory_format), weight, padding=1, backend=backend)
        expected = torch.zeros_like(y, dtype=torch.bool)
        expected[0, 1, :2, 1:4, 3:6] = True
        assert torch.equal(y.isnan(), expected)


def test_sums_do_not_depend_on_the_number_of_threads(request):
    """Of sizes that are cut into many tasks."""
    require_backend(request, "depthwise_conv3d", "cpu", "cpu")
    threads = torch.get_num_threads()
    x = random_clips((2, 70, 4, 40, 40), torch.float32, "channels_last").requires_grad_()
    weight = torch.randn(70, 1, 3, 3, 3, requires_grad=True)
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            y = depthwise_conv3d(x, weight, padding=1, backend="cpu")
            results.append([y.detach(), *torch.autograd.grad(y, (x, weight), y.detach())])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("in_dims", [(1, None), (1, 0), (None, 0)], ids=str)
def test_vmap(request, backend, device, in_dims):
    """Clips, weights or both mapped, forward and gradients, equal a loop."""
    require_backend(request, "depthwise_conv3d", backend, device)
    if backend == "triton" and is_emulated(backend):
        pytest.skip("the rule is that of all backends, and the interpreter slow")
    x, weight = torch.randn(1, 2, 3, 2, 3, 4, device=device), torch.randn(2, 3, 1, 3, 3, 3, device=device)
    args = [t if dim is not None else t.select(at, 0) for t, dim, at in zip((x, weight), in_dims, (1, 0), strict=True)]

    def gradients(x, weight):
        def loss(x, weight):
            return depthwise_conv3d(x, weight, padding=1, backend=backend).square().sum()

        return torch.func.grad(loss, (0, 1))(x, weight)

    got = torch.func.vmap(gradients, in_dims)(*args)
    for i in range(2):
        entry = [t if dim is None else t.select(dim, i) for t, dim in zip(args, in_dims, strict=True)]
        for g, e in zip(got, gradients(*entry), strict=True):
            assert torch.equal(g[i], e)


def test_it_is_once_differentiable():
    x, weight = torch.randn(1, 2, 3, 3, 3, requires_grad=True), torch.randn(2, 1, 3, 3, 3)
    (grad,) = torch.autograd.grad(depthwise_conv3d(x, weight).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="depthwise_conv3d is once differentiable"):
        grad.sum().backward()


X, WEIGHT = torch.zeros(2, 4, 3, 5, 6), torch.zeros(4, 1, 3, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": X.int()}, TypeError, "x must have dtype float16, .*, got int32"),
        ({"x": X[0]}, ValueError, r"x must be \[N, C, T, H, W\], got \(4, 3, 5, 6\) float32"),
        ({"weight": WEIGHT.long()}, TypeError, "weight must have dtype .*, got int64"),
        (
            {"weight": WEIGHT[:3]},
            ValueError,
            r"weight must be \[C, 1, kt, kh, kw\] with C=4 of x, got \(3, 1, 3, 3, 3\) float32",
        ),
        ({"weight": torch.zeros(4, 2, 3, 3, 3)}, ValueError, r"weight must be \[C, 1, kt, kh, kw\] with C=4"),
        (
            {"weight": torch.zeros(4, 1, 3, 8, 3)},
            ValueError,
            r"weight must have 1 to 7 taps on each axis, got .* \(h\)",
        ),
        ({"bias": torch.zeros(3)}, ValueError, r"bias must be \[C\] with C=4 of x, got \(3,\) float32"),
        ({"stride": 0}, ValueError, r"stride must be at least 1, got \(0, 0, 0\)"),
        ({"stride": (1, 2)}, ValueError, r"stride must be an int or three, \(t, h, w\), got 2"),
        ({"stride": 1.5}, TypeError, "stride must be an int or three, got float"),
        ({"padding": (0, 0, -1)}, ValueError, r"padding must be at least 0, got \(0, 0, -1\)"),
        ({"padding": (0, 3, 0)}, ValueError, "padding must be less than the 3 taps along h, got 3"),
        (
            {"x": X[:, :, :2]},
            ValueError,
            r"x must have at least 3 places along t, for 3 taps and padding 0, got \(2, 4, 2, 5, 6\) float32",
        ),
        ({"x": X[:, :, :0], "padding": 2}, ValueError, "x must have at least 1 places along t"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        depthwise_conv3d(**({"x": X, "weight": WEIGHT} | arguments))

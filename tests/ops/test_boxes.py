"""adafocus_ops.boxes: the converters."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from adafocus_ops import boxes

CONVERTERS = {
    "from_xyxy": boxes.from_xyxy,
    "to_xyxy": boxes.to_xyxy,
    "from_normalised": lambda b: boxes.from_normalised(b, (4, 5)),
    "to_normalised": lambda b: boxes.to_normalised(b, (4, 5)),
    "scale": lambda b: boxes.scale(b, (16, 20), (4, 5)),
    "from_action": lambda b: boxes.from_action(b, (16, 20), 4, 16),
    "from_centre_action": lambda b: boxes.from_centre_action(b, (16, 20), 4, 16),
    "clamp": lambda b: boxes.clamp(b, (30, 40)),
}
INTEGERS = tuple(getattr(torch, f"{sign}int{bits}") for sign in ("u", "") for bits in (8, 16, 32, 64))
each_converter = pytest.mark.parametrize("converter", CONVERTERS.values(), ids=CONVERTERS)


@pytest.fixture
def some():
    return torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 50 + 10


def test_corners_round_trip(some):
    assert boxes.from_xyxy(torch.tensor([[2.0, 3.0, 12.0, 9.0]])).tolist() == [[6.0, 7.0, 6.0, 10.0]]
    torch.testing.assert_close(boxes.from_xyxy(boxes.to_xyxy(some)), some)


def test_normalised_round_trip_and_feature_map(some):
    assert boxes.from_normalised(torch.tensor([0.5, 0.25, 1.0, 0.5]), (100, 200)).tolist() == [50, 50, 100, 100]
    torch.testing.assert_close(boxes.from_normalised(boxes.to_normalised(some, (60, 80)), (60, 80)), some)
    torch.testing.assert_close(boxes.scale(some, (224, 224), (7, 7)), some / 32)


def test_a_policy_box_never_leaves_the_frame():
    action = torch.rand(1000, 4, generator=torch.Generator().manual_seed(0))
    x0, y0, x1, y1 = boxes.to_xyxy(boxes.from_action(action, (224, 200), 96, 200)).unbind(-1)
    for low, high, size in ((x0, x1, 200), (y0, y1, 224)):
        assert low.min() >= -1e-4
        assert high.max() <= size + 1e-4
    corner = boxes.from_action(torch.tensor([[0.0, 1.0, 0.0, 1.0]]), (224, 224), 96, 224)
    assert corner.tolist() == [[48.0, 112.0, 96.0, 224.0]]


def test_place_and_size_of_an_action_are_of_their_own_axes():
    action = torch.tensor([0.25, 0.75, 0.5, 1.0])
    assert boxes.from_action(action, (100, 240), 20, 60).tolist() == [35, 165, 40, 60]
    assert boxes.from_centre_action(action, (100, 240), 20, 60).tolist() == [25, 180, 40, 60]


def test_scale_keeps_the_axes_apart():
    assert boxes.scale(torch.tensor([8.0, 10, 4, 5]), (16, 20), (4, 40)).tolist() == [2, 20, 1, 10]


@each_converter
def test_each_box_is_converted_alone(converter, some):
    """In any number of dimensions."""
    alone = torch.stack([torch.stack([converter(box) for box in row]) for row in some])
    assert torch.equal(converter(some), alone)
    assert torch.equal(converter(some[:, None]), alone[:, None])


def test_clamp_shrinks_each_axis_to_its_own_size():
    large = torch.tensor([[7.0, 7.0, 30.0, 30.0]])
    assert boxes.clamp(large, (20, 24)).tolist() == [[10, 12, 20, 24]]
    assert boxes.clamp(large, (40, 24)).tolist() == [[15, 12, 30, 24]]
    assert boxes.clamp(large, (20, 40)).tolist() == [[10, 15, 20, 30]]


def test_clamp_moves_boxes_into_the_frame():
    outside = torch.tensor([[-5.0, 5.0, 8.0, 4.0], [50.0, 50.0, 30.0, 8.0], [3.0, 3.0, -2.0, 4.0]])
    assert boxes.clamp(outside, (20, 24)).tolist() == [[4, 5, 8, 4], [10, 20, 20, 8], [3, 3, 0, 4]]


def test_grid_is_row_major_with_whole_corners():
    found = boxes.to_xyxy(boxes.grid(7, 7, (96, 96), (224, 224)))
    assert found.shape == (49, 4)
    assert torch.equal(found, found.round())
    assert found[0].tolist() == [0, 0, 96, 96]
    assert found[1].tolist() == [21, 0, 117, 96]
    assert found[-1].tolist() == [128, 128, 224, 224]


def test_corners_of_the_grid_are_rounded_down_exactly():
    """Boxes larger than the frame included."""
    for rows in range(1, 41):
        for span in range(-5, 60):
            found = boxes.grid(rows, 1, (10, 3), (10 + span, 3))[:, 0] - 5
            assert found.tolist() == [math.floor(Fraction(i * span, max(rows - 1, 1))) for i in range(rows)]


def test_full_frame():
    found = boxes.full_frame(2, (10, 21))
    assert found.tolist() == [[5, 10.5, 10, 21]] * 2
    found[0] = 0
    assert found[1].tolist() == [5, 10.5, 10, 21]
    assert boxes.full_frame(0, (10, 21)).shape == (0, 4)


@pytest.mark.parametrize("default", [torch.float16, torch.float64], ids=str)
def test_fixed_boxes_are_float32_whatever_the_defaults(default):
    wanted = boxes.grid(3, 2, (3001, 3), (5002, 6)), boxes.full_frame(2, (5001, 7))
    torch.set_default_dtype(default)
    try:
        with torch.device("meta"):
            found = boxes.grid(3, 2, (3001, 3), (5002, 6), "cpu"), boxes.full_frame(2, (5001, 7), "cpu")
            assert boxes.grid(3, 2, (1, 1), (5, 6)).is_meta
            assert boxes.full_frame(2, (1, 1)).is_meta
    finally:
        torch.set_default_dtype(torch.float32)
    for f, w in zip(found, wanted, strict=True):
        assert f.dtype == torch.float32
        assert torch.equal(f, w)
        assert f.is_contiguous()


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_corners_neither_wrap_nor_round(dtype):
    """At both ends of the dtype, and as far as float32 counts in halves."""
    low, high = max(torch.iinfo(dtype).min, -(2**22)), min(torch.iinfo(dtype).max, 2**22)
    corners = [[low, low + 1, high, high - 2], [high - 3, high - 2, high, high], [high, high, low, low]]
    found = boxes.from_xyxy(torch.tensor(corners, dtype=dtype))
    assert found.dtype == torch.float32
    assert found.tolist() == [[(y0 + y1) / 2, (x0 + x1) / 2, y1 - y0, x1 - x0] for x0, y0, x1, y1 in corners]


def test_large_half_precision_corners_neither_overflow_nor_round():
    found = boxes.from_xyxy(torch.tensor([[60000, 2050, 65504, 4100]], dtype=torch.float16))
    assert found.tolist() == [[3075, 62752, 2050, 5504]]


@each_converter
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [*INTEGERS, torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_converters_compute_in_float32_at_least(converter, dtype, autocast):
    given = torch.tensor([[3, 2, 12, 9], [1, 0, 1, 1]]).to(dtype)
    wanted = converter(given.double())
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        found = converter(given)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found, wanted.to(found.dtype), rtol=2e-7, atol=0)


@each_converter
def test_converters_inside_transforms(converter):
    given = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0))
    wanted = converter(given)
    assert torch.equal(torch.vmap(converter)(given), wanted)
    assert torch.equal(torch.vmap(torch.vmap(converter))(given), wanted)
    assert converter(given.to("meta")).shape == wanted.shape
    with torch.device("meta"):
        assert torch.equal(converter(given), wanted)
    torch.compiler.reset()
    compiled = torch.compile(converter, fullgraph=True, dynamic=True, backend="aot_eager")
    assert torch.equal(compiled(given), wanted)
    assert torch.equal(compiled(given[0]), wanted[0])


@each_converter
def test_gradients_of_converters(converter):
    given = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(converter, (given,))


def test_fixed_boxes_of_symbolic_sizes():
    def fixed(frames):
        size = frames.shape[-2:]
        return boxes.full_frame(frames.shape[0], size, frames.device), boxes.grid(3, 2, (2, 3), size)

    torch.compiler.reset()
    compiled = torch.compile(fixed, fullgraph=True, dynamic=True, backend="aot_eager")
    for frames in (torch.rand(2, 8, 9), torch.rand(5, 11, 16)):
        for found, wanted in zip(compiled(frames), fixed(frames), strict=True):
            assert torch.equal(found, wanted)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.float16], ids=lambda kind: kind.__name__)
def test_small_sizes_of_numpy_neither_wrap_nor_round(kind):
    given = torch.tensor([[0.5, 0.25, 0.5, 0.75]])
    size, other = (kind(100), kind(120)), (kind(3), kind(7))
    assert torch.equal(boxes.scale(given, size, other), boxes.scale(given, (100, 120), (3, 7)))
    found = boxes.from_action(given, size, kind(120), kind(10))
    assert torch.equal(found, boxes.from_action(given, (100, 120), 120, 10))
    if kind is not np.float16:
        found = boxes.grid(kind(12), kind(2), (kind(120), kind(3)), size)
        assert torch.equal(found, boxes.grid(12, 2, (120, 3), (100, 120)))


def test_place_and_size_of_a_centre_action_move_alone():
    action = torch.rand(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = boxes.from_centre_action(action, (224, 200), 96, 200)
    assert torch.equal(found[:, :2], action[:, :2] * torch.tensor([224, 200]))
    assert torch.equal(found[:, 2:], boxes.from_action(action, (224, 200), 96, 200)[:, 2:])
    jacobian = torch.func.vmap(torch.func.jacrev(lambda a: boxes.from_centre_action(a, (224, 200), 96, 200)))(action)
    assert torch.equal(jacobian, torch.diag(torch.tensor([224.0, 200, 104, 104])).double().expand(50, 4, 4))
    centred = torch.tensor([[0.5, 0.5, 0.25, 1.0]])
    assert torch.equal(*(f(centred, (224, 224), 96, 224) for f in (boxes.from_action, boxes.from_centre_action)))


def test_the_gradient_of_a_place_shrinks_with_what_the_size_leaves():
    """As from_action's docstring says."""
    action = torch.tensor([0.25, 0.5, 1.0, 0.5], dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda a: boxes.from_action(a, (224, 224), 96, 224))(action)
    assert jacobian[0].tolist() == [0, 0, (0.5 - 0.25) * 128, 0]
    assert jacobian[1].tolist() == [0, 224 - 160, 0, 0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: boxes.to_xyxy(torch.zeros(3, 5)),
            ValueError,
            r"boxes must be a \[..., 4\] tensor, got \(3, 5\) float32",
        ),
        (lambda: boxes.to_xyxy([1, 2, 3, 4]), TypeError, "boxes must be a tensor, got list"),
        (lambda: boxes.from_xyxy(torch.ones(4) > 0), TypeError, "xyxy must have dtype uint8, .*, got bool"),
        (lambda: boxes.from_xyxy(torch.ones(4) + 0j), TypeError, "xyxy must have dtype uint8, .*, got complex64"),
        (lambda: boxes.from_xyxy(torch.ones(2, 4).to_sparse()), TypeError, "xyxy must be dense"),
        (
            lambda: boxes.scale(torch.ones(4), 7, (2, 2)),
            TypeError,
            r"from_size must be a pair \(height, width\), got 7",
        ),
        (lambda: boxes.scale(torch.ones(4), (7, 7), (2, "3")), TypeError, "to_size width must be a number, got str"),
        (lambda: boxes.scale(torch.ones(4), (0, 7), (2, 2)), ValueError, r"from_size must be positive, got \(0, 7\)"),
        (
            lambda: boxes.from_action(torch.ones(4), (7, 7), None, 4),
            TypeError,
            "min_side must be a number, got NoneType",
        ),
        (lambda: boxes.full_frame(-1, (4, 4)), ValueError, "count must be at least 0, got -1"),
        (lambda: boxes.full_frame(1.5, (4, 4)), TypeError, "count must be an int, got float"),
        (lambda: boxes.grid(0, 3, (4, 4), (8, 8)), ValueError, "rows must be at least 1, got 0"),
        (lambda: boxes.grid(2, True, (4, 4), (8, 8)), TypeError, "columns must be an int, got bool"),
        (lambda: boxes.grid(2, 3, (4.5, 4), (8, 8)), TypeError, "box_size height must be an int, got float"),
    ],
)
def test_bad_arguments_say_what_was_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()

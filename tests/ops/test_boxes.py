"""adafocus_ops.boxes: the converters."""

import pytest
import torch

from adafocus_ops import boxes


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


def test_full_frame():
    assert boxes.full_frame(2, (10, 20)).tolist() == [[5, 10, 10, 20]] * 2


def test_converters_are_differentiable():
    action = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: boxes.to_xyxy(boxes.from_action(a, (20, 30), 4, 20)), (action,))


def test_bad_boxes_say_what_was_wrong():
    with pytest.raises(ValueError, match=r"boxes must be a \[..., 4\] tensor, got \(3, 5\) float32"):
        boxes.to_xyxy(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        boxes.grid(0, 3, (4, 4), (8, 8))

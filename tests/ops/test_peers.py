"""README's table of how crop_resize differs from what others offer: each line, and each claim about the others.

torchvision and kornia are compared where they are installed (third_party/requirements-peers.txt).
"""

import pytest
import torch
import torch.nn.functional as F

from adafocus_ops import boxes as box_ops
from adafocus_ops import crop_resize
from adafocus_ops.examples.tensors import random_images

FRAMES = random_images((2, 3, 16, 16), torch.float32, "contiguous")
BOXES = torch.tensor([[7.2, 8.1, 9.0, 8.0], [8.3, 7.7, 10.0, 11.0], [8.0, 8.0, 6.0, 12.0]])
INDEX = torch.tensor([0, 1, 0])
GRID = torch.zeros(2, 4, 4, 2)


@pytest.fixture
def roi_align():
    return pytest.importorskip("torchvision.ops", reason="torchvision is not installed").roi_align


@pytest.fixture
def crop_and_resize():
    return pytest.importorskip("kornia.geometry.transform", reason="kornia is not installed").crop_and_resize


def rois(boxes: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return torch.cat([index[:, None], box_ops.to_xyxy(boxes)], 1)


CORNERS = torch.tensor([[[1.0, 1.0], [8.0, 1.0], [8.0, 8.0], [1.0, 8.0]]])


class TestSeveralBoxesOfOneFrame:
    def test_ours_names_the_frame_of_each_box(self):
        assert len(crop_resize(FRAMES, BOXES, 4, frame_index=INDEX)) == 3

    def test_grid_sample_wants_a_frame_for_each(self):
        with pytest.raises(RuntimeError, match="same batch size"):
            F.grid_sample(FRAMES, GRID.expand(2, 4, 4, 2).repeat(2, 1, 1, 1), align_corners=False)

    def test_kornia_wants_a_frame_for_each(self, crop_and_resize):
        with pytest.raises(RuntimeError):
            crop_and_resize(FRAMES[:1], CORNERS.expand(3, 4, 2), (4, 4))

    def test_roi_align_names_it_in_a_column_of_the_boxes(self, roi_align):
        assert len(roi_align(FRAMES, rois(BOXES, INDEX), 4, sampling_ratio=1, aligned=True)) == 3


class TestGradientOfTheBoxes:
    def test_ours(self):
        boxes = BOXES.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(crop_resize(FRAMES, boxes, 4, frame_index=INDEX).square().sum(), boxes)
        assert gradient.abs().min() > 0

    def test_roi_align_has_none(self, roi_align):
        boxes = rois(BOXES, INDEX).requires_grad_()
        out = roi_align(FRAMES.clone().requires_grad_(), boxes, 4, sampling_ratio=1, aligned=True)
        out.sum().backward()
        assert boxes.grad is None


class TestUint8:
    def test_ours_normalises_it_in_the_read(self):
        out = crop_resize(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8), BOXES[:1] * 0.5, 4, mean=0.5, std=0.5)
        torch.testing.assert_close(out, torch.ones_like(out))

    def test_grid_sample_rejects_it(self):
        with pytest.raises(NotImplementedError, match="Byte"):
            F.grid_sample(FRAMES.byte(), GRID, align_corners=False)

    def test_roi_align_rejects_it(self, roi_align):
        with pytest.raises(RuntimeError):
            roi_align(FRAMES.byte(), rois(BOXES, INDEX), 4)

    def test_kornia_rejects_it(self, crop_and_resize):
        with pytest.raises(RuntimeError, match="Byte"):
            crop_and_resize(FRAMES.byte(), CORNERS.expand(2, 4, 2), (4, 4))


class TestPositionsOfHalfFrames:
    def test_ours_take_float32_boxes(self):
        assert crop_resize(FRAMES.bfloat16(), BOXES[:2], 4).dtype == torch.bfloat16

    def test_grid_sample_wants_a_half_grid(self):
        with pytest.raises(RuntimeError, match="BFloat16"):
            F.grid_sample(FRAMES.bfloat16(), GRID, align_corners=False)

    def test_roi_align_wants_half_boxes(self, roi_align):
        with pytest.raises(RuntimeError):
            roi_align(FRAMES.bfloat16(), rois(BOXES, INDEX), 4)

    def test_kornia_takes_float32_corners(self, crop_and_resize):
        assert crop_and_resize(FRAMES.bfloat16(), CORNERS.expand(2, 4, 2), (4, 4)).dtype == torch.bfloat16


class TestChannelsLast:
    FRAMES = FRAMES.contiguous(memory_format=torch.channels_last)

    def test_ours_keeps_it(self):
        assert crop_resize(self.FRAMES, BOXES[:2], 4).is_contiguous(memory_format=torch.channels_last)

    def test_grid_sample_does_not(self):
        out = F.grid_sample(self.FRAMES, GRID, align_corners=False)
        assert not out.is_contiguous(memory_format=torch.channels_last)

    def test_roi_align_does_not(self, roi_align):
        out = roi_align(self.FRAMES, rois(BOXES, INDEX), 4)
        assert not out.is_contiguous(memory_format=torch.channels_last)

    def test_kornia_does_not(self, crop_and_resize):
        out = crop_and_resize(self.FRAMES, CORNERS.expand(2, 4, 2), (4, 4))
        assert not out.is_contiguous(memory_format=torch.channels_last)


class TestABoxOfNaN:
    BOX = torch.tensor([[float("nan"), 8.0, 8.0, 8.0]])

    def test_ours_gives_nan_and_no_gradient(self):
        box = self.BOX.clone().requires_grad_()
        out = crop_resize(FRAMES[:1], box, 4)
        assert out.isnan().all()
        assert not torch.autograd.grad(out.sum(), box)[0].any()


class TestOutsideTheFrame:
    BOX = torch.tensor([[0.0, 8.0, 2.0, 4.0]])  # the first of two rows samples half a pixel above the frame's

    def test_ours_reads_zeros_or_the_edge(self):
        frames = torch.ones(1, 1, 16, 16)
        zeros, border = (crop_resize(frames, self.BOX, 2, padding=padding) for padding in ("zeros", "border"))
        assert zeros[0, 0, :, 0].tolist() == [0.0, 1.0]
        assert border[0, 0, :, 0].tolist() == [1.0, 1.0]

    @pytest.mark.parametrize(("mode", "expected"), [("zeros", 0.0), ("border", 1.0), ("reflection", 1.0)])
    def test_grid_sample_offers_reflection_too(self, mode, expected):
        outside = torch.full((1, 1, 1, 2), -3.0)
        out = F.grid_sample(torch.ones(1, 1, 16, 16), outside, padding_mode=mode, align_corners=False)
        assert out.item() == expected

    def test_kornia_reads_zeros(self, crop_and_resize):
        outside = CORNERS - 20
        assert not crop_and_resize(FRAMES[:1], outside, (4, 4)).any()

    def test_roi_align_repeats_the_edge_by_one_pixel(self, roi_align):
        out = roi_align(torch.ones(1, 1, 16, 16), rois(self.BOX, INDEX[:1]), 2, sampling_ratio=1, aligned=True)
        assert out[0, 0, :, 0].tolist() == [1.0, 1.0]


class TestWhatIsTheSame:
    """Inside the frame all compute the same samples."""

    def test_grid_sample(self):
        (cy, cx, h, w), zero = (BOXES[:2] / 16).unbind(1), torch.zeros(2)
        theta = torch.stack([w, zero, 2 * cx - 1, zero, h, 2 * cy - 1], 1).view(-1, 2, 3)
        grid = F.affine_grid(theta, [2, 3, 4, 4], align_corners=False)
        expected = F.grid_sample(FRAMES, grid, align_corners=False)
        torch.testing.assert_close(crop_resize(FRAMES, BOXES[:2], 4), expected, rtol=1e-4, atol=1e-5)

    def test_roi_align(self, roi_align):
        expected = roi_align(FRAMES, rois(BOXES, INDEX), 4, sampling_ratio=1, aligned=True)
        out = crop_resize(FRAMES, BOXES, 4, frame_index=INDEX)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)

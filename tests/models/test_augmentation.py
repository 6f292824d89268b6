"""Boxes of the published training transform, and their pixels against its chain of PIL."""

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="the room of data needs PyAV")
Image = pytest.importorskip("PIL.Image", reason="reading videos needs Pillow")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from adafocus_models.data import centre_box, random_segments, read_augmented, read_clip, training_box  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(count, height, width, seed=0):
    """[count, 3, height, width] uint8, stored channels_last."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def corners(box):
    """Top, left, height, width in whole pixels, and whether it is mirrored."""
    cy, cx, h, w = box.tolist()
    found = [cy - h / 2, cx - abs(w) / 2, h, abs(w)]
    assert all(value == int(value) for value in found)
    return (*map(int, found), w < 0)


def published(frame, box, size):
    """[3, S, S]: cut, resized, mirrored, scaled and normalised as the published transforms do it."""
    top, left, h, w, mirrored = corners(box)
    image = Image.fromarray(frame.permute(1, 2, 0).numpy()).crop((left, top, left + w, top + h))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scaled = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (scaled - mean) / std


def boxes_of(height, width, size, count, **options):
    rng = np.random.default_rng(0)
    return [training_box(height, width, rng, size=size, **options) for _ in range(count)]


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 600),
    width=st.integers(1, 600),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
    flip=st.booleans(),
)
def test_boxes_are_whole_pixels_inside_the_frame(height, width, share, seed, flip):
    size = max(1, int(share * min(height, width)))
    top, left, h, w, mirrored = corners(training_box(height, width, np.random.default_rng(seed), size=size, flip=flip))
    assert h >= 1
    assert w >= 1
    assert 0 <= top <= height - h
    assert 0 <= left <= width - w
    assert flip or not mirrored


def test_sides_and_places_are_all_of_the_published_ones():
    """Of 256 x 341 for 224: the sides 256, 224, 192 and 168, of neighbouring scales; 13 places of each pair."""
    found = {corners(box)[:4] for box in boxes_of(256, 341, 224, 6000, flip=False)}
    sides = [256, 224, 192, 168]
    pairs = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    places = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3)]
    expected = {(down * ((256 - h) // 4), right * ((341 - w) // 4), h, w) for h, w in pairs for down, right in places}
    assert found == expected


def test_pairs_and_flips_are_equally_likely():
    found = [corners(box)[2:] for box in boxes_of(256, 341, 224, 4000, flip=True)]
    for pair in {(h, w) for h, w, _ in found}:
        assert sum((h, w) == pair for h, w, _ in found) == pytest.approx(400, abs=80)  # four standard deviations
    assert sum(mirrored for *_, mirrored in found) == pytest.approx(2000, abs=130)


def test_a_side_near_the_size_becomes_it():
    heights = {corners(box)[2] for box in boxes_of(256, 256, 190, 300, flip=False)}
    assert heights == {256, 224, 190, 168}  # 192 is 2 pixels away
    heights = {corners(box)[2] for box in boxes_of(256, 256, 189, 300, flip=False)}
    assert heights == {256, 224, 192, 168}


def test_without_flips_all_else_is_the_same():
    plain, mirrored = (boxes_of(256, 341, 224, 50, flip=flip) for flip in (False, True))
    signs = {torch.equal(a, b) for a, b in zip(plain, mirrored, strict=True)}
    assert signs == {True, False}
    assert all(torch.equal(a, b.abs()) for a, b in zip(plain, mirrored, strict=True))


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(256, 341, 224), (341, 256, 224), (256, 256, 224), (224, 457, 224), (225, 229, 224), (256, 341, 60)],
)
def test_pixels_are_those_of_the_published_chain(height, width, size):
    """To the bytes that PIL rounds to, after the rows and again after the columns."""
    frames = noise(2, height, width)
    for box in boxes_of(height, width, size, 12, flip=True):
        ours = read_augmented(frames, box, size, mean=MEAN, std=STD)
        theirs = torch.stack([published(frame, box, size) for frame in frames])
        resized = (box[2:].abs() != size).sum().item()  # axes
        bytes_apart = (ours - theirs).abs() * torch.tensor(STD)[:, None, None] * 255
        assert bytes_apart.max() < (1e-4, 0.51, 1.01)[resized]  # seen: 3e-5, 0.503 and 1.003


def test_a_mirrored_box_is_the_mirror_of_the_other():
    frames = noise(3, 256, 341)
    for box in boxes_of(256, 341, 224, 12, flip=False):
        plain = read_augmented(frames, box, 224, mean=MEAN, std=STD)
        mirrored = read_augmented(frames, box * torch.tensor([1, 1, 1, -1]), 224, mean=MEAN, std=STD)
        assert torch.equal(mirrored, plain.flip(-1))


@pytest.mark.parametrize("size", [(31, 40), (40, 31), (25, 25), (24, 33)])
def test_the_central_box_is_what_read_clip_cuts_out(tmp_path, size):
    frames = noise(1, *size)
    Image.fromarray(frames[0].permute(1, 2, 0).numpy()).save(tmp_path / "0.png")
    cut, _ = read_clip(tmp_path, 1, 0, frame_size=24, short_side=min(size))
    box = centre_box(*size, 24)
    top, left, h, w, mirrored = corners(box)
    assert (h, w, mirrored) == (24, 24, False)
    assert torch.equal(frames[..., top : top + h, left : left + w], cut.frames)
    pixels = read_augmented(frames, box, 24, mean=(0, 0, 0), std=(1 / 255,) * 3)
    torch.testing.assert_close(pixels, cut.frames.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_writes_where_it_is_told_to(dtype):
    frames, box = noise(2, 60, 80), training_box(60, 80, np.random.default_rng(0), size=48, flip=True)
    out = torch.empty(2, 3, 48, 48, dtype=dtype)
    assert read_augmented(frames, box, 48, mean=MEAN, std=STD, out=out) is out
    fresh = read_augmented(frames, box, 48, mean=MEAN, std=STD, dtype=dtype)
    assert torch.equal(out, fresh)
    assert fresh.dtype == dtype
    assert fresh.is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=200, deadline=None)
@given(num_frames=st.integers(1, 300), num_segments=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_random_segments_are_drawn_as_published(num_frames, num_segments, seed):
    found = random_segments(num_frames, num_segments, np.random.default_rng(seed))
    length = num_frames // num_segments
    rng = np.random.default_rng(seed)
    if length > 0:  # TSM's loader, line by line
        expected = np.multiply(list(range(num_segments)), length) + rng.integers(length, size=num_segments)
    else:
        expected = np.floor((rng.random(num_segments) + np.arange(num_segments)) / num_segments * num_frames)
    assert found == expected.tolist()
    assert len(found) == num_segments
    assert all(isinstance(number, int) and 0 <= number < num_frames for number in found)
    assert found == sorted(found)


def test_random_segments_reach_every_frame_of_each():
    rng = np.random.default_rng(0)
    drawn = np.array([random_segments(25, 8, rng) for _ in range(200)])
    assert [sorted(set(column)) for column in drawn.T] == [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(8)]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda rng: training_box(0, 9, rng, size=4, flip=True), ValueError, "height must be at least 1, got 0"),
        (
            lambda rng: training_box(20, 30, rng, size=24, flip=True),
            ValueError,
            "size must be at most the short side of frames of 20 x 30 pixels, got 24",
        ),
        (lambda rng: training_box(20, 30, rng, size=9, flip=1), TypeError, "flip must be a bool, got int"),
        (
            lambda rng: training_box(20, 30, rng, size=9, flip=True, scales=(1, 0)),
            ValueError,
            r"scales must be numbers above 0 and at most 1, got \(1, 0\)",
        ),
        (lambda rng: centre_box(20, 30, 21), ValueError, "size must be at most the short side"),
        (lambda rng: random_segments(0, 8, rng), ValueError, "num_frames must be at least 1, got 0"),
        (
            lambda rng: read_augmented(noise(1, 9, 9), torch.ones(1, 4), 4, mean=MEAN, std=STD),
            ValueError,
            r"box must be \[4\], got \(1, 4\)",
        ),
    ],
)
def test_arguments_that_do_not_fit(call, error, message):
    with pytest.raises(error, match=message):
        call(np.random.default_rng(0))

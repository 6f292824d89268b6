"""read_clip on folders of images of every kind."""

import contextlib

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="reading videos needs PyAV")
Image = pytest.importorskip("PIL.Image", reason="reading videos needs Pillow")

from video_data import SHADE, no_warnings, shown  # noqa: E402

from adafocus_models.data import read_clip  # noqa: E402

MODES = {  # what Image.new makes of each, and the RGB that it stands for
    "1": (1, (255, 255, 255)),
    "L": (77, (77, 77, 77)),
    "LA": ((77, 0), (77, 77, 77)),
    "P": (3, (10, 20, 30)),
    "RGB": ((10, 20, 30), (10, 20, 30)),
    "RGBA": ((10, 20, 30, 0), (10, 20, 30)),
    "CMYK": ((10, 20, 30, 0), (245, 235, 225)),
    "I;16": (0x4D80, (77, 77, 77)),
}
FORMATS = {
    ".png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    ".tif": ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"),
    ".TIFF": ("RGB",),
    ".bmp": ("1", "L", "P", "RGB"),
    ".webp": ("RGB", "RGBA"),
    ".jpg": ("L", "RGB"),
}


def image_of(mode):
    image = Image.new(mode, (60, 50), MODES[mode][0])
    if mode == "P":
        image.putpalette([0] * 9 + [10, 20, 30] + [0] * 756)
    return image


@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix, modes in FORMATS.items() for mode in modes])
def test_every_kind_of_pixel(tmp_path, suffix, mode):
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    if (suffix, mode) == (".png", "P"):
        options = {"transparency": bytes([255, 255, 255, 0])}  # Pillow would warn that it is not applied
    image_of(mode).save(tmp_path / f"frame{suffix}", **options)
    with no_warnings():
        frames = read_clip(tmp_path, 1, 1)[0].frames
    expected = torch.tensor(MODES[mode][1], dtype=torch.uint8)[:, None, None].expand(3, 224, 224)
    torch.testing.assert_close(frames[0], expected, atol=2 if suffix == ".jpg" else 0, rtol=0)


def test_sixteen_bits_are_scaled_by_their_high_byte(tmp_path):
    values = np.arange(0, 65536, 13, np.uint16)[:4096].reshape(64, 64)
    for folder, pixels in (("deep", values), ("flat", (values // 256).astype(np.uint8))):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "frame.png")
    deep, flat = (read_clip(tmp_path / folder, 1, 1)[0].frames for folder in ("deep", "flat"))
    assert torch.equal(deep, flat)
    assert deep.unique().numel() > 100


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_no_known_range_are_refused(tmp_path, dtype):
    Image.fromarray(np.ones((40, 50), dtype)).save(tmp_path / "frame.tif")
    with pytest.raises(ValueError, match=r"frame\.tif cannot be read as an image \(32 bits a pixel"):
        read_clip(tmp_path, 1, 1)


def test_sixteen_bits_are_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 3
    image = Image.fromarray(np.repeat(np.array([[0, 65535]], np.uint16), 2, 0).repeat(32, 0).repeat(32, 1))
    image.save(tmp_path / "frame.png", exif=exif)
    frame = read_clip(tmp_path, 1, 1)[0].frames[0]
    assert frame[:, :, :80].min() == 255
    assert frame[:, :, -80:].max() == 0


def test_an_image_of_too_many_pixels_is_a_clear_error(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "frame.png")
    with pytest.raises(ValueError, match=r"frame\.png has too many pixels to be read .*: resize it"):
        read_clip(tmp_path, 1, 1)


@pytest.mark.parametrize("size", [(1, 65000), (65000, 1), (7, 701)])
def test_a_strip_is_a_clear_error(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "frame.png")
    with pytest.raises(ValueError, match=f"a frame of {size[0]} x {size[1]} pixels: a side must be at most 100 times"):
        read_clip(tmp_path, 1, 1)


def test_frames_of_several_sizes_and_formats_among_other_things(tmp_path):
    for i, suffix in enumerate((".png", ".jpg", ".bmp", ".webp", ".tif", ".JPEG")):
        grey = (SHADE * (i + 1),) * 3
        Image.new("RGB", (50 + 10 * i, 90 - 10 * i), grey).save(tmp_path / f"frame {i}{suffix}")
    (tmp_path / "frame 9.png").mkdir()
    (tmp_path / ".frame 7.png").write_text("a note")
    (tmp_path / "clip.mp4").write_text("a video")
    with no_warnings():
        clip, _ = read_clip(tmp_path, 6, 1)
    assert shown(clip) == list(range(6))


def test_damaged_exif_data_harm_no_image(tmp_path):
    no_such_orientation = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0"
    for i, exif in enumerate((no_such_orientation, b"Exif\0\0??")):
        Image.new("RGB", (64, 48), (SHADE * (i + 1),) * 3).save(tmp_path / f"{i}.jpg", exif=exif)
    assert shown(read_clip(tmp_path, 2, 1)[0]) == [0, 1]


@pytest.mark.parametrize("suffix", sorted({suffix.lower() for suffix in FORMATS}))
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore")  # of Pillow, of each thing that it finds wrong
def test_damaged_images_are_never_a_traceback(tmp_path, suffix, seed):
    path, random = tmp_path / f"frame{suffix}", np.random.default_rng(seed)
    Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    for place in random.integers(0, min(len(content), 400), 20):
        content[place] = random.integers(256)
    path.write_bytes(content[: random.integers(1, len(content))])
    with contextlib.suppress(ValueError):
        read_clip(tmp_path, 1, 1)

"""read_clip: the right frames of every kind of video, and a clear error for what is none."""

import json
import runpy
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

av = pytest.importorskip("av", reason="reading videos needs PyAV")
Image = pytest.importorskip("PIL.Image", reason="reading videos needs Pillow")

from video_data import RATE, SHADE, cut, no_warnings, shown, write_video  # noqa: E402

from adafocus_models.data import Clip, read_clip, segment_centres  # noqa: E402

TESTS = Path(__file__).parents[1]
ORACLES = TESTS / "oracles" / "ops"


def bikes():
    """A real clip of 640 x 272 pixels, 250 frames, 10 s."""
    try:
        return runpy.run_path(str(TESTS.parent / "bench" / "harness" / "clip.py"))["sample_clip"]()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_segment_centres_match_the_published_loader():
    oracle = np.load(ORACLES / "frame_sampling_and_preprocessing.npz")
    for segments in (8, 16, 24, 36, 48, 96):
        expected = oracle[f"frames_S{segments}"] - 1  # theirs count from 1
        got = [segment_centres(int(count), segments) for count in oracle["num_frames"]]
        np.testing.assert_array_equal(got, expected)


def test_preprocessing_matches_the_published_loader(tmp_path):
    oracle = np.load(ORACLES / "frame_sampling_and_preprocessing.npz")
    config = json.loads((ORACLES / "index.json").read_text())["frame_sampling_and_preprocessing"]["preprocess"]
    for i, pixels in enumerate(oracle["images_uint8"]):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    clip, _ = read_clip(tmp_path, 2, 1, frame_size=config["center_crop"], short_side=config["resize_short_side"])
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    normalised = (clip.frames / 255 - mean) / std
    np.testing.assert_allclose(normalised.flatten(0, 1), oracle["preprocessed"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(240, 320), (319, 241), (300, 300), (256, 457), (301, 224), (64, 33), (1, 1)])
def test_resize_and_crop_of_any_size(tmp_path, size):
    height, width = size
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    image.save(tmp_path / "frame.png")
    # The published transform: torchvision's Resize(256) and CenterCrop(224) on images.
    if height <= width:
        resized = (int(256 * width / height), 256)
    else:
        resized = (256, int(256 * height / width))
    pixels = np.asarray(image.resize(resized, Image.Resampling.BILINEAR))
    top, left = (round((side - 224) / 2.0) for side in pixels.shape[:2])
    expected = pixels[top : top + 224, left : left + 224]
    clip, _ = read_clip(tmp_path, 1, 1)
    np.testing.assert_array_equal(clip.frames[0].permute(1, 2, 0), expected)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("index.mp4", "libx264", "yuv420p"),  # states its number of frames
        ("mpeg4.avi", "mpeg4", "yuv420p"),
        ("none.mkv", "ffv1", "bgr0"),  # does not
        ("gray.mkv", "ffv1", "gray"),
        ("vp9.webm", "libvpx-vp9", "yuv420p"),
        ("stream.ts", "libx264", "yuv420p"),
        ("raw.h264", "libx264", "yuv420p"),  # has no times either
    ],
)
@pytest.mark.parametrize("num_frames", [1, 5, 30])
def test_picks_the_right_frames(tmp_path, name, codec, pix_fmt, num_frames):
    path = write_video(tmp_path / name, num_frames, codec=codec, pix_fmt=pix_fmt)
    with no_warnings():
        clips = read_clip(path, 24, 8)
    for clip, count in zip(clips, (24, 8), strict=True):
        expected = [int((i + 0.5) / count * num_frames) for i in range(count)]
        assert shown(clip) == expected
        assert clip.source_index.tolist() == expected
        times = torch.tensor(expected, dtype=torch.float64) / RATE
        if name == "raw.h264":
            times = torch.full_like(times, float("nan"))
        torch.testing.assert_close(clip.time, times, atol=1e-3, rtol=0, equal_nan=True)


def test_frames_are_channels_last_bytes(tmp_path):
    candidates, glance = read_clip(write_video(tmp_path / "clip.mp4"), 6, 4)
    for clip, count in ((candidates, 6), (glance, 4)):
        assert clip.frames.shape == (count, 3, 224, 224)
        assert clip.frames.dtype == torch.uint8
        assert clip.frames.permute(0, 2, 3, 1).is_contiguous()
        assert clip.source_index.dtype == torch.int64


def test_frames_that_the_file_tells_players_to_skip(tmp_path):
    # Seven frames before time 0, which a player decodes but does not show: the header's count is not the video's.
    skipped, count = 7, 30
    whole, trimmed = write_video(tmp_path / "whole.mp4", count), tmp_path / "trimmed.mp4"
    with av.open(str(whole)) as source, av.open(str(trimmed), "w", options={"avoid_negative_ts": "disabled"}) as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        shift = int(skipped / RATE / stream.time_base)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                target.mux(packet)
    with av.open(str(trimmed)) as container:
        assert container.streams.video[0].frames == count
    with no_warnings():
        clip, _ = read_clip(trimmed, 23, 8)
    assert clip.source_index.tolist() == list(range(count - skipped))
    assert shown(clip) == list(range(skipped, count))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("cut.mp4", "libx264", {"movflags": "+faststart"}),
        ("fragments.mp4", "libx264", {"movflags": "+frag_keyframe+empty_moov"}),
        ("cut.mkv", "libx264", {}),
        ("cut.webm", "libvpx-vp9", {}),
        ("cut.avi", "mpeg4", {}),
    ],
)
def test_a_truncated_video_is_sampled_as_far_as_it_decodes(tmp_path, name, codec, options):
    path = cut(write_video(tmp_path / name, codec=codec, **options), 0.7)
    with pytest.warns(UserWarning, match=r"is damaged or cut off \(.+\): sampling from the \d+ frames") as caught:
        clip, glance = read_clip(path, 8, 4)  # none of these is the very last frame, which may be half there
    (warning,) = caught
    assert warning.filename == __file__  # it points at the caller
    decoded = int(str(warning.message).split(" frames that decode")[0].split()[-1])
    assert 8 < decoded < 30
    assert shown(clip) == clip.source_index.tolist() == segment_centres(decoded, 8)
    assert shown(glance) == glance.source_index.tolist() == segment_centres(decoded, 4)


def test_damage_in_the_middle_is_skipped_and_reported(tmp_path):
    path = write_video(tmp_path / "clip.mp4")
    content = bytearray(path.read_bytes())
    middle = slice(len(content) // 2, len(content) // 2 + 4000)  # two frames' data
    content[middle] = b"\xff" * 4000
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"is damaged or cut off \(unreadable packets: \d.*damaged frames: \d"):
        clip, _ = read_clip(path, 24, 8)
    before = Clip(*(values[:8] for values in clip))
    assert shown(before) == before.source_index.tolist()


def test_rotation_is_applied(tmp_path):
    # A quarter turn counterclockwise takes the white quarter from the top left to the bottom left.
    path = write_video(tmp_path / "clip.mp4", 2, size=(64, 64), rotation=90)
    frame = read_clip(path, 1, 1)[0].frames[0].float().mean(0)
    quarters = frame.unflatten(0, (2, 112)).unflatten(2, (2, 112)).mean((1, 3))
    assert (quarters > 200).tolist() == [[False, False], [True, False]]


def test_a_folder_is_read_in_natural_order(tmp_path):
    for i in range(12):
        suffix = ".png" if i % 2 else ".JPG"
        mode = "RGB" if i % 3 else "L"
        grey = SHADE * (i + 1)
        Image.new(mode, (50, 40), grey if mode == "L" else (grey,) * 3).save(tmp_path / f"frame{i}{suffix}")
    (tmp_path / "notes.txt").write_text("not a frame")
    with no_warnings():
        clip, glance = read_clip(tmp_path, 12, 4)
    assert shown(clip) == clip.source_index.tolist() == list(range(12))
    assert shown(glance) == glance.source_index.tolist() == [1, 4, 7, 10]
    assert clip.time.isnan().all()


def test_a_real_video():
    path = bikes()
    with no_warnings():
        clip, glance = read_clip(path, 24, 8)
    assert clip.source_index.tolist() == segment_centres(250, 24)
    assert glance.source_index.tolist() == segment_centres(250, 8)
    torch.testing.assert_close(clip.time, clip.source_index / 25, atol=1e-6, rtol=0, check_dtype=False)
    with av.open(str(path)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    for index, pixels in zip(clip.source_index.tolist(), clip.frames, strict=True):
        whole = frames[index].resize((640 * 256 // 272, 256), Image.Resampling.BILINEAR)
        left, top = round((whole.width - 224) / 2), 16
        expected = np.asarray(whole.crop((left, top, left + 224, top + 224)))
        np.testing.assert_array_equal(pixels.permute(1, 2, 0), expected)


def make_bad(kind, path):
    """A file or folder that holds no video, of the kind that is named."""
    if kind == "no such file":
        path /= "missing.mp4"
    elif kind == "empty":
        path /= "empty.mp4"
        path.touch()
    elif kind == "text":
        path /= "notes.txt"  # FFmpeg plays it as character art
        path.write_text("Push something so that it falls off the table\n" * 100)
    elif kind == "text called mp4":
        path /= "notes.mp4"
        path.write_text("not a video\n" * 100)
    elif kind == "noise":
        path /= "noise.mp4"
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "no index":
        path = cut(write_video(path / "clip.mp4"), 0.6)
    elif kind == "no frames":
        path = write_video(path / "clip.mkv", 0)
    elif kind == "no whole frame":
        path = write_video(path / "clip.mp4", 5, movflags="+faststart")  # the index first, then the frames
        path.write_bytes(path.read_bytes().partition(b"mdat")[0] + b"mdat" + bytes(40))
    elif kind == "no decoder":
        path = write_video(path / "clip.mp4", 5)
        path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    elif kind == "sound":
        path /= "sound.wav"
        with wave.open(str(path), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(bytes(16000))
    elif kind == "still":
        path /= "frame.jpg"
        Image.new("RGB", (64, 48)).save(path)
    elif kind == "empty folder":
        path /= "frames"
        path.mkdir()
    elif kind == "bad image":
        (path / "frame1.jpg").write_text("not an image")
    elif kind == "broken png":
        noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
        Image.fromarray(noise).save(path / "frame1.png")
        first, _, last = (path / "frame1.png").read_bytes().rpartition(b"IDAT")
        (path / "frame1.png").write_bytes(first + b"\xff\xff\xff\xff" + last)
    return path


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("no such file", FileNotFoundError, "does not exist: check the path"),
        ("empty", ValueError, r"is empty \(0 bytes\): copy or download"),
        ("text", ValueError, "is a text file: give a video file"),
        ("text called mp4", ValueError, "cannot be read as a video .*: copy or download"),
        ("noise", ValueError, "cannot be read as a video .*: copy or download"),
        ("no index", ValueError, "cannot be read as a video .* cut off before its index"),
        ("no frames", ValueError, "cannot be read as a video .*: copy or download"),
        ("no whole frame", ValueError, r"holds no frame that can be decoded \(.+\): copy or download"),
        ("no decoder", ValueError, "has no decoder for: .*convert it"),
        ("sound", ValueError, "holds no video stream: give a whole video file"),
        ("still", ValueError, "is a still image: give a video file, or a folder"),
        ("empty folder", ValueError, "holds no frames: put images"),
        ("broken png", ValueError, "frame1.png cannot be read as an image .*: replace or remove it"),
        ("bad image", ValueError, "frame1.jpg cannot be read as an image .*: replace or remove it"),
    ],
)
def test_what_is_no_video_is_a_clear_error(tmp_path, kind, error, message):
    path = make_bad(kind, tmp_path)
    with no_warnings(), pytest.raises(error, match=message) as raised:
        read_clip(path, 8, 8)
    assert str(path) in str(raised.value)


def test_no_glance_frames(tmp_path):
    Image.new("RGB", (300, 300)).save(tmp_path / "0.png")
    candidates, glance = read_clip(tmp_path, 2, 0)
    assert [tuple(x.shape) for x in candidates] == [(2, 3, 224, 224), (2,), (2,)]
    assert [tuple(x.shape) for x in glance] == [(0, 3, 224, 224), (0,), (0,)]
    assert [x.dtype for x in glance] == [x.dtype for x in candidates]


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ((0, 8), {}, "num_candidate_frames must be at least 1, got 0"),
        ((8, -1), {}, "num_glance_frames must be at least 1, got -1"),
        ((8, 8), {"frame_size": 300}, "frame_size must be at most short_side=256, got 300"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, counts, options, message):
    with pytest.raises(ValueError, match=message):
        read_clip(tmp_path, *counts, **options)

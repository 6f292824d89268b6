"""read_clip on whole and broken files of every container: what is whole gets no warning, and stands upright."""

from fractions import Fraction

import numpy as np
import pytest
import torch

av = pytest.importorskip("av", reason="reading videos needs PyAV")
Image = pytest.importorskip("PIL.Image", reason="reading videos needs Pillow")

from video_data import RATE, SHADE, cut, no_warnings, shown, write_video  # noqa: E402

from adafocus_models.data import read_clip  # noqa: E402

CONTAINERS = pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("clip.mkv", "libx264", {}),
        ("clip.webm", "libvpx-vp9", {}),
        ("clip.flv", "libx264", {}),
        ("clip.mp4", "libx264", {"movflags": "+faststart"}),
        ("fragments.mp4", "libx264", {"movflags": "+frag_keyframe+empty_moov"}),
        ("clip.avi", "mpeg4", {}),
        ("clip.ts", "libx264", {}),
        ("clip.nut", "mpeg4", {}),
        ("clip.asf", "mpeg4", {}),
        ("clip.ogv", "libvpx", {}),
    ],
)


def assert_all_shown(path, numbers):
    """Reads a clip without a warning, and finds each of the frames with these numbers once."""
    with no_warnings():
        clip, _ = read_clip(path, len(numbers), 1)
    assert clip.source_index.tolist() == list(range(len(numbers)))
    assert shown(clip) == list(numbers)
    return clip


@CONTAINERS
@pytest.mark.parametrize(("start", "sound"), [(0, 6), (2.5, 6), (2.5, 0), (0, 1)])
def test_sound_that_goes_on_and_a_picture_that_starts_late_are_no_damage(tmp_path, name, codec, options, start, sound):
    path = write_video(tmp_path / name, codec=codec, start=start, sound=sound, **options)
    assert_all_shown(path, range(30))


@pytest.mark.parametrize(("start", "sound"), [(0, 3), (0, 6), (2.5, 6)])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("clip.mkv", "libx264", {}),
        ("clip.webm", "libvpx-vp9", {}),
        ("clip.flv", "libx264", {}),
        ("clip.mp4", "libx264", {"movflags": "+faststart"}),
    ],
)
def test_a_cut_is_found_beside_sound(tmp_path, name, codec, options, start, sound):
    path = cut(write_video(tmp_path / name, codec=codec, start=start, sound=sound, **options), 0.6)
    with pytest.warns(UserWarning, match="is damaged or cut off"):
        clip, _ = read_clip(path, 8, 1)
    assert shown(clip) == clip.source_index.tolist()


def test_text_that_goes_on_is_no_damage(tmp_path):
    text, whole, path = tmp_path / "text.srt", write_video(tmp_path / "whole.mkv"), tmp_path / "clip.mkv"
    text.write_text("1\n00:00:01,000 --> 00:00:02,000\nfirst\n\n2\n00:00:09,000 --> 00:00:20,000\nlast\n\n")
    with av.open(str(whole)) as video, av.open(str(text)) as subtitles, av.open(str(path), "w") as target:
        sources = [video.streams.video[0], subtitles.streams.subtitles[0]]
        copies = [target.add_stream_from_template(source) for source in sources]
        for container, copy in zip((video, subtitles), copies, strict=True):
            for packet in container.demux():
                if packet.size:
                    packet.stream = copy
                    target.mux(packet)
    with av.open(str(path)) as container:
        assert container.duration > 19 * av.time_base
    assert_all_shown(path, range(30))


DROPPED = (4, 5, 6, 20)


def test_dropped_frames_of_an_avi_are_no_damage(tmp_path):
    kept = [i for i in range(30) if i not in DROPPED]
    path = write_video(tmp_path / "clip.avi", codec="mpeg4", dropped=DROPPED)
    clip = assert_all_shown(path, kept)
    torch.testing.assert_close(clip.time, torch.tensor(kept, dtype=torch.float64) / RATE)
    with pytest.warns(UserWarning, match="the file states 30 frames and holds"):
        read_clip(cut(path, 0.8), 8, 1)


@pytest.mark.parametrize(("first", "seconds"), [(0, 1.0), (1.0, 1.0), (1.0, 2.0), (2.9, 0.1)])
def test_an_edit_that_shows_a_part_is_no_damage(tmp_path, first, seconds):
    """The edit list of an MP4 shows from `first` on, for so many seconds; FFmpeg keeps to it."""
    path = write_video(tmp_path / "clip.mp4")
    content = bytearray(path.read_bytes())
    edit = content.index(b"elst") + 12  # the duration in ms, then the time to begin at
    begin = int.from_bytes(content[edit + 4 : edit + 8]) + round(first * 10240)
    content[edit : edit + 8] = round(seconds * 1000).to_bytes(4) + begin.to_bytes(4)
    path.write_bytes(content)
    with av.open(str(path)) as container:
        assert container.streams.video[0].time_base == Fraction(1, 10240)
    first, count = round(first * RATE), round(seconds * RATE)
    assert_all_shown(path, range(first, first + count))


@pytest.mark.parametrize("name", ["clip.gif", "clip.png"])
def test_animations_are_videos(tmp_path, name):
    images = [Image.new("RGB", (64, 48), (SHADE * (i + 1),) * 3) for i in range(12)]
    images[0].save(tmp_path / name, save_all=True, append_images=images[1:], duration=1000 / RATE)
    assert_all_shown(tmp_path / name, range(12))


def test_one_frame_is_a_video(tmp_path):
    Image.new("RGB", (64, 48), (SHADE,) * 3).save(tmp_path / "one.gif")
    assert_all_shown(tmp_path / "one.gif", [0])


@pytest.mark.parametrize("num_frames", [1, 30])
def test_a_cover_picture_is_not_the_video(tmp_path, num_frames):
    path = tmp_path / "covered.mp4"
    with av.open(str(write_video(tmp_path / "clip.mp4", num_frames))) as source, av.open(str(path), "w") as target:
        video = source.streams.video[0]
        copy = target.add_stream_from_template(video)
        cover = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 640, 480, "yuvj420p"  # larger than the video's frames
        cover.disposition = av.stream.Disposition.attached_pic.value
        target.mux(cover.encode(av.VideoFrame.from_ndarray(np.full((480, 640, 3), 255, np.uint8), "rgb24")))
        for packet in source.demux(video):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    with av.open(str(path)) as container:
        covers = [bool(s.disposition & av.stream.Disposition.attached_pic) for s in container.streams.video]
        assert covers == [False, True]
    assert_all_shown(path, range(num_frames))


# (a, b, c, d) of a display matrix, x' = a x + c y and y' = b x + d y, and what it makes of an image, as NumPy says it.
EIGHT_WAYS = {
    (1, 0, 0, 1): lambda image: image,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),  # right becomes down: clockwise
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (0, 1, 1, 0): lambda image: image.swapaxes(0, 1),
    (0, -1, -1, 0): lambda image: np.rot90(image, 2).swapaxes(0, 1),
}


def picture():
    """[33, 47, 3] uint8: no turn or mirroring leaves it as it is."""
    return np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8).repeat(11, 0).repeat(12, 1)[:, :47]


def assert_looks_like(path, folder, expected):
    """What is read from path is what is read from a folder with one image of these pixels."""
    folder.mkdir()
    Image.fromarray(np.ascontiguousarray(expected)).save(folder / "frame.png")
    with no_warnings():
        got, wanted = (read_clip(p, 1, 1)[0].frames for p in (path, folder))
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("ways", EIGHT_WAYS, ids=str)
def test_a_video_is_turned_and_mirrored_as_its_matrix_says(tmp_path, ways):
    path, image = tmp_path / "clip.mov", picture()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = *image.shape[:2], "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # a b u c d v x y w, of 16.16 but for u, v and w
    for place, value in zip((0, 1, 3, 4), ways, strict=True):
        content[matrix + 4 * place : matrix + 4 * place + 4] = (value << 16).to_bytes(4, signed=True)
    path.write_bytes(content)
    assert_looks_like(path, tmp_path / "expected", EIGHT_WAYS[ways](image))


EXIF_ORIENTATION = 0x112
AS_EXIF_NUMBERS_THEM = [
    (1, 0, 0, 1),
    (-1, 0, 0, 1),
    (-1, 0, 0, -1),
    (1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, 1, -1, 0),
    (0, -1, -1, 0),
    (0, -1, 1, 0),
]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_and_mirrored_as_its_exif_data_says(tmp_path, orientation, suffix):
    image, exif = picture(), Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    (tmp_path / "frames").mkdir()
    Image.fromarray(image).save(tmp_path / f"frames/frame{suffix}", exif=exif, **{"lossless": True})
    upright = EIGHT_WAYS[AS_EXIF_NUMBERS_THEM[orientation - 1]](image)
    assert_looks_like(tmp_path / "frames", tmp_path / "expected", upright)


def test_side_data_that_pyav_does_not_know_hides_no_turn(tmp_path):
    # FFmpeg makes a display matrix of the EXIF orientation of Motion JPEG; a newer one gives frames all EXIF data too,
    # a kind that PyAV 18 has no name for.
    exif = Image.Exif()
    exif[EXIF_ORIENTATION], exif[0x10E] = 6, "a description"
    Image.fromarray(picture()).save(tmp_path / "one.jpg", exif=exif)
    path = tmp_path / "clip.mjpeg"
    path.write_bytes((tmp_path / "one.jpg").read_bytes() * 3)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        turned = np.rot90(frame.to_ndarray(format="rgb24"), -1)
    assert_looks_like(path, tmp_path / "expected", turned)

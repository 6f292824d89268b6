"""Whatever a file holds, read_clip opens that file alone, and says what it does not read."""

import ctypes
import os
import re
import select
import struct
import sys

import numpy as np
import pytest

av = pytest.importorskip("av", reason="reading videos needs PyAV")
Image = pytest.importorskip("PIL.Image", reason="reading videos needs Pillow")

from video_data import no_warnings, shown, write_video  # noqa: E402

from adafocus_models.data import containers, read_clip  # noqa: E402

SECRET = "secret.mp4"


class Watch:
    """The names that are opened in a folder, by whatever code (Linux's inotify)."""

    IN_OPEN = 0x20

    def __init__(self, folder):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.handle = self.libc.inotify_init()
        assert self.libc.inotify_add_watch(self.handle, os.fsencode(folder), self.IN_OPEN) >= 0

    def opened(self):
        names = set()
        while select.select([self.handle], [], [], 0)[0]:
            events = os.read(self.handle, 65536)
            while events:
                _, _, _, length = struct.unpack("iIII", events[:16])
                names.add(os.fsdecode(events[16 : 16 + length].rstrip(b"\0")))
                events = events[16 + length :]
        return names - {""}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.handle)


def with_alias(path):
    """A MOV whose video data is said to lie in another file: its data reference becomes an alias of that one."""
    content = write_video(path, 5).read_bytes()
    start = content.index(b"dref") + 12  # its one entry, which says "in this file"
    name = f"/{SECRET}".encode()
    alias = bytes(10) + b"\1v".ljust(28, b"\0") + bytes(12) + bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16)
    alias += struct.pack(">hh", 1, 1) + bytes(16) + struct.pack(">hH", 2, len(name)) + name + bytes(len(name) % 2)
    alias += struct.pack(">hH", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    grown, content = len(entry) - 12, bytearray(content[:start] + entry + content[start + 12 :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        size = content.index(box) - 4
        content[size : size + 4] = struct.pack(">I", struct.unpack(">I", content[size : size + 4])[0] + grown)
    return bytes(content)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n"
SCRIPT = f"ffconcat version 1.0\nfile '{SECRET}'\n"
SESSION = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)
SUBTITLES = "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:01:000, filepos: 000000000\n"

# File name, its content, and the name that FFmpeg has for it.
POINTERS = [
    ("clip.mp4", SCRIPT, "concat"),
    ("clip.ffconcat", SCRIPT, "concat"),
    ("clip.m3u8", PLAYLIST.format(SECRET), "hls"),
    ("clip.m3u8", PLAYLIST.format("http://127.0.0.1:9/x.ts"), "hls"),
    ("clip.m3u8", PLAYLIST.format("file:" + SECRET), "hls"),
    ("clip.m3u8", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nsecret.m3u8\n", "hls"),
    ("clip.mp4", SESSION, "sdp"),
    ("clip.idx", SUBTITLES, "vobsub"),
    ("clip.mp4", ";FFMETADATA1\ntitle=x\n" + "\n" * 2000, "ffmetadata"),
    ("clip.srt", "1\n00:00:00,000 --> 00:00:02,000\ntext\n\n" * 20, "srt"),
]


def make_pointer(folder, name, content):
    write_video(folder / SECRET, 5)
    path = folder / name
    path.write_text(content)
    return path


@pytest.mark.parametrize(("name", "content", "kind"), POINTERS)
def test_what_points_to_other_files_is_refused_by_the_name_of_its_format(tmp_path, name, content, kind):
    path = make_pointer(tmp_path, name, content)
    with no_warnings(), pytest.raises(ValueError, match=f"is in the format '{kind}', which is none of those") as raised:
        read_clip(path, 4, 1)
    assert str(path) in str(raised.value)


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
class TestNoOtherFileIsOpened:
    @pytest.mark.parametrize(("name", "content", "kind"), POINTERS[:3])
    def test_the_attack_is_real(self, tmp_path, name, content, kind):
        path = make_pointer(tmp_path, name, content)
        with Watch(tmp_path) as watch, av.open(str(path)):
            assert watch.opened() == {name, SECRET}

    @pytest.mark.parametrize("allowed", ["as it is", "all formats"])
    @pytest.mark.parametrize(("name", "content", "kind"), POINTERS)
    def test_a_pointer(self, tmp_path, monkeypatch, name, content, kind, allowed):
        path = make_pointer(tmp_path, name, content)
        if allowed == "all formats":  # the second wall holds without the first
            monkeypatch.setattr(containers, "FORMATS", (*containers.FORMATS, kind))
        with Watch(tmp_path) as watch:
            with pytest.raises(ValueError, match=r"clip|refers to"):
                read_clip(path, 4, 1)
            assert watch.opened() == {name}

    def test_a_file_named_like_a_sequence_of_images(self, tmp_path):
        Image.new("RGB", (64, 48)).save(tmp_path / "clip0.png")
        path = tmp_path / "clip%d.png"
        path.write_bytes((tmp_path / "clip0.png").read_bytes())
        with Watch(tmp_path) as watch:
            with av.open(str(path)):
                assert "clip0.png" in watch.opened()
            with pytest.raises(ValueError, match="is a still image"):
                read_clip(path, 4, 1)
            assert watch.opened() == {path.name}

    def test_a_movie_whose_data_lies_elsewhere(self, tmp_path):
        (tmp_path / SECRET).write_bytes(write_video(tmp_path / "other.mp4", 5).read_bytes())
        path = tmp_path / "clip.mov"
        path.write_bytes(with_alias(path))
        with Watch(tmp_path) as watch:
            with av.open(str(path), options={"enable_drefs": "1"}):
                assert SECRET in watch.opened()
            with pytest.raises(ValueError, match="holds no frame that can be decoded"):
                read_clip(path, 4, 1)
            assert watch.opened() == {path.name}


def test_formats_that_are_read_are_known_to_open_nothing():
    """Those of FFmpeg that open what their content or name says, and its devices: none of them is let in."""
    others = "concat concatf hls dash imf sdp rtp rtsp sap image2 image2pipe vobsub webm_dash_manifest lavfi ffmetadata"
    devices = "alsa dshow fbdev kmsgrab oss pulse v4l2 video4linux2 x11grab xcbgrab avfoundation gdigrab jack"
    assert not set(containers.FORMATS) & {*others.split(), *devices.split(), "tedcaptions", "bluray", "dvdvideo"}
    assert not [name for name in containers.FORMATS if name.endswith("_pipe")]


@pytest.mark.parametrize(
    "url", ["http://host/clip.mp4", "https://host/clip.mp4", "rtsp://host/live", "file:///clip.mp4"]
)
def test_a_url_is_said_not_to_be_read(url):
    message = f"{url} is a URL, and these are not read: download the video, and give the file"
    with pytest.raises(ValueError, match=re.escape(message)):
        read_clip(url, 4, 1)


def test_the_empty_path_is_not_the_current_folder(tmp_path, monkeypatch):
    Image.new("RGB", (64, 48)).save(tmp_path / "frame.png")
    monkeypatch.chdir(tmp_path)
    read_clip(".", 1, 1)
    with pytest.raises(ValueError, match="path must name a video file or a folder of frames, got ''"):
        read_clip("", 1, 1)


def test_a_pipe_is_no_empty_file(tmp_path):
    path = tmp_path / "clip.mp4"
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"is no regular file .*: copy what it holds into a file"):
        read_clip(path, 1, 1)


NAMES = ["a:b.mp4", "http:clip.mp4", "-i.mp4", "50%d.mp4", "日本語 .mp4", "new\nline.mp4", "x" * 250 + ".mp4", "clip"]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"\xff\xfe.mp4")], ids=ascii)
def test_any_name_will_do(tmp_path, name):
    content = write_video(tmp_path / "clip.mp4", 5).read_bytes()
    path = tmp_path / name
    path.write_bytes(content)
    assert shown(read_clip(path, 5, 1)[0]) == list(range(5))
    folder = tmp_path / "deep" / os.path.join(*["folder" * 30] * 6)
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    assert shown(read_clip(str(folder / name), 5, 1)[0]) == list(range(5))


def test_a_name_that_is_too_long_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="too long"):
        read_clip(tmp_path / ("x" * 300), 1, 1)


def test_an_animation_that_is_not_read_is_said_to_be_an_image(tmp_path):
    images = [Image.new("RGB", (64, 48), (40 * i,) * 3) for i in range(3)]
    images[0].save(tmp_path / "clip.webp", save_all=True, append_images=images[1:], duration=100)
    with pytest.raises(ValueError, match="is a WebP image: give a video file"):
        read_clip(tmp_path / "clip.webp", 1, 1)


def test_ffmpeg_logs_as_much_as_before(tmp_path, caplog):
    (tmp_path / "clip.mp4").write_text(SCRIPT)
    before = av.logging.get_level()
    with pytest.raises(ValueError, match="concat"):
        read_clip(tmp_path / "clip.mp4", 1, 1)
    assert av.logging.get_level() == before
    assert caplog.records == []


def test_sound_with_a_cover_is_no_video(tmp_path):
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        sound, cover = container.add_stream("libmp3lame", rate=48000), container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic.value
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 9600), np.float32), "fltp", "stereo")
        frame.sample_rate, frame.pts = 48000, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with av.open(str(path)) as container:
        assert container.streams.video
    with pytest.raises(ValueError, match="holds no video stream: give a whole video file"):
        read_clip(path, 1, 1)

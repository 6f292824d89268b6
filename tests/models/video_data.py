"""Videos whose every frame can be told from its pixels."""

import warnings
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np

RATE = 10  # frames a second of every video made here
SHADE = 8  # grey levels from one frame to the next, and the noise on each


@contextmanager
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def write_video(
    path,
    num_frames=30,
    *,
    codec="libx264",
    pix_fmt="yuv420p",
    size=(48, 64),
    rotation=0,
    start=0.0,
    sound=0.0,
    dropped=(),
    **options,
):
    """A video whose frame i has the mean SHADE * (i + 1), and a white top left quarter if it is rotated.

    The picture starts at `start` seconds and lacks the frames `dropped`; there are `sound` seconds of silence.
    """
    height, width = size
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, pix_fmt, 10**7
        if rotation:
            stream.set_display_rotation(rotation)
        if sound:
            silence = container.add_stream("libopus" if path.suffix in (".webm", ".ogv") else "aac", rate=48000)
        container.start_encoding()  # writes the header even if no frame follows
        for i in range(num_frames):
            # The noise keeps every frame's data long, so that a file that is cut off loses whole frames.
            grey = np.random.default_rng(i).integers(SHADE * i, SHADE * (i + 2), (height, width, 1), np.uint8, True)
            pixels = np.repeat(grey, 3, 2)
            if rotation:
                pixels[: height // 2, : width // 2] = 255
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = round(start * RATE) + i, Fraction(1, RATE)
            if i not in dropped:
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            _write_silence(container, silence, sound)
    return path


def _write_silence(container, stream, seconds):
    for start in range(0, int(48000 * seconds), 960):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 960), np.float32), "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def cut(path, fraction):
    """Keeps the first part of a file's bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    return path


def shown(clip):
    """The numbers that write_video gave to the frames of a clip."""
    means = clip.frames.float().mean((1, 2, 3))
    numbers = (means / SHADE).round()
    assert (means - SHADE * numbers).abs().max() <= 2, "frames are mixed, or not those of write_video"
    return (numbers.long() - 1).tolist()

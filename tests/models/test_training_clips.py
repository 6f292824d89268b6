"""TrainingClips, EpochOrder and batch_of: what is trained on, whatever was stopped, shared out or cannot be read."""

import gc
import itertools
import os
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

av = pytest.importorskip("av", reason="the room of data needs PyAV")
Image = pytest.importorskip("PIL.Image", reason="reading videos needs Pillow")

from test_augmentation import MEAN, STD, corners, published  # noqa: E402
from video_data import RATE, SHADE, cut, no_warnings, shown, write_video  # noqa: E402

from adafocus_models.data import (  # noqa: E402
    EpochOrder,
    Sample,
    TrainingClips,
    Video,
    batch_of,
    list_videos,
    random_segments,
    read_augmented,
    read_clip,
    segment_centres,
    video_files,
)

OPTIONS = {
    "num_candidate_frames": 6,
    "num_glance_frames": 3,
    "frame_size": 28,
    "flip": True,
    "training": True,
    "seed": 5,
}


def write_frames(folder: Path, count: int, size=(40, 60), first=0) -> Path:
    """A folder of images, of which image i has the grey level SHADE * (i + 1) that `shown` tells it by."""
    folder.mkdir(parents=True)
    for i in range(count):
        grey = (SHADE * (first + i + 1),) * 3
        Image.new("RGB", size[::-1], grey).save(folder / f"{i}.png")
    return folder


def videos_of(*paths: Path) -> list[Video]:
    return [Video(str(path), path, str(number)) for number, path in enumerate(paths)]


def clips_of(*videos: Video | Path, **options) -> TrainingClips:
    """Of videos, or of paths; the class of each is 10 and its number."""
    named = [video if isinstance(video, Video) else Video(str(video), video) for video in videos]
    return TrainingClips(named, range(10, 10 + len(named)), **OPTIONS | options)


def same(a: Sample, b: Sample) -> bool:
    tensors = all(torch.equal(a[i], b[i]) for i in range(3))
    return tensors and a[3:] == b[3:]


def frames_shown(frames: torch.Tensor) -> list[int]:
    return shown(SimpleNamespace(frames=frames))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """Twelve videos of different lengths and shapes."""
    root = tmp_path_factory.mktemp("videos")
    return [write_frames(root / f"frames of {i}", 9 + i, (40 + i, 64 - 3 * i)) for i in range(12)]


# ----------------------------------------------------------------------------------------------------
# Which frames


def test_frames_are_whole_and_as_a_clip_has_them(tmp_path):
    path = write_frames(tmp_path / "frames", 20, (50, 80))
    sample = clips_of(path).sample(0, 0)
    assert sample.frames.shape == (6, 3, 32, 51)  # the short side is 28 * 256 / 224
    assert sample.glance_frames.shape == (3, 3, 32, 51)
    for frames in sample[:2]:
        assert frames.dtype == torch.uint8
        assert frames.permute(0, 2, 3, 1).is_contiguous()
    assert sample.box.shape == (4,)
    assert sample.box.dtype == torch.float32
    assert sample[3:] == (10, 0, 0)


@pytest.mark.parametrize("training", [True, False])
def test_no_glance_of_its_own(folders, training):
    sample = clips_of(folders[0], num_glance_frames=0, training=training).sample(0, 0)
    assert sample.glance_frames is None
    assert batch_of([sample], device="cpu", frame_size=28, mean=MEAN, std=STD).glance_frames is None


@pytest.mark.parametrize("count", [1, 4, 20])
def test_in_training_frames_are_random_within_their_segments(tmp_path, count):
    clips = clips_of(write_frames(tmp_path / "frames", count))
    seen = [[], []]
    for epoch in range(12):
        sample = clips.sample(epoch, 0)
        for frames, segments, found in zip(sample[:2], (6, 3), seen, strict=True):
            numbers = frames_shown(frames)
            found.append(numbers)
            possible = [set() for _ in range(segments)]
            for seed in range(100):
                for i, number in enumerate(random_segments(count, segments, np.random.default_rng(seed))):
                    possible[i].add(number)
            assert all(number in segment for number, segment in zip(numbers, possible, strict=True))
    if count > 6:
        assert all(len({tuple(numbers) for numbers in found}) > 6 for found in seen)
        assert [numbers[::2] for numbers in seen[0]] != seen[1]  # the glance is drawn apart


def test_otherwise_samples_are_those_of_read_clip(tmp_path):
    """Frames, and after the box's read the pixels."""
    for name, size in (("wide", (48, 64)), ("high", (66, 50))):
        path = write_video(tmp_path / f"{name}.mp4", 20, size=size)
        sample = clips_of(path, training=False).sample(3, 0)
        expected = read_clip(path, 6, 3, frame_size=28, short_side=32)
        batch = batch_of([sample], device="cpu", frame_size=28, mean=(0, 0, 0), std=(1 / 255,) * 3)
        for ours, theirs in zip(batch[:2], expected, strict=True):
            torch.testing.assert_close(ours[0], theirs.frames.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("start", "end"), [(None, None), (0.5, 1.2)])
def test_both_clips_come_of_one_decoding(tmp_path, monkeypatch, start, end):
    """Of a part as well, where the header's rate gives its frames."""
    path = write_video(tmp_path / "clip.mp4", 20)
    passes, decode = [], video_files._decode
    monkeypatch.setattr(video_files, "_decode", lambda *arguments: passes.append(arguments) or decode(*arguments))
    clips_of(Video("clip", path, "0", start, end)).sample(0, 0)
    assert len(passes) == 1


# ----------------------------------------------------------------------------------------------------
# Parts


def part(path: Path, start: float | None, end: float | None) -> Video:
    return Video(str(path), path, "0", start, end)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("start", "end", "numbers"), [(None, 7, range(7)), (5, 11, range(5, 11)), (12, None, range(12, 20))]
)
def test_a_part_of_a_folder_is_of_its_frames(tmp_path, training, start, end, numbers):
    clips = clips_of(part(write_frames(tmp_path / "frames", 20), start, end), training=training)
    found = {number for epoch in range(20) for number in frames_shown(clips.sample(epoch, 0).frames)}
    if training:
        assert found <= set(numbers)
        assert len(found) > 5
    else:
        assert sorted(found) == sorted({numbers[i] for i in segment_centres(len(numbers), 6)})


@pytest.mark.parametrize(
    ("name", "codec", "first"),
    [
        ("clip.mp4", "libx264", 0),
        ("clip.mp4", "libx264", 2.5),
        ("clip.mkv", "libx264", 0),
        ("clip.mkv", "libx264", 2.5),
        ("clip.ts", "libx264", 2.5),
        ("clip.avi", "mpeg4", 0),  # cannot start later
    ],
)
@pytest.mark.parametrize(
    ("start", "end", "numbers"), [(None, 0.7, range(7)), (0.8, 1.1, range(8, 11)), (1.15, None, range(12, 20))]
)
def test_a_part_of_a_file_is_of_its_seconds(tmp_path, name, codec, first, start, end, numbers):
    """After the first frame, whenever that is, up to the end but without it."""
    path = write_video(tmp_path / name, 20, codec=codec, start=first)
    with no_warnings():
        sample = clips_of(part(path, start, end), training=False).sample(0, 0)
    assert frames_shown(sample.frames) == [numbers[i] for i in segment_centres(len(numbers), 6)]
    assert frames_shown(sample.glance_frames) == [numbers[i] for i in segment_centres(len(numbers), 3)]


def test_a_part_is_found_by_the_times_that_frames_have(tmp_path):
    """Not by those that the mean rate gives, where the frames 3 to 10 of 20 are missing."""
    path = write_video(tmp_path / "clip.mkv", 20, dropped=range(3, 11))
    assert RATE == 10
    sample = clips_of(part(path, 0.2, 1.4), training=False, num_candidate_frames=4, num_glance_frames=0).sample(0, 0)
    assert frames_shown(sample.frames) == [2, 11, 12, 13]


def test_the_parts_of_a_list(tmp_path):
    write_video(tmp_path / "a clip.mp4", 20)
    write_frames(tmp_path / "some frames", 20)
    (tmp_path / "list.tsv").write_text(
        "a clip.mp4\t0\t0\t0.5\na clip.mp4\t1\t0.5\nsome frames\t0\t0\t5\nsome frames\t1\t5\t\n"
    )
    videos = list_videos(tmp_path / "list.tsv", labels=True)
    clips = TrainingClips(videos, [int(video.label) for video in videos], **OPTIONS)
    for index, numbers in enumerate((range(5), range(5, 20)) * 2):
        sample = clips.sample(1, index)
        assert (sample.label, sample.replaced) == (index % 2, 0)
        assert set(frames_shown(sample.frames) + frames_shown(sample.glance_frames)) <= set(numbers)


@pytest.mark.parametrize(
    ("name", "options", "start", "message"),
    [
        (
            "clip.mp4",
            {},
            2.5,
            "clip.mp4 has no frame in the part that counts, from 2.5 to 9 s: it has its last frame at 1.9 s",
        ),
        ("clip.h264", {}, 0.0, "clip.h264 has no frame in the part that counts, from 0 to 9 s: it states no times"),
        (
            "frames",
            None,
            20,
            "frames has no frame in the part that counts, from 20 to 99: its 20 frames are numbered from 0",
        ),
    ],
)
def test_a_part_without_a_frame_says_so(tmp_path, name, options, start, message):
    path = tmp_path / name
    if options is None:
        write_frames(path, 20)
    else:
        write_video(path, 20, **options)
    clips = clips_of(part(path, start, 99 if options is None else 9))
    with pytest.raises(ValueError, match=message), pytest.warns(UserWarning, match=message):
        clips.sample(0, 0)


# ----------------------------------------------------------------------------------------------------
# The same again


def test_a_sample_depends_on_seed_epoch_and_index_alone(folders):
    clips = clips_of(*folders)
    samples = {(epoch, index): clips[epoch, index] for epoch in range(3) for index in range(len(folders))}
    again = clips_of(*folders)
    for key in reversed(samples):
        assert same(again.sample(*key), samples[key])
    assert same(pickle.loads(pickle.dumps(clips))[2, 7], samples[2, 7])
    others = clips_of(*folders, seed=6)
    for key in samples:
        assert not same(others[key], samples[key])
        assert not same(clips[key[0] + 3, key[1]], samples[key])
    first = [samples[epoch, 4].box for epoch in range(3)]
    assert len({tuple(box.tolist()) for box in first}) > 1


@pytest.mark.parametrize("flip", [True, False])
def test_only_flips_mirror(folders, flip):
    clips = clips_of(*folders, flip=flip)
    mirrored = [corners(clips[0, index].box)[4] for index in range(len(folders))]
    assert any(mirrored) == flip
    assert not all(mirrored)


def test_worker_processes_change_nothing(folders, tmp_path):
    """Also where this process has read videos before they were forked."""
    clips = clips_of(*folders[:9], *(write_video(tmp_path / f"{i}.mp4", 12 + i) for i in range(3)))
    loaded = []
    for workers in (0, 2):
        order = EpochOrder(len(clips), 5, seed=1, rank=0, world_size=1)
        loader = DataLoader(clips, batch_sampler=order, collate_fn=list, num_workers=workers)
        found = []
        for epoch in (0, 1):
            order.set_epoch(epoch)
            found += [sample for samples in loader for sample in samples]
        loaded.append(found)
    assert len(loaded[0]) == len(loaded[1]) == 20
    assert all(same(a, b) for a, b in zip(*loaded, strict=True))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux lists the threads of a process there")
@pytest.mark.parametrize("kind", ["whole", "unreadable"])
def test_reading_leaves_no_frame_and_no_thread_behind(tmp_path, kind):
    """Else a worker process that is forked afterwards would clear them away, and wait for threads that it has not."""
    size = (48, 64) if kind == "whole" else (2, 256)
    clips = clips_of(write_video(tmp_path / "clip.mkv", 20, codec="ffv1", pix_fmt="bgr0", size=size))

    def left() -> tuple[int, int]:
        return sum(type(x) is av.VideoFrame for x in gc.get_objects()), len(os.listdir("/proc/self/task"))

    gc.collect()
    gc.disable()
    try:
        before = left()
        if kind == "whole":
            clips.sample(0, 0)
        else:
            with (
                pytest.raises(ValueError, match="none of 1 videos"),
                pytest.warns(UserWarning, match="at most 100 times"),
            ):
                clips.sample(0, 0)
        assert left() == before
    finally:
        gc.enable()


# ----------------------------------------------------------------------------------------------------
# What cannot be read


@pytest.mark.filterwarnings("ignore:left out")
def test_a_video_that_cannot_be_read_is_replaced_and_counted(tmp_path, folders):
    (tmp_path / "broken.mp4").write_text("no video")
    missing, broken, strips = tmp_path / "missing.mp4", tmp_path / "broken.mp4", tmp_path / "frames"
    write_frames(strips, 12)
    Image.new("RGB", (64, 40)).save(strips / "5.png")  # of another shape
    clips = clips_of(missing, broken, folders[0], strips, training=True, num_candidate_frames=12)
    found = []
    for epoch in range(8):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found.append(clips.sample(epoch, 0))
        assert found[-1].replaced == len(caught)
        assert "missing.mp4 does not exist: check the path" in str(caught[0].message)
        assert all(str(warning.message).startswith("left out, another video is read") for warning in caught)
        assert (found[-1].index, found[-1].label) == (2, 12)  # the only one that can
        assert found[-1].frames.shape[-2:] == (32, 51)
    assert {sample.replaced for sample in found} > {1, 2}
    with pytest.warns(UserWarning, match=r"frames has frames of several shapes \(H, W\), \(32, 48\) and \(32, 51\)"):
        clips.sample(0, 3)
    with pytest.warns(UserWarning, match="left out"):
        assert same(clips.sample(3, 0), found[3])


def test_a_damaged_video_is_read_as_far_as_it_goes(tmp_path):
    path = cut(write_video(tmp_path / "cut.mkv", 30), 0.7)
    with pytest.warns(UserWarning, match="is damaged or cut off"):
        sample = clips_of(path).sample(0, 0)
    assert sample.replaced == 0
    assert frames_shown(sample.frames) == sorted(frames_shown(sample.frames))


@pytest.mark.parametrize(("count", "tried"), [(1, 1), (3, 3), (40, 21)])
@pytest.mark.filterwarnings("ignore:left out")
def test_it_gives_up_where_none_can_be_read(tmp_path, count, tried):
    clips = clips_of(*(tmp_path / f"{i}.mp4" for i in range(count)))
    with pytest.raises(
        ValueError, match=rf"none of {tried} videos can be read; of the last one: .*\.mp4 does not exist"
    ):
        clips.sample(0, 0)


# ----------------------------------------------------------------------------------------------------
# The order


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_what_one_process_sees(world_size):
    one = EpochOrder(50, 4 * world_size, seed=3, rank=0, world_size=1)
    ranks = [EpochOrder(50, 4, seed=3, rank=rank, world_size=world_size) for rank in range(world_size)]
    for epoch in (0, 5):
        for order in (one, *ranks):
            order.set_epoch(epoch)
        parts = zip(*ranks, strict=True)
        assert [list(itertools.chain(*batches)) for batches in parts] == list(one)
        seen = [index for batch in one for _, index in batch]
        assert len(seen) == len(set(seen)) == 4 * world_size * (50 // (4 * world_size))
        assert {epochs for batch in one for epochs, _ in batch} == {epoch}


def test_an_order_of_each_epoch_and_seed():
    orders = {}
    for seed in range(3):
        order = EpochOrder(40, 8, seed=seed, rank=0, world_size=1)
        for epoch in range(3):
            order.set_epoch(epoch)
            orders[seed, epoch] = [index for batch in order for _, index in batch]
            assert sorted(orders[seed, epoch]) == list(range(40))
    assert len({tuple(order) for order in orders.values()}) == 9


def test_a_run_goes_on_from_a_batch():
    order = EpochOrder(50, 4, seed=3, rank=1, world_size=2)
    order.set_epoch(2)
    whole = list(order)
    assert len(order) == len(whole) == 6
    for first in range(7):
        order.set_epoch(2, first_batch=first)
        assert len(order) == 6 - first
        assert list(order) == whole[first:]
    assert list(pickle.loads(pickle.dumps(order))) == []


# ----------------------------------------------------------------------------------------------------
# Batches


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_is_what_the_published_chain_makes(folders, dtype):
    """To the rounding of PIL to bytes, and of the dtype: bfloat16 has 8 bits."""
    clips = clips_of(*folders[:4])
    samples = [clips[1, index] for index in (2, 0, 3)]
    batch = batch_of(samples, device="cpu", dtype=dtype, frame_size=28, mean=MEAN, std=STD)
    assert batch.frames.shape == (3, 6, 3, 28, 28)
    assert batch.glance_frames.shape == (3, 3, 3, 28, 28)
    assert batch.labels.tolist() == [12, 10, 13]
    assert batch.indices.tolist() == [2, 0, 3]
    assert batch.labels.dtype == batch.indices.dtype == torch.int64
    for ours, name in ((batch.frames, "frames"), (batch.glance_frames, "glance_frames")):
        assert ours.dtype == dtype
        assert ours.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        for pixels, sample in zip(ours, samples, strict=True):
            theirs = torch.stack([published(frame, sample.box, 28) for frame in getattr(sample, name)])
            rounding = 0 if dtype == torch.float32 else 2**-8 * theirs.abs().max()
            assert (pixels - theirs).abs().max() < 1.01 / 255 / min(STD) + rounding


def test_a_batch_is_each_sample_alone(folders):
    clips = clips_of(*folders)
    samples = [clips[0, index] for index in range(5)]
    batch = batch_of(samples, device="cpu", frame_size=28, mean=MEAN, std=STD)
    for i, sample in enumerate(samples):
        for together, alone in ((batch.frames, sample.frames), (batch.glance_frames, sample.glance_frames)):
            assert torch.equal(together[i], read_augmented(alone, sample.box, 28, mean=MEAN, std=STD))


# ----------------------------------------------------------------------------------------------------
# Arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_candidate_frames": 0}, "num_candidate_frames must be at least 1, got 0"),
        ({"num_glance_frames": -1}, "num_glance_frames must be at least 1, got -1"),
        ({"short_side": 20}, "frame_size must be at most short_side=20, got 28"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"flip": None}, "flip must be a bool, got NoneType"),
        ({"training": 1}, "training must be a bool, got int"),
        ({"videos": []}, "videos must be at least one, got none"),
        ({"classes": [1]}, "classes must be one for each of 2 videos, got 1"),
    ],
)
def test_clips_that_do_not_fit(options, message):
    videos = videos_of(Path("a"), Path("b"))
    with pytest.raises((ValueError, TypeError), match=message):
        TrainingClips(**{"videos": videos, "classes": [1, 2]} | OPTIONS | options)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ((-1, 0), "epoch must be at least 0, got -1"),
        ((0, -1), "index must be at least 0, got -1"),
        ((0, 12), "index must be below 12, the number of videos, got 12"),
    ],
)
def test_samples_that_are_none(folders, key, message):
    with no_warnings(), pytest.raises(ValueError, match=message):
        clips_of(*folders)[key]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"rank": 2}, "rank must be below world_size=2, got 2"),
        ({"rank": -1}, "rank must be at least 0, got -1"),
        ({"batch_size": 6}, r"batch_size \* world_size must be at most num_videos=11, got 12"),
    ],
)
def test_orders_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        EpochOrder(**{"num_videos": 11, "batch_size": 2, "seed": 0, "rank": 0, "world_size": 2} | options)
    with pytest.raises(ValueError, match="first_batch must be at most 2, the batches of an epoch, got 3"):
        EpochOrder(11, 2, seed=0, rank=0, world_size=2).set_epoch(0, 3)


def test_batches_that_do_not_fit(folders):
    sample = clips_of(folders[0]).sample(0, 0)
    shorter, without = sample._replace(frames=sample.frames[:4]), sample._replace(glance_frames=None)
    for samples, message in (
        ([], "samples must be at least one, got none"),
        ([sample, shorter], r"samples must have equal numbers of frames, got \[4, 6\]"),
        ([sample, without], "samples must all have glance_frames, or none, got 1 of 2"),
    ):
        with pytest.raises(ValueError, match=message):
            batch_of(samples, device="cpu", frame_size=28, mean=MEAN, std=STD)

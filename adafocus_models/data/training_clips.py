"""Clips to train on: which video comes when, which frames and box of it, and batches of them."""

import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from adafocus_ops.checks import check_bool, check_positive_ints, plain_int, require

from .augmentation import centre_box, read_augmented, training_box
from .clips import Clip, existing, random_segments, read_chosen, resize_short_side, segment_centres, short_side_for
from .video_lists import Video

# Videos in a row that may be unreadable before something else than a video is taken to be wrong.
MOST_REPLACED = 20


class Sample(NamedTuple):
    """Frames of one video, and the box of them that is trained on."""

    frames: Tensor  # [N, 3, H, W] uint8, whole frames whose short side is short_side, stored channels_last
    glance_frames: Tensor | None  # [T0, 3, H, W], sampled apart; None without them
    # [4] float32 (cy, cx, h, w) in pixels, of all these frames, w negative if it is mirrored; None if all are S x S
    box: Tensor | None
    label: int
    index: int  # of the video that was read
    replaced: int  # videos that could not be read before this one could


class Batch(NamedTuple):
    """B videos as a model takes them."""

    frames: Tensor  # [B, N, 3, S, S], each frame stored channels_last
    glance_frames: Tensor | None  # [B, T0, 3, S, S]
    labels: Tensor  # [B] int64
    indices: Tensor  # [B] int64, which videos they are


class TrainingClips(Dataset[Sample]):
    """Labelled videos as samples, each drawn by the seed, the epoch and the video's index alone.

        clips = TrainingClips(videos, classes_of(videos, None, 174), num_candidate_frames=36, num_glance_frames=8, ...)
        order = EpochOrder(len(clips), batch_size, seed=0, rank=0, world_size=1)
        loader = DataLoader(clips, batch_sampler=order, collate_fn=list, num_workers=8)
        for samples in loader:
            batch = batch_of(samples, device="cuda", frame_size=224)

    So a run that goes on after a stop, with any number of workers, sees what it would have seen. All videos in their
    order are `sampler=[(epoch, index) for index in range(len(clips))]`.

    Args:
        videos: of `list_videos(..., labels=True)`; of each only the part that the list names counts.
        classes: the number of each one's class.
        num_candidate_frames: N.
        num_glance_frames: T0 frames that are sampled apart, from the same decoding; 0 for none.
        frame_size: S, that the box will be resized to.
        short_side: that the frames are resized to, bilinear with antialias; default `short_side_for(frame_size)`.
        flip: mirror every second box, on average; False where labels have sides.
        training: random frames (`random_segments`) and boxes (`training_box`); False for those of `read_clip`, the
            centres of segments and the central box.
        seed: at least 0.

    Raises:
        TypeError, ValueError: an argument that does not fit.

    Source: Uni-AdaFocus, Section 5 and the published data loader.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        classes: Sequence[int],
        *,
        num_candidate_frames: int,
        num_glance_frames: int,
        frame_size: int,
        short_side: int | None = None,
        flip: bool,
        training: bool,
        seed: int,
    ) -> None:
        self.videos, self.classes = list(videos), list(classes)
        self.num_candidate_frames, self.num_glance_frames = num_candidate_frames, num_glance_frames
        self.frame_size, self.flip, self.training, self.seed = frame_size, flip, training, seed
        check_positive_ints(
            num_candidate_frames=num_candidate_frames,
            **({} if num_glance_frames == 0 else {"num_glance_frames": num_glance_frames}),
            frame_size=frame_size,
            **({} if short_side is None else {"short_side": short_side}),
        )
        self.short_side = short_side_for(frame_size) if short_side is None else short_side
        check_bool("flip", flip)
        check_bool("training", training)
        _check_not_negative(seed=seed)
        require(len(self.videos) > 0, lambda: "videos must be at least one, got none")
        require(
            len(self.classes) == len(self.videos),
            lambda: f"classes must be one for each of {len(self.videos)} videos, got {len(self.classes)}",
        )
        require(
            frame_size <= self.short_side,
            lambda: f"frame_size must be at most short_side={self.short_side}, got {frame_size}",
        )

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of a pair (epoch, index), as `EpochOrder` gives them."""
        return self.sample(*key)

    def sample(self, epoch: int, index: int) -> Sample:
        """What is to be seen of video `index` in an epoch; of another one, if that cannot be read.

        Warns:
            UserWarning: a video is replaced by another, and why; or it is damaged, as `read_clip` says.

        Raises:
            ValueError: it and 20 others, or all, cannot be read; or an epoch or index that does not fit.
        """
        _check_not_negative(epoch=epoch, index=index)
        require(index < len(self), lambda: f"index must be below {len(self)}, the number of videos, got {index}")
        # A stream for each: what is drawn for the frames depends on the video's length.
        of_frames, of_box, of_others = np.random.SeedSequence([self.seed, epoch, index]).spawn(3)
        reason = ""
        for replaced, i in enumerate(itertools.islice(self._in_turn(index, of_others), 1 + MOST_REPLACED)):
            try:
                clips = self._read(self.videos[i], of_frames)
            except (ValueError, OSError) as error:
                reason = str(error)  # the error itself would keep all that it saw, and itself
                warnings.warn(f"left out, another video is read in its place: {error}", stacklevel=2)
                continue
            frames, *glance = (clip.frames for clip in clips)
            box = self._box(*frames.shape[-2:], of_box)
            return Sample(frames, glance[0] if glance else None, box, self.classes[i], i, replaced)
        raise ValueError(f"none of {replaced + 1} videos can be read; of the last one: {reason}")

    def _in_turn(self, index: int, seed: np.random.SeedSequence) -> Iterator[int]:
        """A video, and then all others in a random order."""
        yield index
        yield from (i for i in np.random.default_rng(seed).permutation(len(self)).tolist() if i != index)

    def _read(self, video: Video, seed: np.random.SeedSequence) -> list[Clip]:
        """Its candidates, and its glance if there is one, as whole frames."""
        path = existing(video.file)
        counts = (self.num_candidate_frames, *([self.num_glance_frames] if self.num_glance_frames else []))

        def choose(num_frames: int) -> list[list[int]]:
            if not self.training:
                return [segment_centres(num_frames, count) for count in counts]
            rng = np.random.default_rng(seed)  # made anew, since the reader may ask twice
            return [random_segments(num_frames, count, rng) for count in counts]

        def prepare(image: Image.Image) -> np.ndarray:
            return np.asarray(resize_short_side(image, self.short_side, path))

        return read_chosen(path, choose, prepare, start=video.start, end=video.end)

    def _box(self, height: int, width: int, seed: np.random.SeedSequence) -> Tensor:
        if not self.training:
            return centre_box(height, width, self.frame_size)
        return training_box(height, width, np.random.default_rng(seed), size=self.frame_size, flip=self.flip)


class EpochOrder(Sampler[list[tuple[int, int]]]):
    """Batches (epoch, index) of one process, for a DataLoader's batch_sampler: all videos of an epoch in an order drawn
    by (seed, epoch), of which each step takes world_size * batch_size, and each process its part of these.

    So all processes together see what one with batches of world_size * batch_size sees. What is left over at the end,
    too little for a step, is left out; it is another part in another epoch.

    Args:
        num_videos: of the data set.
        batch_size: of one process.
        seed: at least 0.
        rank, world_size: which process this is, of how many.

    Raises:
        TypeError, ValueError: an argument that does not fit.
    """

    def __init__(self, num_videos: int, batch_size: int, *, seed: int, rank: int, world_size: int) -> None:
        check_positive_ints(num_videos=num_videos, batch_size=batch_size, world_size=world_size)
        _check_not_negative(seed=seed, rank=rank)
        require(rank < world_size, lambda: f"rank must be below world_size={world_size}, got {rank}")
        self.num_batches = num_videos // (batch_size * world_size)  # of a whole epoch
        require(
            self.num_batches > 0,
            lambda: f"batch_size * world_size must be at most num_videos={num_videos}, got {batch_size * world_size}",
        )
        self.num_videos, self.batch_size, self.seed = num_videos, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.set_epoch(0)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Goes to an epoch, of which the first batches are left out: those that were there before a stop."""
        _check_not_negative(epoch=epoch, first_batch=first_batch)
        require(
            first_batch <= self.num_batches,
            lambda: f"first_batch must be at most {self.num_batches}, the batches of an epoch, got {first_batch}",
        )
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        """Batches that are left of the epoch."""
        return self.num_batches - self.first_batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        (mixed,) = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1).tolist()
        order = torch.randperm(self.num_videos, generator=torch.Generator().manual_seed(mixed)).tolist()
        for batch in range(self.first_batch, self.num_batches):
            first = (batch * self.world_size + self.rank) * self.batch_size
            yield [(self.epoch, index) for index in order[first : first + self.batch_size]]


def batch_of(
    samples: Sequence[Sample],
    *,
    device: torch.device | str,
    frame_size: int,
    dtype: torch.dtype | None = None,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
) -> Batch:
    """The samples as a model takes them: bytes go to the device, which reads each one's box into the batch.

    As bytes again, which models normalise where they read patches of them, it takes a quarter of float32's memory, and
    what is not looked at is never normalised.

    Args:
        samples: at least one, whose frames may differ in height and width.
        device: of the batch. Copies from pinned memory (the DataLoader's pin_memory) do not wait for it.
        frame_size: S.
        dtype: of the frames; default bytes, or with mean and std float32.
        mean, std: of each channel, for frames in [0, 1], where they are to be normalised here; numbers are sent to
            the device once.

    Raises:
        ValueError: no samples, or different numbers of frames.
    """
    require(len(samples) > 0, lambda: "samples must be at least one, got none")
    boxed = [sample.box for sample in samples if sample.box is not None]
    require(
        len(boxed) in (0, len(samples)),
        lambda: f"samples must all have a box, or none, got {len(boxed)} of {len(samples)}",
    )
    boxes = torch.stack(boxed).to(device, non_blocking=True) if boxed else None

    def read(clips: Sequence[Tensor]) -> Tensor:
        counts = {len(clip) for clip in clips}
        require(len(counts) == 1, lambda: f"samples must have equal numbers of frames, got {sorted(counts)}")
        if boxes is None:
            return torch.stack([clip.to(device, non_blocking=True) for clip in clips])
        count = counts.pop()
        out = torch.empty(
            (len(clips) * count, 3, frame_size, frame_size),
            dtype=dtype or (torch.uint8 if mean is None else torch.float32),
            device=device,
            memory_format=torch.channels_last,
        )
        for clip, box, place in zip(clips, boxes, out.split(count), strict=True):
            there = clip.to(device, non_blocking=True)
            read_augmented(there, box, frame_size, mean=mean, std=std, out=place)
        return out.unflatten(0, (len(clips), count))

    glances = [sample.glance_frames for sample in samples if sample.glance_frames is not None]
    require(
        len(glances) in (0, len(samples)),
        lambda: f"samples must all have glance_frames, or none, got {len(glances)} of {len(samples)}",
    )
    return Batch(
        frames=read([sample.frames for sample in samples]),
        glance_frames=read(glances) if glances else None,
        labels=torch.tensor([sample.label for sample in samples], device=device),
        indices=torch.tensor([sample.index for sample in samples], device=device),
    )


def _check_not_negative(**values: int) -> None:
    """Every value must be an integer >= 0; the names are those of the arguments."""
    for name, value in values.items():
        require(plain_int(name, value) >= 0, lambda name=name, value=value: f"{name} must be at least 0, got {value}")

"""What a stream has done so far: exits, costs, speed, and how long videos took."""

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

LATENCIES = 100_000  # of how many of the last videos the percentiles are


@dataclass(frozen=True)
class Stats:
    """Of one stream, up to now; `print(stats)` shows it in a few lines."""

    videos: int  # that have an answer
    errors: int  # clips that could not be read
    exits: tuple[int, ...]  # how many videos left at each
    mean_multiply_adds: float  # of a video; NaN before the first
    videos_per_s: float  # from the start of the stream to its end, or to now
    waited_share: float  # of that time, for clips to be there: decoding, if it is the slower part
    fill: float  # of the focus encoder's batches, on average; NaN if it ran none of several videos
    latency_ms: tuple[float, float, float]  # from the clip being there to the answer: p50, p95, p99

    def __str__(self) -> str:
        shares = ", ".join(f"{number}: {count / max(self.videos, 1):.1%}" for number, count in enumerate(self.exits))
        p50, p95, p99 = self.latency_ms
        full = "" if math.isnan(self.fill) else f"; focus batches {self.fill:.0%} full"
        return "\n".join(
            [
                f"{self.videos} videos, {self.errors} errors; {self.videos_per_s:.3g} videos/s,"
                f" {self.waited_share:.0%} of the time waiting for clips",
                f"{self.mean_multiply_adds / 1e9:.2f} GFLOPs (multiply-adds) a video; left at exit {shares}",
                f"latency {p50:.0f} ms (median), {p95:.0f} (p95), {p99:.0f} (p99){full}",
            ]
        )


class Tally:
    """Counts while a stream runs."""

    def __init__(self, num_exits: int) -> None:
        self.exits = [0] * num_exits
        self.errors = 0
        self.waited = 0.0  # seconds
        self.fill = float("nan")
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._started = self._ended = None  # of time.perf_counter

    def begin(self) -> None:
        self._started = time.perf_counter()

    def add(self, exit_number: int, seconds: float) -> None:
        """Counts a video with an answer, so long after it was there."""
        self.exits[exit_number] += 1
        self._latencies.append(seconds)

    def end(self) -> None:
        self._ended = time.perf_counter()

    def stats(self, costs: Sequence[int]) -> Stats:
        """Up to now; costs: multiply-adds of a video that leaves at each exit."""
        now = time.perf_counter()
        seconds = (self._ended or now) - (self._started or now)
        videos = sum(self.exits)
        spent = sum(count * cost for count, cost in zip(self.exits, costs, strict=True))
        latencies = torch.tensor(list(self._latencies) or [torch.nan], dtype=torch.float64)
        percentiles = latencies.quantile(torch.tensor([0.5, 0.95, 0.99], dtype=torch.float64)) * 1e3
        return Stats(
            videos=videos,
            errors=self.errors,
            exits=tuple(self.exits),
            mean_multiply_adds=spent / videos if videos else float("nan"),
            videos_per_s=videos / seconds if seconds else 0.0,
            waited_share=self.waited / seconds if seconds else 0.0,
            fill=self.fill,
            latency_ms=tuple(percentiles.tolist()),
        )

"""A long stream of small clips with all that can go wrong: every video once, and memory that does not grow."""

import random
import time
from pathlib import Path

import pytest
import torch
from test_streams import engine_of
from tiny_models import tiny, tiny_clips

from adafocus_models import Thresholds, exit_score

NAME, KINDS = "uni_adafocus", 20
MOST_GROWTH = 60 * 2**20  # bytes of resident memory, once all has been used


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_soak(count):
    chance = random.Random(0)
    model, engine = tiny(NAME), engine_of(NAME, 4)
    frames, glance_frames = tiny_clips(model, KINDS)
    with torch.inference_mode():
        logits = model(frames, glance_frames).exit_logits.transpose(0, 1)  # [E, KINDS, C]
    scores = exit_score(logits)
    bad = {v for v in range(count) if chance.random() < 0.02}
    left, results, closed = list(range(count)), {}, 0

    def clips(numbers):
        for v in numbers:
            if chance.random() < 0.01:
                time.sleep(chance.random() / 100)
            yield (v, "missing.mp4") if v in bad else (v, (frames[v % KINDS], glance_frames[v % KINDS]))

    def random_thresholds() -> Thresholds | None:
        if chance.random() < 0.1:
            return None
        return Thresholds.of([min(at_exit.quantile(chance.random()).item() + 1e-3, 0.0) for at_exit in scores[:-1]])

    after_warm_up = None
    while left:
        engine.set_thresholds(random_thresholds())
        stream = engine.stream(
            clips(left),
            ordered=chance.random() < 0.5,
            ring=chance.randint(1, 6),
            max_delay=chance.choice([None, 0.0, 0.01]),
            workers=chance.randint(1, 3),
        )
        stop_at = len(results) + chance.randint(1, max(count // 4, 1))
        for result in stream:
            assert result.id not in results
            results[result.id] = result
            if chance.random() < 0.01:
                engine.set_thresholds(random_thresholds())
            if len(results) == stop_at:
                stream.close()
                closed += 1
                break
        left = [v for v in left if v not in results]
        if after_warm_up is None and len(results) >= count // 4:
            after_warm_up = resident_bytes()
    assert closed >= 3
    assert set(results) == set(range(count))
    for v, result in results.items():
        assert (result.error is not None) == (v in bad)
        if result.error is None:
            expected = logits[result.exit, v % KINDS]
            torch.testing.assert_close(result.logits, expected, rtol=1e-5, atol=1e-5 * float(logits.abs().max()))
    assert len({result.exit for result in results.values()}) == model.num_exits + 1  # None is of the errors
    grown = resident_bytes() - after_warm_up
    assert grown < MOST_GROWTH, f"{grown / 2**20:.0f} MiB more than after a quarter of the videos"


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096

"""Streams: every video's online answer is the offline one, however batches, order and refill fall."""

import itertools
import threading
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from engine_models import quick_tuning
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tiny_models import tiny, tiny_clips
from torch import Tensor

from adafocus_models import (
    AdaFocusV1,
    AdaFocusV2,
    Engine,
    Output,
    Result,
    Thresholds,
    UniAdaFocus,
    VideoModel,
    architectures,
    evaluate_thresholds,
    exit_curve,
    exit_score,
    solve_thresholds,
)
from adafocus_ops import exit_gate

WITH_EXITS = tuple(name for name, network in architectures().items() if network.has_early_exit)
VIDEOS = 11
BATCHES = (1, 3, 4)
each_network = pytest.mark.parametrize("name", WITH_EXITS)


@cache
def engine_of(name: str, batch_size: int) -> Engine:
    """One for all examples; thresholds are set anew by each."""
    with pytest.MonkeyPatch.context() as patch:
        quick_tuning(patch)
        return Engine(
            tiny(name), batch_size=batch_size, runtime="library", check=False, keep_memory=False, progress=False
        )


@cache
def offline(name: str) -> tuple[list[tuple], Tensor, Output]:
    """Clips; logits [E, V, C] of all exits; and the output, with all frames and boxes that may be looked at."""
    frames, glance_frames = tiny_clips(tiny(name), VIDEOS)
    engine = engine_of(name, 4)
    engine.set_thresholds(None)
    output = engine(frames, glance_frames)
    clips = [frames[v] if glance_frames is None else (frames[v], glance_frames[v]) for v in range(VIDEOS)]
    return clips, output.exit_logits.transpose(0, 1), output


def assert_simulated(name: str, results: dict[int, Result], thresholds: Thresholds | None) -> None:
    """That the results are those of the simulation of these thresholds."""
    model = tiny(name)
    _, logits, output = offline(name)
    assert set(results) == set(range(VIDEOS))
    exits = torch.full((VIDEOS,), model.num_exits - 1)
    if thresholds is not None:
        exits = evaluate_thresholds(thresholds, exit_score(logits), [1.0] * model.num_exits).exit_index
    for v, result in results.items():
        assert result.error is None
        assert result.exit == exits[v]
        expected = logits[exits[v], v]
        torch.testing.assert_close(result.logits, expected, rtol=1e-5, atol=1e-5 * float(logits.abs().max()))
        count = frames_seen(model, int(exits[v]))
        assert result.frame_index.tolist() == output.frame_index[v, :count].tolist()
        boxes = output.boxes[v].expand(model.num_focus_frames, 4)[:count]
        torch.testing.assert_close(result.boxes, boxes.to(result.boxes.dtype), rtol=0, atol=1e-3)


def frames_seen(model: VideoModel, exit_number: int) -> int:
    """In how many frames a video has been looked at that leaves at this exit."""
    if type(model) in (AdaFocusV1, AdaFocusV2):  # an exit after every frame
        return exit_number + 1
    if type(model) is UniAdaFocus:  # and one before
        return exit_number
    return model.num_focus_frames if exit_number == model.num_exits - 1 else 0


def thresholds_between(logits: Tensor, places: list[float]) -> Thresholds | None:
    """Thresholds of all exits but the last, at these places among their scores, in the middle of two; None where two
    are so near to each other that rounding decides."""
    scores = exit_score(logits)  # [E, V]
    values = []
    for at_exit, place in zip(scores[:-1], itertools.cycle(places)):
        ranked = at_exit.sort().values.tolist()
        at = round(place * VIDEOS)
        low, high = [ranked[0] - 1, *ranked][at], [*ranked, 0.0][at]
        if high - low < 1e-4:
            return None
        values.append((low + high) / 2)
    return Thresholds.of(values)


@each_network
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    batch_size=st.sampled_from(BATCHES),
    places=st.lists(st.floats(0, 1), min_size=1, max_size=3),
    order=st.permutations(range(VIDEOS)),
    ring=st.integers(1, 5),
    ordered=st.booleans(),
)
def test_online_is_as_offline(name, batch_size, places, order, ring, ordered):
    clips, logits, _ = offline(name)
    engine, thresholds = engine_of(name, batch_size), thresholds_between(logits, places)
    assume(thresholds is not None)
    engine.set_thresholds(thresholds)
    found = list(engine.stream(((v, clips[v]) for v in order), ring=ring, ordered=ordered))
    assert len(found) == VIDEOS
    if ordered:
        assert [result.id for result in found] == order
    assert_simulated(name, {result.id: result for result in found}, thresholds)
    stats = engine.stats()
    assert stats.videos == sum(stats.exits) == VIDEOS
    assert stats.errors == 0


@each_network
@pytest.mark.parametrize("place", [0.0, 1.0, "one"])
def test_none_all_or_one_leaves(name, place):
    clips, logits, _ = offline(name)
    thresholds = thresholds_between(logits, [(VIDEOS - 1) / VIDEOS if place == "one" else 1 - place])
    engine = engine_of(name, 3)
    engine.set_thresholds(thresholds)
    results = {result.id: result for result in engine.stream(enumerate(clips))}
    assert_simulated(name, results, thresholds)
    left = sum(result.exit == 0 for result in results.values())
    assert left == {0.0: 0, 1.0: VIDEOS, "one": 1}[place]


@pytest.mark.parametrize("name", architectures())
def test_without_thresholds_all_see_everything(name):
    engine = engine_of(name, 4)
    engine.set_thresholds(None)
    assert_simulated(name, {result.id: result for result in engine.stream(enumerate(offline(name)[0]))}, None)


@pytest.mark.parametrize("name", ["uni_adafocus_tsm", "uni_adafocus"])
def test_a_gate_of_ones_own(name):
    """Every second row of whoever is inside leaves."""
    clips, logits, _ = offline(name)

    def gate(rows: Tensor):
        score = torch.arange(rows.shape[0]) % 2
        return exit_gate(torch.stack([score * 100.0, -score * 100.0], 1), 0.1)

    engine = engine_of(name, 4)
    engine.set_thresholds(gate)
    for result in engine.stream(enumerate(clips)):
        expected = logits[result.exit, result.id]
        torch.testing.assert_close(result.logits, expected, rtol=1e-5, atol=1e-5 * float(logits.abs().max()))
    assert engine.stats().exits[0] == 2 + 2 + 1


def test_nan_never_leaves():
    name = "uni_adafocus_tsm"
    model = tiny(name)
    frames, glance_frames = (x.float() for x in tiny_clips(model, 3))
    glance_frames[1] = torch.nan
    engine = engine_of(name, 3)
    engine.set_thresholds([-100.0])  # all that can leave
    results = list(engine.stream(enumerate(zip(frames, glance_frames, strict=True))))
    assert [result.exit for result in results] == [0, 1, 0]
    assert results[1].logits.isnan().all()
    assert not results[0].logits.isnan().any()


def test_focus_batches_are_full():
    """At an exit fraction of a half and batches of eight; without refill they would be half full."""
    name = "uni_adafocus_tsm"
    model = tiny(name)
    frames, glance_frames = tiny_clips(model, 400, seed=1)
    engine = engine_of(name, 8)
    with torch.inference_mode():
        scores = exit_score(model(frames, glance_frames).exit_logits[:, 0])
    engine.set_thresholds([scores.median().item()])
    results = list(engine.stream(enumerate(zip(frames, glance_frames, strict=True))))
    assert [result.exit for result in results].count(0) == pytest.approx(200, abs=4)
    assert engine.stats().fill >= 0.95


def test_focus_batches_of_several_steps_are_full():
    """Frame by frame, videos at other steps take the places of those that have left."""
    name = "uni_adafocus"
    model = tiny(name)
    frames, glance_frames = tiny_clips(model, 50, seed=1)
    engine = engine_of(name, 8)
    with torch.inference_mode():
        logits = model(frames, glance_frames).exit_logits.transpose(0, 1)
    engine.set_thresholds([at_exit.median().item() for at_exit in exit_score(logits)[:-1]])
    clips = list(zip(frames, glance_frames, strict=True)) * 30  # at the end of a stream nobody takes their places
    assert len(list(engine.stream(enumerate(clips)))) == 1500
    stats = engine.stats()
    assert all(count > 0 for count in stats.exits)
    assert stats.fill >= 0.95


# ----------------------------------------------------------------------------------------------------
# What comes in


def some_clips(name: str = "uni_adafocus_tsm") -> list[tuple]:
    return list(enumerate(offline(name)[0]))


@pytest.fixture
def engine():
    found = engine_of("uni_adafocus_tsm", 3)
    found.set_thresholds([-0.5])
    return found


def test_an_empty_iterator(engine):
    assert list(engine.stream([])) == []
    assert engine.stats().videos == 0
    assert engine.stats().fill != engine.stats().fill  # NaN


def test_a_clip_that_does_not_fit_is_its_own_error(engine):
    clips = some_clips()
    bad = [
        ("missing.mp4", FileNotFoundError, "does not exist"),
        (("short", clips[0][1][0][:2]), ValueError, r"frames must be \[B, 5, 3, 224, 224\]"),
        (("text", "also missing.mp4"), FileNotFoundError, "does not exist"),
        (("list", [1, 2]), TypeError, "a clip must be of tensors"),
        (7, TypeError, r"videos must give paths, or \(id, path, bytes or clip\)"),
        (("three", clips[0][1] * 2), ValueError, "a clip must be frames, or"),
    ]
    mixed = [x for pair in zip(clips, [item for item, *_ in bad], strict=False) for x in pair]
    results = list(engine.stream(mixed))
    assert [result.id for result in results[::2]] == list(range(len(bad)))
    assert all(result.error is None for result in results[::2])
    for result, (item, kind, message) in zip(results[1::2], bad, strict=True):
        assert result.id == (item[0] if isinstance(item, tuple) else item)
        assert result.logits is None
        with pytest.raises(kind, match=message):
            raise result.error
    assert engine.stats().errors == len(bad)


def test_bytes_and_floats_do_not_share_a_batch(engine):
    """Which would make floats of the bytes, and nobody would normalise them."""
    clips = some_clips()
    floats = [(f"float {v}", tuple(x.float() / 255 for x in clip)) for v, clip in clips]
    mixed = list(engine.stream(x for pair in zip(clips, floats, strict=True) for x in pair))
    for some, alone in ((mixed[::2], engine.stream(clips)), (mixed[1::2], engine.stream(floats))):
        for result, expected in zip(some, alone, strict=True):
            assert result.exit == expected.exit
            torch.testing.assert_close(result.logits, expected.logits, rtol=1e-4, atol=1e-4)


def test_an_iterator_that_fails_loses_nothing_of_before(engine):
    def clips():
        yield from some_clips()[:5]
        raise OSError("the disk is gone")

    stream, found = engine.stream(clips()), []

    def read_all():
        for result in stream:
            found.append(result.id)

    with pytest.raises(OSError, match="the disk is gone"):
        read_all()
    assert found == list(range(5))


def test_a_closed_stream_ends_at_once_and_cleans_up(engine):
    closed = threading.Event()

    def endless():
        try:
            for number in itertools.count():
                yield number, offline("uni_adafocus_tsm")[0][number % VIDEOS]
        finally:
            closed.set()

    before = threading.active_count()
    stream = engine.stream(endless())
    assert [next(stream).id for _ in range(4)] == [0, 1, 2, 3]
    stream.close()
    assert closed.wait(5)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    assert len(list(engine.stream(some_clips()))) == VIDEOS  # and the engine goes on


def test_a_stream_that_nobody_reads_starts_nothing(engine):
    before = threading.active_count()
    engine.stream(some_clips())
    assert threading.active_count() == before


def test_the_iterator_waits_for_room(engine):
    """It is never further ahead than the batches under way, one that waits, and what is decoded ahead."""
    taken = itertools.count()
    last = -1

    def clips():
        nonlocal last
        for _ in range(200):
            last = next(taken)
            yield last, offline("uni_adafocus_tsm")[0][last % VIDEOS]

    stream = engine.stream(clips(), ring=2, workers=1)
    next(stream)
    time.sleep(0.3)
    assert last <= 3 * (2 + 1) + (3 + 1) + 3


def test_max_delay_answers_while_the_iterator_sleeps(engine):
    """One video of a batch of three, and no other one comes."""
    goes_on = threading.Event()

    def clips():
        yield some_clips()[0]
        assert goes_on.wait(20)
        yield some_clips()[1]

    engine.set_thresholds([0.0])  # nobody leaves, so that it waits for the focus too
    stream = engine.stream(clips(), max_delay=0.05)
    assert next(stream).id == 0
    assert not goes_on.is_set()
    goes_on.set()
    assert next(stream).id == 1


def test_thresholds_change_between_batches(engine):
    engine.set_thresholds([-100.0])  # all leave
    stream = engine.stream((number, clip) for number, (_, clip) in enumerate(some_clips() * 20))
    first = next(stream)
    engine.set_thresholds(None)
    second = [result.exit for result in stream]
    assert first.exit == 0
    assert second[-1] == 1
    assert second == sorted(second)
    engine.set_thresholds([-100.0])
    assert {result.exit for result in engine.stream(some_clips())} == {0}


def test_arguments_of_a_stream(engine):
    for options, message in (
        ({"ring": 0}, "ring must be"),
        ({"workers": -1}, "workers must be"),
        ({"max_delay": -1}, "max_delay must be None or seconds"),
        ({"ordered": 1}, "ordered must be"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            engine.stream([], **options)
    with pytest.raises(TypeError, match="not iterable"):
        engine.stream(7)
    with pytest.raises(TypeError, match=r"videos must be an iterable of them, got 'a.mp4' alone: give \['a.mp4'\]"):
        engine.stream("a.mp4")
    with pytest.raises(TypeError, match="videos must be an iterable of them"):
        engine.stream(Path("a.mp4"))


def test_thresholds_of_every_kind(engine, tmp_path):
    path = tmp_path / "thresholds.json"
    logits = offline("uni_adafocus_tsm")[1]
    solved = solve_thresholds(exit_score(logits), engine.exit_costs, q=1.0)
    curve = exit_curve(exit_score(logits), engine.exit_costs, logits.argmax(2) == 0)
    solved.save(path)
    for kind in (path, str(path), solved):
        engine.set_thresholds(kind)
        assert torch.equal(engine.thresholds.values, solved.values)
    with pytest.raises(RuntimeError, match="a budget needs the curve"):
        engine.set_budget(1.0)
    curve.save(path)
    engine.set_thresholds(path)
    for share in (0.4, 0.9):
        least, most = curve.expected_cost[[0, -1]].tolist()
        budget = least + share * (most - least)
        engine.set_budget(budget / 1e9)
        assert engine.thresholds.expected_cost <= budget
        list(engine.stream(some_clips()))
        assert engine.stats().mean_multiply_adds <= budget
    with pytest.raises(ValueError, match="budget must be at least"):
        engine.set_budget(0.0)
    for wrong in ([-1.0, -1.0], "missing.json", 7):
        with pytest.raises((TypeError, ValueError, OSError)):
            engine.set_thresholds(wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="waits of the host for a GPU need one")
@pytest.mark.parametrize("name", ["uni_adafocus_tsm", "uni_adafocus"])
def test_on_a_gpu_nothing_waits_but_for_answers(name):
    """Which are waited for by an event, that this mode does not count."""
    clips, logits, _ = offline(name)
    engine = Engine(tiny(name), batch_size=4, device="cuda", runtime="library", check=False, progress=False)
    engine.set_thresholds(thresholds_between(logits, [0.5]))
    list(engine.stream(enumerate(clips)))  # captures
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = list(engine.stream(enumerate(clips)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [result.id for result in found] == list(range(VIDEOS))

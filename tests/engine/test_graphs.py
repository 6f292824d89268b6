"""Graphs, with a stand-in for the capture: buckets, padding, static memory, and what happens where a capture fails."""

import pytest
import torch
from engine_models import assert_equal_outputs, bytes_of, engine_of, quick, small_tsm  # noqa: F401
from tiny_models import tiny, tiny_clips

from adafocus_models import Thresholds, exit_score
from adafocus_models.engine import Engine, graphs
from adafocus_models.engine.graphs import Graphs, bucket_of


class Capture:
    """Runs the call again at every replay, into the same memory, as a graph does."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, call):
        self.count += 1
        results = call()

        def replay():
            for memory, value in zip(results, call(), strict=True):
                if memory is not None:
                    memory.copy_(value)

        return replay, results


def test_buckets():
    assert [bucket_of(videos, 12) for videos in (1, 2, 3, 4, 5, 8, 9, 12)] == [1, 2, 4, 4, 8, 8, 12, 12]


def test_padding_leaves_no_trace():
    seen = []

    def forward(x, y):
        seen.append(tuple(x.shape))
        return x.sum(1), None if y is None else y * 2

    run = Graphs(forward, 8, Capture())
    x = torch.arange(15.0).view(5, 3)
    total, none = run(x, None)
    assert torch.equal(total, x.sum(1))
    assert none is None
    assert seen[0] == (8, 3)
    again, _ = run(x[:2] + 1, None)
    assert torch.equal(again, (x[:2] + 1).sum(1))
    assert torch.equal(total, x.sum(1))  # results have memory of their own
    more, _ = run(x + 7, None)
    assert torch.equal(more, (x + 7).sum(1))
    assert run._capture.count == 2  # buckets of 8 and 2
    both = run(x, x)
    assert torch.equal(both[1], x * 2)
    assert run._capture.count == 3


def test_static_memory_is_laid_out_as_what_comes():
    strides = []

    def forward(x):
        strides.append(x.stride())
        return (x.float(),)

    run = Graphs(forward, 4, Capture())
    x = torch.arange(4 * 2 * 5 * 6 * 3, dtype=torch.uint8).view(4, 2, 5, 6, 3).movedim(-1, 2)
    assert torch.equal(run(x)[0], x.float())
    assert strides[0] == x.stride()
    assert torch.equal(run(x.contiguous())[0], x.float())  # a kind of its own
    assert run._capture.count == 2


@pytest.fixture
def on_a_gpu(monkeypatch, quick):  # noqa: F811
    """The engine takes this machine for one whose forwards are captured."""
    capture = Capture()
    monkeypatch.setattr(graphs, "CudaCapture", lambda: capture)
    monkeypatch.setattr(Engine, "_why_not_captured", lambda self: None)
    return capture


@torch.inference_mode()
def test_an_engine_replays(on_a_gpu):
    model = small_tsm()
    engine = engine_of(model, batch_size=4)
    inputs = bytes_of(model, 5)
    assert_equal_outputs(engine(*inputs), model(*inputs))  # a batch of four, and one
    assert on_a_gpu.count == 2
    assert_equal_outputs(engine(*(x[:3] for x in inputs)), model(*(x[:3] for x in inputs)))
    assert on_a_gpu.count == 2
    assert "CUDA graphs: yes" in str(engine.report())


@torch.inference_mode()
def test_a_capture_that_fails_is_told(on_a_gpu, monkeypatch):
    def fails(call):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graphs, "CudaCapture", lambda: fails)
    model = small_tsm()
    inputs = bytes_of(model, 2)
    engine = engine_of(model)
    assert_equal_outputs(engine(*inputs), model(*inputs))
    assert "CUDA graphs: no, a capture failed: operation not permitted" in str(engine.report())
    with pytest.raises(RuntimeError, match="operation not permitted"):
        engine_of(model, graphs=True)(*inputs)


@torch.inference_mode()
def test_stages_of_encoders_are_captured_where_videos_leave(on_a_gpu):
    """In buckets of videos, and thresholds change without a new capture."""
    model = tiny("uni_adafocus")
    frames, glance_frames = tiny_clips(model, 7)
    engine = engine_of(model, batch_size=4)
    scores = exit_score(model(frames, glance_frames).exit_logits[:, :-1].transpose(0, 1))  # [exits, videos]
    for place in (0.3, 0.6):
        thresholds = Thresholds.of([at_exit.quantile(place).item() for at_exit in scores])
        engine.set_thresholds(thresholds)
        assert_equal_outputs(engine(frames, glance_frames), model(frames, glance_frames, gate=thresholds))
    captured = on_a_gpu.count
    assert 2 <= captured <= 6  # a glance and a focus, of 4, 2 and 1 videos
    engine.set_thresholds(None)
    engine(frames, glance_frames)
    whole = on_a_gpu.count
    engine.set_thresholds(thresholds)
    engine(frames, glance_frames)
    engine.set_thresholds(None)
    engine(frames, glance_frames)
    assert on_a_gpu.count == whole > captured
    assert "CUDA graphs: yes" in str(engine.report())

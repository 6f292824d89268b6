"""quantile_frames: published frames, degenerate weights, where jitter comes from."""

import pytest
import torch
from op_oracles import INDEX, arrays

from adafocus_ops import quantile_frames, set_debug
from conftest import device_of, is_emulated, require_backend


@pytest.fixture
def pick(request, backend):
    """quantile_frames on a backend, with its result on the CPU."""
    device = device_of(backend)
    require_backend(request, "quantile_frames", backend, device)

    def run(weights, *args, **kwargs):
        kwargs = {name: v.to(device) if isinstance(v, torch.Tensor) else v for name, v in kwargs.items()}
        return quantile_frames(weights.to(device), *args, backend=backend, **kwargs).cpu()

    return run


@pytest.mark.parametrize("case", INDEX["frame_indices"])
def test_frames_are_the_published_ones(case, backend, pick):
    config, data = INDEX["frame_indices"][case], arrays("frame_indices", case)
    if backend == "triton" and is_emulated(backend):
        data = {name: array[::8] for name, array in data.items()}  # the interpreter takes its time
    count, k = config["N_candidates"], config["K_selected"]
    sure = data["unambiguous"]
    assert sure.sum() > 0.9 * len(sure)
    assert torch.equal(pick(data["weights"], count, k)[sure], data["indices"][sure])
    if "jitter" in data:
        sure = data["jitter_unambiguous"]
        got = pick(data["weights"], count, k, jitter=data["jitter"])
        assert torch.equal(got[sure], data["jitter_indices"][sure])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("count", "k"), [(24, 8), (8, 8), (48, 1), (5, 3)])
def test_degenerate_weights_give_distinct_frames_in_range(pick, count, k, dtype):
    nan, inf = float("nan"), float("inf")
    rows = [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [nan] * 4, [nan, 1, nan, 0], [-1, 2, -3, 4], [inf, 1, inf, 0],
            [1e-30, 0, 0, 1e-30], [0.25] * 4, [100.0] * 4]  # fmt: skip
    weights = torch.tensor(rows, dtype=dtype)
    index = pick(weights, count, k)
    assert index.shape == (len(rows), k)
    assert index.min() >= 0
    assert index.max() < count
    assert (index.diff(dim=1) > 0).all()
    assert torch.equal(index, quantile_frames(weights, count, k, backend="reference"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("items", "count", "k"), [(16, 48, 16), (100, 1000, 70)])
def test_every_backend_picks_the_same(pick, backend, items, count, k, dtype):
    """To the last bit of every position, with jitter and without."""
    rows = 6 if is_emulated(backend) else 3000
    weights = torch.randn(rows, items, dtype=torch.float64).mul(2).softmax(1).to(dtype)
    for how in ({}, {"seed": 3}, {"jitter": torch.rand(rows, k, dtype=dtype)}):
        assert torch.equal(
            pick(weights, count, k, **how), quantile_frames(weights, count, k, backend="reference", **how)
        )


def test_nan_jitter_gives_distinct_frames_in_range(pick):
    index = pick(torch.ones(1, 4), 24, 3, jitter=torch.tensor([[0.5, float("nan"), 7.0]]))
    assert index.min() >= 0
    assert index.max() < 24
    assert (index.diff() > 0).all()


def test_one_hot_weights_pick_neighbours(pick):
    assert pick(torch.eye(4)[2:3], 16, 4).tolist() == [[8, 9, 10, 11]]
    assert pick(torch.eye(4)[3:], 16, 6).tolist() == [[10, 11, 12, 13, 14, 15]]


def test_jitter_comes_from_a_seed_or_a_generator():
    weights = torch.rand(50, 8).softmax(1)
    runs = [quantile_frames(weights, 24, 8, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    whole = quantile_frames(weights, 24, 8, seed=1)
    rows = torch.tensor([40, 3, 17])
    assert torch.equal(quantile_frames(weights[rows], 24, 8, seed=1, row_id=rows), whole[rows])


def test_jitter_that_is_asked_for():
    weights = torch.rand(50, 8).softmax(1)
    midpoints, seeded = quantile_frames(weights, 24, 8), quantile_frames(weights, 24, 8, seed=3)
    drawn = lambda **how: quantile_frames(weights, 24, 8, **how)  # noqa: E731
    assert torch.equal(drawn(jitter=True, seed=3), seeded)
    assert torch.equal(drawn(jitter=True, seed=torch.tensor(3)), seeded)
    generators = (torch.Generator().manual_seed(1) for _ in range(2))
    assert torch.equal(drawn(jitter=True, generator=next(generators)), drawn(generator=next(generators)))
    torch.manual_seed(4)
    first, second = drawn(jitter=True), drawn(jitter=True)
    assert not torch.equal(first, second)
    torch.manual_seed(4)
    assert torch.equal(drawn(jitter=True), first)
    generator = torch.Generator().manual_seed(1)
    state = generator.get_state()
    for how in ({"jitter": False}, {"jitter": False, "seed": 3}, {"jitter": False, "generator": generator}):
        assert torch.equal(drawn(**how), midpoints)
    assert torch.equal(generator.get_state(), state)


def test_jitter_that_is_asked_for_is_the_same_everywhere(pick):
    weights = torch.rand(20, 8).softmax(1)
    wanted = quantile_frames(weights, 24, 8, jitter=True, seed=5, backend="reference")
    assert torch.equal(pick(weights, 24, 8, jitter=True, seed=torch.tensor(5)), wanted)


def test_jittered_frames_are_one_of_each_stratum():
    """Of even weights, frame i lies in the i-th of k equal parts of the video."""
    frames = quantile_frames(torch.full((1000, 4), 0.25), 80, 8, jitter=True, seed=0)
    assert torch.equal(frames // 10, torch.arange(8).expand(1000, 8))
    assert len(frames[:, 3].unique()) == 10


def test_debug_mode_rejects_raw_scores():
    set_debug(True)
    try:
        with pytest.raises(ValueError, match=r"weights must sum to 1 in each row, .*; row 1 sums to 4"):
            quantile_frames(torch.tensor([[0.25] * 4, [1.0] * 4]), 8, 2)
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            quantile_frames(torch.randn(200, 300).to(dtype).softmax(1), 400, 2)
            scores = torch.rand(200, 300).to(dtype)
            quantile_frames((scores / scores.sum(1, keepdim=True)).float(), 400, 2)
    finally:
        set_debug(False)


def test_seeded_jitter_is_uniform():
    """Of one bin, the first of k quantiles is uniform over the first 1/k of the frames."""
    frames = quantile_frames(torch.ones(100_000, 1), 1000, 10, seed=0)[:, 0]
    counts = torch.bincount(frames, minlength=100).double()
    assert len(counts) == 100
    assert (counts - 1000).abs().max() < 5 * 1000**0.5


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((torch.ones(3), 8, 2), {}, r"weights must be \[B, T\], got \(3,\) float32"),
        ((torch.ones(3, 4), 8, 9), {}, "k must be at most num_frames=8, got 9"),
        ((torch.ones(3, 4), 8, 0), {}, "k must be at least 1, got 0"),
        ((torch.ones(3, 4), 8, 2), {"jitter": torch.zeros(3, 2), "seed": 1}, "jitter and seed must not both be given"),
        (
            (torch.ones(3, 4), 8, 2),
            {"jitter": True, "seed": 1, "generator": torch.Generator()},
            "generator and seed must",
        ),
        ((torch.ones(3, 4), 8, 2), {"jitter": torch.zeros(3, 3)}, r"jitter must be \[B, k\] with B=3 .* and k=2"),
    ],
)
def test_bad_arguments(args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        quantile_frames(*args, **kwargs)

"""weighted_sample: what is drawn, how often, and that it is the same everywhere."""

import itertools
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from adafocus_ops import backends, set_debug, weighted_sample
from adafocus_ops.examples.tensors import FLOATS
from adafocus_ops.examples.weighted_sample import weights_of_all_sizes
from conftest import device_of, is_emulated, require_backend

CSRC = Path(__file__).parents[2] / "csrc"


@pytest.fixture
def draw(request, backend):
    """weighted_sample on a backend, with its result on the CPU."""
    device = device_of(backend)
    require_backend(request, "weighted_sample", backend, device)

    def run(weights, *args, **kwargs):
        kwargs = {name: v.to(device) if isinstance(v, torch.Tensor) else v for name, v in kwargs.items()}
        return weighted_sample(weights.to(device), *args, backend=backend, **kwargs).cpu()

    return run


# ----------------------------------------------------------------------------------------------------
# Random words


# (counter, key, words), published with the generator's implementation.
KNOWN_ANSWERS = (
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
)

PROGRAM = """
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include "adafocus/race.h"
using namespace adafocus;
int main(int, char** argv) {
  uint32_t in[6];
  for (int i = 0; i < 6; ++i) in[i] = uint32_t(strtoul(argv[1 + i], nullptr, 16));
  const Words4 out = philox4x32_10({{in[0], in[1], in[2], in[3]}}, in[4], in[5]);
  printf("%08x %08x %08x %08x\\n", out.word[0], out.word[1], out.word[2], out.word[3]);
  for (uint32_t word : {0u, 1u, 0x3fffffffu, 0x40000000u, 0x80000000u, 0xffffffffu})
    printf("%a %a\\n", uniform(word), exponential(word));
}
"""


@pytest.fixture(scope="module")
def philox_program(tmp_path_factory) -> Path:
    compiler = shutil.which("c++")
    if not compiler:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("philox")
    (folder / "philox.cpp").write_text(PROGRAM)
    command = [
        compiler,
        "-std=c++17",
        f"-I{CSRC / 'include'}",
        str(folder / "philox.cpp"),
        "-o",
        str(folder / "philox"),
    ]
    subprocess.run(command, check=True)
    return folder / "philox"


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(philox_program, counter, key, words):
    out = subprocess.run([philox_program, *counter.split(), *key.split()], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[0] == words


def test_uniforms_are_in_0_1_and_exponentials_are_their_logarithms(philox_program):
    out = subprocess.run([philox_program, *["0"] * 6], capture_output=True, text=True, check=True)
    rows = [[float.fromhex(value) for value in line.split()] for line in out.stdout.splitlines()[1:]]
    for word, (uniform, exponential) in zip((0, 1, 2**30 - 1, 2**30, 2**31, 2**32 - 1), rows, strict=True):
        assert 0 < uniform <= 1
        exact = -math.log1p(-word / 2**32)
        assert exponential == pytest.approx(exact, rel=3e-7, abs=0)


# ----------------------------------------------------------------------------------------------------
# Frequencies. All backends draw the same (below), so the one that is quickest stands for all.


QUICKEST = "cpu" if backends.why_not("cpu", "weighted_sample", "cpu") is None else "reference"


def draws_of(*args, **kwargs) -> torch.Tensor:
    return weighted_sample(*args, backend=QUICKEST, **kwargs)


SEQUENCES = [(items, k) for items in (2, 3, 5, 6) for k in (1, 2, 3, 4) if k <= items]


def sequence_probabilities(weights: list[float], k: int) -> dict[tuple[int, ...], float]:
    """The probability of every sequence of k draws (Eq. 16)."""
    probabilities = {}
    for sequence in itertools.permutations(range(len(weights)), k):
        left, probability = sum(weights), 1.0
        for item in sequence:
            probability *= weights[item] / left
            left -= weights[item]
        probabilities[sequence] = probability
    return probabilities


def chi_square_is_plausible(counts: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether a chi-square statistic is within 4.5 standard deviations of its mean, on both sides as far as it goes."""
    statistic = ((counts - expected).square() / expected).sum().item()
    freedom = len(expected) - 1
    # Wilson and Hilferty: the cube root of a chi-square over its freedom is close to normal.
    deviations = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    return abs(deviations) < 4.5


@pytest.mark.parametrize(("items", "k"), SEQUENCES)
def test_sequences_are_as_frequent_as_they_should_be(items, k):
    """First draws, inclusions and orders at once: every sequence has its probability."""
    weights = [0.5, 0.2, 0.11, 0.1, 0.05, 0.04][:items]
    probabilities = sequence_probabilities(weights, k)
    count = 200_000
    draws = draws_of(torch.tensor(weights), k, num_samples=count, seed=items * 10 + k)
    code = (draws * items ** torch.arange(k)).sum(1)
    found = torch.bincount(code, minlength=items**k).double()
    codes = torch.tensor([sum(item * items**i for i, item in enumerate(sequence)) for sequence in probabilities])
    assert found[codes].sum() == count  # nothing else is drawn
    expected = count * torch.tensor(list(probabilities.values()), dtype=torch.float64)
    assert chi_square_is_plausible(found[codes], expected)


def test_rows_samples_and_seeds_are_independent():
    """Pairs of first draws, of neighbours along each of these, have the product of their probabilities."""
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1])
    draws = torch.stack([draws_of(weights.expand(300, 4), 1, num_samples=300, seed=s)[..., 0] for s in range(2)])
    pairs = torch.outer(weights, weights).flatten().double()
    for a, b in (
        (draws[:, 1:], draws[:, :-1]),  # rows
        (draws[:, :, 1:], draws[:, :, :-1]),  # samples
        (draws[1:], draws[:-1]),  # seeds
        (draws[0, 1:, :-1], draws[0, :-1, 1:]),  # row b + 1 with sample m, row b with sample m + 1
    ):
        counts = torch.bincount((4 * a + b).flatten(), minlength=16).double()
        assert chi_square_is_plausible(counts, pairs * a.numel())


def test_long_rows_draw_in_proportion():
    """Blocks of 100 items of a row of 5000 are drawn first as often as their weights say."""
    weights = torch.arange(1, 5001, dtype=torch.float64)
    first = draws_of(weights, 1, num_samples=5_000, seed=1)[:, 0]
    counts = torch.bincount(first // 100, minlength=50).double()
    expected = weights.view(50, 100).sum(1) / weights.sum() * len(first)
    assert chi_square_is_plausible(counts, expected)


def test_ten_million_draws_have_no_duplicate_and_zeros_come_last():
    exponents = torch.linspace(-30, 0, 17, dtype=torch.float64)
    weights = torch.cat([10**exponents, torch.zeros(3, dtype=torch.float64)])[torch.randperm(20)]
    zeros = (weights == 0).nonzero()[:, 0]
    for seed in range(5):
        draws = draws_of(weights.float(), 20, num_samples=100_000, seed=seed)
        assert torch.equal(draws.sort(1).values, torch.arange(20).expand(100_000, 20))
        assert torch.equal(draws[:, 17:], zeros.expand(100_000, 3))


# ----------------------------------------------------------------------------------------------------
# The same everywhere


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_backend_draws_the_same(request, backend, dtype):
    """Not one index differs from the reference's: the keys are computed alike to the last bit."""
    device = device_of(backend)
    require_backend(request, "weighted_sample", backend, device)
    samples, shapes = (3, ((40, 5), (7, 16), (9, 33), (2, 130))) if is_emulated(backend) else (50, ((900, 7), (70, 61)))
    different = 0
    for seed, (rows, items) in enumerate(shapes):
        weights = weights_of_all_sizes(rows, items, dtype, "contiguous")
        k = min(items, 12)
        expected = weighted_sample(weights, k, num_samples=samples, seed=seed, backend="reference")
        got = weighted_sample(weights.to(device), k, num_samples=samples, seed=seed, backend=backend)
        different += int((got.cpu() != expected).sum())
    assert different == 0


@pytest.mark.parametrize(("items", "k"), [(1024, 3), (1025, 40), (2600, 1100)])
def test_long_rows_are_drawn_the_same(request, backend, items, k):
    device = device_of(backend)
    require_backend(request, "weighted_sample", backend, device)
    if is_emulated(backend) and k > 100 and backend == "triton":
        pytest.skip("the interpreter would take minutes; the shorter ones show the same loops")
    weights = weights_of_all_sizes(1, items, torch.float32, "contiguous")
    expected = weighted_sample(weights, k, seed=1, backend="reference")
    assert torch.equal(weighted_sample(weights.to(device), k, seed=1, backend=backend).cpu(), expected)


def test_batches_may_be_split_permuted_and_padded(draw):
    weights, ids = weights_of_all_sizes(6, 9, torch.float32, "contiguous"), torch.tensor([3, 9, -4, 2**50, 0, 7])
    whole = draw(weights, 4, num_samples=3, seed=8, row_id=ids)
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    assert torch.equal(draw(weights[order], 4, num_samples=3, seed=8, row_id=ids[order]), whole[order])
    halves = [draw(weights[half], 4, num_samples=3, seed=8, row_id=ids[half]) for half in (slice(2), slice(2, 6))]
    assert torch.equal(torch.cat(halves), whole)
    padded = torch.cat([weights, torch.full((2, 9), torch.nan)])
    assert torch.equal(draw(padded, 4, num_samples=3, seed=8, row_id=torch.cat([ids, ids[:2]]))[:6], whole)
    # More samples of a row, or items of no weight at its end, leave the first draws as they were.
    assert torch.equal(draw(weights, 4, num_samples=5, seed=8, row_id=ids)[:, :3], whole)
    positive = weights.nan_to_num(0).clamp(min=0) + 0.01
    assert torch.equal(
        draw(torch.cat([positive, torch.zeros(6, 30)], 1), 4, seed=8, row_id=ids), draw(positive, 4, seed=8, row_id=ids)
    )


def test_scaling_all_weights_of_a_row_changes_nothing(draw):
    weights = weights_of_all_sizes(4, 6, torch.float32, "contiguous").clamp(max=1e3)
    expected = draw(weights, 6, seed=1)
    for exponent in (-100, -60, 60, 110):
        assert torch.equal(draw(weights * 2.0**exponent, 6, seed=1), expected)
    for exponent in (-900, 900):
        assert torch.equal(draw(weights.double() * 2.0**exponent, 6, seed=1), expected)


def test_a_mapped_call_is_a_loop(draw, backend):
    weights = weights_of_all_sizes(6, 7, torch.float32, "contiguous").view(3, 2, 7)
    mapped = torch.vmap(lambda w: weighted_sample(w, 3, seed=5, backend=backend))(weights.to(device_of(backend)))
    assert torch.equal(mapped.cpu(), torch.stack([draw(w, 3, seed=5) for w in weights]))


# ----------------------------------------------------------------------------------------------------
# Weights of all kinds


def test_weights_without_a_proper_value_are_defined(draw):
    nan, inf = float("nan"), float("inf")
    rows = [[0, 0, 0, 0], [nan] * 4, [-1, -2, -3, -inf], [0, 1, 0, nan], [inf, 1, inf, 1e-38], [1e-45, 0, 0, 1e-45]]
    drawn = draw(torch.tensor(rows), 4, num_samples=20, seed=0)
    in_order = torch.arange(4).expand(20, 4)
    for row in (0, 1, 2):
        assert torch.equal(drawn[row], in_order)
    assert torch.equal(drawn[3], torch.tensor([1, 0, 2, 3]).expand(20, 4))
    assert torch.equal(drawn[4][:, :2].sort(1).values, torch.tensor([0, 2]).expand(20, 2))
    assert torch.equal(drawn[5][:, :2].sort(1).values, torch.tensor([0, 3]).expand(20, 2))
    assert torch.equal(drawn[5][:, 2:], torch.tensor([1, 2]).expand(20, 2))
    assert len(drawn[5][:, 0].unique()) == 2  # equally likely, however small


def test_weights_of_very_different_sizes_stay_distinct(draw):
    weights = torch.tensor([0.6, 0.3, 1e-3, 1e-9, 1e-17, 0.1, 1e-12, 0.05])
    drawn = draw(weights, 8, num_samples=50, seed=3)
    assert torch.equal(drawn.sort(1).values, torch.arange(8).expand(50, 8))


def test_many_long_rows_have_no_duplicates():
    drawn = draws_of(torch.ones(200, 30_000), 40, seed=0)
    assert (drawn.sort(1).values.diff(dim=1) > 0).all()


def test_a_row_of_100_000_can_be_drawn_whole():
    weights = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    drawn = draws_of(weights, 100_000, seed=0)
    assert torch.equal(drawn.sort().values, torch.arange(100_000))
    assert torch.equal(draws_of(weights, 100, seed=0), drawn[:100])


def test_shapes_with_and_without_samples():
    weights = torch.rand(2, 3, 5)
    assert weighted_sample(weights, 2).shape == (2, 3, 2)
    assert weighted_sample(weights, 2, num_samples=1).shape == (2, 3, 1, 2)
    assert weighted_sample(weights[0, 0], 5, num_samples=4).shape == (4, 5)
    assert weighted_sample(weights[:0], 2).shape == (0, 3, 2)
    assert weighted_sample(weights.movedim(-1, 0).movedim(0, -1), 2, seed=1, row_id=torch.zeros(2, 3).long()).ndim == 3


@pytest.mark.parametrize("num_samples", [None, 3])
def test_samples_in_order_of_index(draw, num_samples):
    weights = torch.rand(4, 2, 9)
    drawn = weighted_sample(weights, 5, num_samples=num_samples, seed=2, backend="reference")
    in_order = draw(weights, 5, num_samples=num_samples, seed=torch.tensor(2), sorted=True)
    assert torch.equal(in_order, drawn.sort(-1).values)
    assert (in_order.diff() > 0).all()
    assert torch.equal(draw(weights, 5, num_samples=num_samples, seed=2, sorted=False), drawn)


# ----------------------------------------------------------------------------------------------------
# Where the seed comes from


def test_seeds_and_generators():
    weights = torch.rand(20, 30)
    same = weighted_sample(weights, 5, seed=7)
    assert torch.equal(weighted_sample(weights, 5, seed=torch.tensor(7)), same)
    assert torch.equal(weighted_sample(weights, 5, seed=2**64 - 1), weighted_sample(weights, 5, seed=-1))
    assert not torch.equal(weighted_sample(weights, 5, seed=7 + 2**32), same)
    generator = torch.Generator().manual_seed(1)
    first, second = (weighted_sample(weights, 5, generator=generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(weighted_sample(weights, 5, generator=generator.manual_seed(1)), first)
    torch.manual_seed(3)
    first = weighted_sample(weights, 5)
    torch.manual_seed(3)
    assert torch.equal(weighted_sample(weights, 5), first)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((torch.ones(4), 5), {}, ValueError, r"k must be at most T=4 \(weights\), got 5"),
        ((torch.ones(4), 0), {}, ValueError, "k must be at least 1, got 0"),
        ((torch.ones(3, 0), 1), {}, ValueError, "k must be at most T=0"),
        ((torch.ones(4).int(), 1), {}, TypeError, "weights must have dtype float16, .*, got int32"),
        ((torch.tensor(1.0), 1), {}, ValueError, r"weights must be \[..., T\], got \(\) float32"),
        ((torch.ones(4), 2), {"num_samples": 0}, ValueError, "num_samples must be at least 1, got 0"),
        ((torch.ones(4), 2), {"sorted": 1}, TypeError, "sorted must be a bool, got int"),
        ((torch.ones(4), 2), {"seed": 1, "generator": torch.Generator()}, ValueError, "must not both be given"),
        ((torch.ones(4), 2), {"seed": 2**64}, ValueError, "seed must fit 64 bits"),
        ((torch.ones(4), 2), {"seed": 1.5}, TypeError, "seed must be an int or a tensor of one element, got float"),
        ((torch.ones(4), 2), {"seed": torch.tensor(1.0)}, TypeError, "seed must have dtype int64"),
        ((torch.ones(3, 4), 2), {"row_id": torch.arange(4)}, ValueError, r"row_id must have one element for each row"),
    ],
)
def test_bad_arguments(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        weighted_sample(*args, **kwargs)


def test_debug_mode_rejects_weights_that_are_none():
    set_debug(True)
    try:
        with pytest.raises(ValueError, match="weights must be neither negative nor NaN"):
            weighted_sample(torch.tensor([1.0, -1.0]), 1)
    finally:
        set_debug(False)

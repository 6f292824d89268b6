"""Forms are checked on poisoned memory, timed, and the fastest right one kept."""

import pytest
import torch
from torch import nn

from adafocus_models.engine import candidates, measuring
from adafocus_models.engine.choices import PLAIN


class Plain(nn.Module):
    def forward(self, x, other=None):
        return x * 2 if other is None else x * 2 + other


class Wrong(nn.Module):
    def forward(self, x):
        return x * 2.001


class Unwritten(nn.Module):
    """Leaves a part of its result as it found it."""

    def forward(self, x):
        out = torch.empty_like(x)
        out[:-1] = x[:-1] * 2
        return out


class Raises(nn.Module):
    def forward(self, x):
        raise RuntimeError("no such convolution\nand more")


class Overwrites(nn.Module):
    def forward(self, x, other):
        return other.add_(x, alpha=2)


class Slow(Plain):
    def forward(self, x, other=None):
        for _ in range(300):
            x = x * 1.0
        return super().forward(x, other)


X = torch.linspace(-1, 1, 3 * 4 * 64 * 64).view(3, 4, 64, 64)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (Wrong(), "differs from the plain form by 0.0005 of its size, allowed 0.0001"),
        (Unwritten(), "differs from the plain form by inf"),
        (Raises(), "RuntimeError: no such convolution"),
        (nn.Flatten(), "differs from the plain form by inf"),
    ],
)
def test_wrong_forms_are_found(form, reason):
    wrong = candidates.wrong_forms(Plain(), {"right": Plain(), "form": form}, (X,))
    assert list(wrong) == ["form"]
    assert wrong["form"].startswith(reason)


class OneWrong(nn.Module):
    """A single number of 49 152 is wrong, by a hundredth of the largest."""

    def forward(self, x):
        out = x * 2
        out[0, 0, 5, 7] += 0.02
        return out


class Noisy(nn.Module):
    """Each number is wrong by some 1e-5 of the largest, as after many layers, and a few by several times that."""

    def forward(self, x):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        return x * 2 + 6e-5 * noise


def test_a_single_wrong_number_is_seen_and_the_largest_of_many_roundings_is_no_fault():
    forms = {"one": OneWrong(), "noisy": Noisy()}
    assert measuring.relative_error(Noisy()(X), Plain()(X)) > measuring.TOLERANCE[torch.float32]
    assert list(candidates.wrong_forms(Plain(), forms, (X,))) == ["one"]


class Rounds(nn.Module):
    """x, rounded to multiples of 2^-23 of the offset."""

    def __init__(self, offset):
        super().__init__()
        self.offset = offset

    def forward(self, x):
        return (x + self.offset) - self.offset


def test_forms_are_not_blamed_for_the_rounding_of_the_plain_one():
    """Each is as far from the exact result, and farther from the other."""
    forms = {"other": Rounds(-5000.0), "worse": Rounds(2.0**16)}
    assert measuring.relative_error(forms["other"](X), Rounds(4096.0)(X)) > measuring.TOLERANCE[torch.float32]
    wrong = candidates.wrong_forms(Rounds(4096.0), forms, (X,))
    assert list(wrong) == ["worse"]


def test_a_form_may_overwrite_the_other_term():
    other = torch.ones_like(X)
    assert candidates.wrong_forms(Plain(), {"form": Overwrites()}, (X, other)) == {}
    assert torch.equal(other, torch.ones_like(X))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_tolerance_is_of_the_dtype(dtype):
    x = X.to(dtype)
    wrong = candidates.wrong_forms(Plain(), {"right": Plain(), "form": Wrong()}, (x,))
    assert list(wrong) == (["form"] if dtype == torch.float64 else [])


def test_the_fastest_right_form_wins():
    found = candidates.contest(
        Slow(), {PLAIN: Slow(), "fast": Plain(), "wrong": Wrong()}, (X,), seconds=0.01, check=True
    )
    assert found.form == "fast"
    assert set(found.ms) == {PLAIN, "fast"}
    assert "wrong" in found.left_out
    assert torch.equal(found.result, X * 2)


def test_without_a_check_a_wrong_form_can_win():
    found = candidates.contest(Slow(), {PLAIN: Slow(), "wrong": Wrong()}, (X,), seconds=0.01, check=False)
    assert found.form == "wrong"
    assert found.left_out == {}


def test_what_is_hardly_faster_does_not_replace_the_plain_form():
    assert candidates.fastest({PLAIN: 1.0, "form": 0.98}) == PLAIN
    assert candidates.fastest({PLAIN: 1.0, "form": 0.96}) == "form"
    assert candidates.fastest({"a": 1.0, "b": 0.99}) == "b"


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([1.0, float("nan")], [1.0, 2.0], float("inf")),
        ([1.0], [1.0, 2.0], float("inf")),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([], [], 0.0),
    ],
)
def test_relative_error(found, expected, error):
    assert measuring.relative_error(torch.tensor(found), torch.tensor(expected)) == error


def test_calls_take_turns():
    turns = []
    calls = {name: lambda name=name: turns.append(name) for name in "ab"}
    ms = measuring.median_ms(calls, torch.device("cpu"), seconds=0)
    assert set(ms) == {"a", "b"}
    assert turns == ["a", "b"] * 4  # the first does not count

"""expected_value by example."""

from collections.abc import Iterator

import torch

import adafocus_ops

from .record import Example, OpExamples
from .tensors import ROW_LAYOUTS, distributions, empty, random_rows


def small(dtype: torch.dtype, layout: str) -> Iterator[Example]:
    def example(name, rows, items, depth, k, **kwargs):
        depths = () if depth is None else (depth,)
        args = (random_rows((rows, items, *depths), dtype, layout), distributions(rows, items, dtype, layout), k)
        draws = {} if "mode" in kwargs else {"seed": torch.tensor(3)}
        # An expectation changes with the probabilities of the prefixes too, which the gradient leaves out.
        gradcheck = "mode" not in kwargs or k == 1
        return Example(name, args, {**draws, **kwargs}, conditioning=4, gradcheck=gradcheck)

    yield example("logits", 3, 5, 3, 2, num_samples=5)
    yield example("losses", 2, 7, None, 3, num_samples=4)
    yield example("one step", 2, 4, 2, 1, num_samples=3)
    yield example("all steps but one", 2, 6, 2, 5, num_samples=4, row_id=torch.tensor([5, 1]))
    yield example("normaliser", 2, 6, 3, 4, num_samples=4, normaliser_grad=True)
    yield example("exact, one step", 2, 5, 3, 1, mode="exact")
    yield example("exact, two steps", 2, 5, 3, 2, mode="exact", normaliser_grad=True)
    yield example("more items than lanes", 1, 70, 2, 4, num_samples=3)
    yield example("no rows", 0, 4, 2, 2, num_samples=3)
    values, weights = random_rows((2, 5, 3), dtype, layout), distributions(2, 5, torch.float32, layout)
    draws = {"num_samples": 4, "seed": torch.tensor(3)}
    yield Example("weights of single precision", (values, weights, 3), draws, conditioning=4, gradcheck=False)


def any_size(count: int) -> Example:
    """Distributions over so many items, with values."""
    values = random_rows((3, count, 40), torch.float32, "contiguous")
    weights = distributions(3, count, torch.float32, "contiguous")
    draws = {"num_samples": 33, "seed": torch.tensor(7), "normaliser_grad": True}
    return Example(f"{count} items", (values, weights, 5), draws)


def real_size() -> Iterator[Example]:
    draws = {"num_samples": 128, "seed": empty(1, dtype=torch.int64), "row_id": empty(128, dtype=torch.int64)}
    for name, dtype, items, depth, k, how in (
        ("logits", torch.float16, 16, 200, 5, draws),
        ("losses in double precision", torch.float64, 1024, 1, 340, draws),
        ("exact", torch.float32, 128, 200, 2, {"mode": "exact"}),
    ):
        for normaliser_grad in (False, True):
            args = (empty(128, items, depth, dtype=dtype), empty(128, items), k)
            yield Example(name, args, {"normaliser_grad": normaliser_grad, **how})


EXAMPLES = OpExamples(
    call=adafocus_ops.expected_value,
    small=small,
    any_size=any_size,
    real_size=real_size,
    traced=("all steps but one", "exact, two steps", "normaliser", "weights of single precision"),
    layouts=ROW_LAYOUTS,
    differentiable=(0, 1),
)

"""Random words, and weighted sampling without replacement as a race, in plain PyTorch.

The arithmetic is that of csrc/include/adafocus/{philox,race}.h, so that every backend draws the same: 32-bit
integers are held in int64, float32 operations round as they do there.
"""

import torch
from torch import Tensor

from .arithmetic import fused_multiply_add

_LOW = 0xFFFFFFFF

# The uses of a row's draws: different uses of one seed see independent streams.
RACE, JITTER = 0, 0x80000000


def philox4x32_10(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four random words for four words of counter and two of key, all int64 tensors that broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # modulo 2^64: all bits are right
        high0, high1 = (product0 >> 32) & _LOW, (product1 >> 32) & _LOW
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, product1 & _LOW, high0 ^ c3 ^ k1, product0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3


def random_words(seed: Tensor, rows: Tensor, stream: int, draws: int, count: int) -> Tensor:
    """Words 0..count-1 of each draw of each row, [rows, draws, count] int64 in [0, 2^32)."""
    device = rows.device
    group = torch.arange((count + 3) // 4, device=device)
    draw = torch.arange(draws, device=device)[:, None] | stream
    row = rows[:, None, None]
    seed = seed.reshape(())
    words = philox4x32_10((group, draw, row & _LOW, row >> 32 & _LOW), (seed & _LOW, seed >> 32 & _LOW))
    return torch.stack(torch.broadcast_tensors(*words), -1).flatten(2)[..., :count]


def uniform(words: Tensor) -> Tensor:
    """Random words as float32 in (0, 1]."""
    return (0x100000000 - words).float() * 2.0**-32


# log(1 + x) / x for x in [-1/4, 1/2), to 1e-7: a Chebyshev fit.
_LOG1P_OVER_X = [
    float.fromhex(value)
    for value in (
        "0x1.p+0",
        "-0x1.000018p-1",
        "0x1.5555c8p-2",
        "-0x1.ffdadcp-3",
        "0x1.992bacp-3",
        "-0x1.58cb88p-3",
        "0x1.32a51ap-3",
        "-0x1.e9c066p-4",
        "0x1.b1c66ep-5",
    )
]


def exponential(words: Tensor) -> Tensor:
    """-log(u) for u = 1 - word / 2^32, float32, exact to 3e-7 of itself at both ends."""
    near_one = words < 0x40000000
    mantissa, exponent = torch.frexp((0x100000000 - words).float())  # in [1/2, 1): half of [1, 2)
    above = mantissa >= 0.75
    one_plus_x, exponent = torch.where(above, mantissa, 2 * mantissa), exponent - (~above).int()
    x = torch.where(near_one, -(words.float() * 2.0**-32), one_plus_x - 1)
    halvings = torch.where(near_one, 0, 32 - exponent).float()
    series = torch.full_like(x, _LOG1P_OVER_X[-1])
    for coefficient in _LOG1P_OVER_X[-2::-1]:
        series = fused_multiply_add(series, x, coefficient)
    return fused_multiply_add(-x, series, halvings * float.fromhex("0x1.62e43p-1"))


def clean_weights(weights: Tensor) -> Tensor:
    """Weights that count, float32 or float64: negative ones and NaN are zero, infinity is the largest number."""
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    return torch.where(weights > 0, weights.clamp(max=torch.finfo(weights.dtype).max), 0)


def race_weights(weights: Tensor) -> Tensor:
    """Rows of clean weights, scaled by a power of two to about 1, float32: 0, or at least 2^-120."""
    _, exponent = torch.frexp(weights.amax(-1, keepdim=True))  # the largest is a number in [1/2, 1) times 2^exponent
    least = -1022 if weights.dtype == torch.float64 else -126  # 2^least is the least normal number
    scaled = torch.ldexp(weights.double(), (1 - exponent).clamp(least, 1 - least)).float()
    return torch.where(weights > 0, scaled.clamp(min=2.0**-120), 0)


def draw(weights: Tensor, k: int, num_samples: int, seed: Tensor, row_id: Tensor | None) -> Tensor:
    """The first k to arrive, in their order, [rows, num_samples, k] int64, of weights [rows, T].

    Item t of weight w_t arrives at time E_t / w_t, E_t exponential; those of weight zero arrive last, at infinity,
    and ties go to the lower index.
    """
    rows, items = weights.shape
    row_id = torch.arange(rows, device=weights.device) if row_id is None else row_id
    race = race_weights(clean_weights(weights))[:, None]
    times = exponential(random_words(seed, row_id, RACE, num_samples, items)) / race
    times = torch.where(race > 0, times, torch.inf)
    return times.sort(dim=-1, stable=True).indices[..., :k].contiguous()

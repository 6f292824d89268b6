"""Philox4x32-10 in Triton: philox.h."""

import triton
import triton.language as tl

# The uses of a row's draws: different uses of one seed see independent streams.
RACE = tl.constexpr(0)
JITTER = tl.constexpr(0x80000000)


@triton.jit
def row_number(row_id, b):
    """The key of the random stream of row b (a block or a number, int64)."""
    if row_id is None:
        return b
    else:
        return tl.load(row_id + b)


@triton.jit
def random_words(seed, row, stream: tl.constexpr, draw, first, COUNT: tl.constexpr):
    """Words first .. first + COUNT - 1 of draws of rows: uint32 [draws, COUNT].

    Args:
        seed: where it is.
        row: a number, or [draws, 1].
        draw: [draws, 1] int32.
        first: a multiple of 4, as COUNT is.
    """
    key = tl.load(seed)
    group = (first // 4 + tl.arange(0, COUNT // 4)[None, :]).to(tl.uint32)
    words = tl.philox_impl(
        group,
        draw.to(tl.uint32) | stream,
        row.to(tl.uint32),
        (row >> 32).to(tl.uint32),
        key.to(tl.uint32),
        (key >> 32).to(tl.uint32),
    )
    # [draws, groups, 2, 2], the four words of a group in their order
    words = tl.join(tl.join(words[0], words[2]), tl.join(words[1], words[3]))
    return tl.reshape(words, [draw.shape[0], COUNT])


@triton.jit
def uniform(word):
    """A random word as a number in (0, 1]."""
    return (0x100000000 - word.to(tl.int64)).to(tl.float32) * 2.0**-32

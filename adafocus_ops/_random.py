"""Where the randomness of an op comes from: a seed on the device, and the key of each row."""

import torch
from torch import Tensor

from .checks import check_same_device, check_tensor, describe, plain_int, require


def seed_tensor(seed: int | Tensor | None, generator: torch.Generator | None, name: str, tensor: Tensor) -> Tensor:
    """A seed as an int64 tensor of one element on the device of `tensor` (the argument `name`).

    Args:
        seed: any 64-bit integer, or a tensor, which a captured graph reads anew at every replay.
        generator: what a seed is drawn from if none is given; None for the default generator of the device. One of
            another device is waited for.
    """
    require(seed is None or generator is None, lambda: "seed and generator must not both be given")
    require(
        generator is None or isinstance(generator, torch.Generator),
        lambda: f"generator must be a torch.Generator, got {describe(generator)}",
        TypeError,
    )
    if isinstance(seed, Tensor):
        check_tensor("seed", seed, (torch.int64,))
        require(seed.numel() == 1, lambda: f"seed must be an int or a tensor of one element, got {describe(seed)}")
        check_same_device("seed", seed, name, tensor)
        return seed
    if seed is not None:
        seed = plain_int("seed", seed, "an int or a tensor of one element")
        require(-(2**63) <= seed < 2**64, lambda: f"seed must fit 64 bits, got {seed}")
        return _on_device(seed - 2**64 if seed >= 2**63 else seed, tensor)
    if generator is not None and not _is_of(generator, tensor.device):
        return _on_device(int(_draw(generator, generator.device)), tensor)
    return _draw(generator, tensor.device)


def _is_of(generator: torch.Generator, device: torch.device) -> bool:
    return generator.device.type == device.type and generator.device.index in (None, device.index)


def _draw(generator: torch.Generator | None, device: torch.device) -> Tensor:
    return torch.randint(2**63 - 1, (), generator=generator, dtype=torch.int64, device=device)


def _on_device(seed: int, tensor: Tensor) -> Tensor:
    return torch.full((), seed, dtype=torch.int64, device=tensor.device)


def check_row_id(row_id: Tensor | None, rows: tuple[int, ...], name: str, tensor: Tensor) -> Tensor | None:
    """The key of each row's random stream, [B] int64 and contiguous; None for the row's number."""
    if row_id is None:
        return None
    check_tensor("row_id", row_id, (torch.int64,))
    require(
        tuple(row_id.shape) == tuple(rows),
        lambda: f"row_id must have one element for each row of {name}, {tuple(rows)}, got {describe(row_id)}",
    )
    check_same_device("row_id", row_id, name, tensor)
    return row_id.reshape(-1).contiguous()

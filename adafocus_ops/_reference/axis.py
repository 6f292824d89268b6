"""What the outputs of all boxes read along one axis of the frames, as plain matrices: the formulas of every crop.

With pixel r of a frame centred at coordinate r, output i of P samples a box (centre, extent) at

    y_i = centre + ((i + 1/2) / P - 1/2) extent - 1/2

and reads pixel r with a weight: that of bilinear interpolation, or of a triangle filter that is as wide as the
downscaling. Pixels outside the frame hold zero (padding "zeros") or the nearest edge pixel (padding "border").
All arithmetic is in the dtype of the boxes.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Taps(NamedTuple):
    """The two neighbours that bilinear interpolation reads; P outputs on an axis of `size` pixels."""

    index: Tensor  # [2, K, P] int64, clamped into the axis
    inside: Tensor  # [2, K, P] bool, whether the neighbour holds a pixel (always, for padding "border")
    weight: Tensor  # [2, K, P] 1 - u and u, with u the position's fraction
    offset: Tensor  # [P] (i + 1/2) / P - 1/2, the derivative of the position by the extent


class Weights(NamedTuple):
    """How much of each pixel of the frame each output reads, [K, P, size], and the derivatives by the box."""

    value: Tensor
    by_centre: Tensor
    by_extent: Tensor

    def __add__(self, other: "Weights") -> "Weights":
        return Weights(*(a + b for a, b in zip(self, other, strict=True)))

    def where(self, condition: Tensor) -> "Weights":
        return Weights(*(torch.where(condition, a, 0) for a in self))


def _outputs(centre: Tensor, positions: int) -> tuple[Tensor, Tensor]:
    """[P] i + 1/2 and (i + 1/2) / P - 1/2 of every output."""
    steps = torch.arange(positions, device=centre.device, dtype=centre.dtype) + 0.5
    return steps, steps / positions - 0.5


def taps(centre: Tensor, extent: Tensor, positions: int, size: int, padding: str) -> Taps:
    """Neighbours and weights of `positions` bilinear samples along an axis; centre and extent are [K]."""
    steps, offset = _outputs(centre, positions)
    # Written so that a box of whole pixels and of the output's size has whole positions, without rounding.
    position = (centre - extent / 2)[:, None] + (extent / positions)[:, None] * steps - 0.5
    # A position two pixels outside reads padding only, so clamping there changes nothing but
    # keeps the conversion to an index defined for any finite box.
    position = position.clamp(-2.0, float(size)).nan_to_num(-2.0)
    first = position.floor()
    index = torch.stack([first, first + 1]).long()
    inside = (index >= 0) & (index < size)
    if padding == "border":
        inside = torch.ones_like(inside)
    upper = position - first
    return Taps(index.clamp(0, size - 1), inside, torch.stack([1 - upper, upper]), offset)


def bilinear(centre: Tensor, extent: Tensor, positions: int, size: int, padding: str) -> Weights:
    """The taps as dense weights."""
    tap = taps(centre, extent, positions, size, padding)
    pixel = torch.arange(size, device=centre.device)
    at = [((tap.index[a][..., None] == pixel) & tap.inside[a][..., None]).to(centre.dtype) for a in (0, 1)]
    by_position = at[1] - at[0]
    value = tap.weight[0][..., None] * at[0] + tap.weight[1][..., None] * at[1]
    return Weights(value, by_position, by_position * tap.offset[:, None])


def antialiased(centre: Tensor, extent: Tensor, positions: int, size: int, padding: str) -> Weights:
    """The box's part of the axis cut out and resized by a triangle filter as wide as the downscaling.

    Pixel r, which covers [r, r + 1), weighs

        raw(r) = max(0, 1 - |r + 1/2 - q| / s) * |[r, r + 1) and [low, high)|,    weight(r) = raw(r) / sum of raw

    at position q = y_i + 1/2, with reach s = max(|extent| / P, 1), and the ends of the box, low and high =
    centre -+ max(|extent|, 1) / 2: a box thinner than a pixel is taken as one pixel. The sum runs over all pixels,
    those outside the frame too. An end of the box on a pixel's edge takes its derivative on the inner side.
    """
    huge = float(2**60)  # larger boxes are all alike; the products below must not overflow
    centre, extent = (value.clamp(-huge, huge).nan_to_num(0)[:, None, None] for value in (centre, extent))
    steps, offset = (value[:, None] for value in _outputs(centre, positions))
    position = centre - extent / 2 + extent / positions * steps  # q, [K, P, 1] as all below
    sign = torch.where(extent < 0, -1.0, 1.0).to(centre)
    scale, length = extent.abs() / positions, extent.abs().clamp(min=1)
    reach = scale.clamp(min=1)
    reach_by_extent = torch.where(scale > 1, sign / positions, 0)
    low, high = centre - length / 2, centre + length / 2
    high_by_extent = torch.where(extent.abs() > 1, sign / 2, 0)
    first = torch.maximum((position - reach - 0.5).floor() + 1, low.floor())
    last = torch.minimum((position + reach - 0.5).ceil(), high.ceil()) - 1

    def triangle(pixel: Tensor) -> Weights:
        """1 - |r + 1/2 - q| / s and its derivatives by q and s."""
        distance = pixel + 0.5 - position
        return Weights(
            1 - distance.abs() / reach,
            torch.where(distance < 0, -1.0, 1.0).to(reach) / reach,
            distance.abs() / reach**2,
        )

    def by_box(value: Tensor, by_position: Tensor, by_reach: Tensor) -> Weights:
        return Weights(value, by_position, by_position * offset + by_reach * reach_by_extent)

    def raw(pixel: Tensor) -> Weights:
        height, by_position, by_reach = triangle(pixel)
        cover = (torch.minimum(pixel + 1, high) - torch.maximum(pixel, low)).clamp(0, 1)
        cut_low = ((low >= pixel) & (low < pixel + 1)).to(cover)
        cut_high = ((high > pixel) & (high <= pixel + 1)).to(cover)
        part = by_box(height * cover, by_position * cover, by_reach * cover)
        ends = Weights(
            torch.zeros_like(part.value), height * (cut_high - cut_low), height * (cut_high + cut_low) * high_by_extent
        )
        return (part + ends).where(height > 0)

    def total(start: Tensor, stop: Tensor) -> Weights:
        """The sum of raw over the pixels from start to stop in closed form, since they may be any number: two
        arithmetic series for the triangle's sides, less what the ends of the box cut off their two pixels."""
        start, stop = torch.maximum(start, first), torch.minimum(stop, last)
        peak = torch.maximum(torch.minimum((position - 0.5).floor(), stop), start - 1)
        rising, falling = peak - start + 1, stop - peak
        away = rising * (position - 0.5 - (start + peak) / 2) + falling * ((peak + 1 + stop) / 2 + 0.5 - position)
        result = by_box(rising + falling - away / reach, (falling - rising) / reach, away / reach**2)
        low_pixel, high_pixel = low.floor(), high.ceil() - 1
        for pixel, apart in ((low_pixel, True), (high_pixel, high_pixel > low_pixel)):
            there = (pixel >= start) & (pixel <= stop) & apart
            less = raw(pixel) + Weights(*(-x for x in by_box(*triangle(pixel))))
            result = result + less.where(there)
        return result.where(start <= stop)

    pixel = torch.arange(size, device=centre.device, dtype=centre.dtype)
    weights = raw(pixel).where((pixel >= first) & (pixel <= last))
    if padding == "border":
        before, after = total(first, torch.full_like(first, -1)), total(torch.full_like(last, size), last)
        weights = weights + before.where(pixel == 0) + after.where(pixel == size - 1)
    norm, norm_by_centre, norm_by_extent = total(first, last)
    scale = torch.where(norm > 0, 1 / norm, 0)
    value = weights.value * scale
    return Weights(
        value,
        (weights.by_centre - value * norm_by_centre) * scale,
        (weights.by_extent - value * norm_by_extent) * scale,
    )

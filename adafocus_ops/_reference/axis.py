"""Footprints: what each output of each box reads along one axis of the frames, as plain matrices, for every crop.

With pixel r of a frame centred at coordinate r, output i of P of a box (centre, extent) is at the position

    y_i = centre + (2 i + 1 - P) / (2 P) extent - 1/2

and reads pixel r with a weight, that of bilinear interpolation or of a triangle filter that is as wide as the
downscaling: together its footprint. Pixels outside the frame hold zero (padding "zeros") or the nearest edge pixel
(padding "border"). All arithmetic is in the dtype of the boxes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .arithmetic import fused_multiply_add


class Weights(NamedTuple):
    """The weight of each pixel in each output, [K, P, size], and its derivatives by the box's centre and extent."""

    value: Tensor
    by_centre: Tensor
    by_extent: Tensor

    def __add__(self, other: "Weights") -> "Weights":
        return Weights(*(a + b for a, b in zip(self, other, strict=True)))

    def __sub__(self, other: "Weights") -> "Weights":
        return Weights(*(a - b for a, b in zip(self, other, strict=True)))

    def where(self, condition: Tensor) -> "Weights":
        return Weights(*(torch.where(condition, a, 0) for a in self))


def _outputs(centre: Tensor, extent: Tensor, positions: int) -> tuple[Tensor, Tensor]:
    """The position of every output, where pixel r covers [r, r + 1), and its derivative by the extent.

    A position is exact in the middle of a box of any size, and for a box of whole pixels and of the output's size.

    Args:
        centre, extent: [..., 1].

    Returns:
        positions [..., P] and offsets [P].
    """
    steps = torch.arange(positions, device=centre.device, dtype=centre.dtype) - (positions - 1) / 2  # from the middle
    return fused_multiply_add(extent / positions, steps, centre), steps / positions


# ----------------------------------------------------------------------------------------------------
# Bilinear


class Taps(NamedTuple):
    """The two neighbours that bilinear interpolation reads; P outputs on an axis of `size` pixels."""

    index: Tensor  # [2, K, P] int64, clamped into the axis
    inside: Tensor  # [2, K, P] bool, whether the neighbour holds a pixel (always, for padding "border")
    weight: Tensor  # [2, K, P] 1 - u and u, with u the position's fraction
    offset: Tensor  # [P] (2 i + 1 - P) / (2 P), the derivative of the position by the extent


def taps(centre: Tensor, extent: Tensor, positions: int, size: int, padding: str) -> Taps:
    """Neighbours and weights of `positions` bilinear footprints along an axis; centre and extent are [K]."""
    position, offset = _outputs(centre[:, None], extent[:, None], positions)
    position = position - 0.5  # as a pixel index
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


# ----------------------------------------------------------------------------------------------------
# Antialiased: docs/method/antialias.md derives the formulas; (A1) to (A14) are its equations


def antialiased(centre: Tensor, extent: Tensor, positions: int, size: int, padding: str) -> Weights:
    """The box's part of the axis cut out and resized by a triangle filter as wide as the downscaling.

    Pixel r, which covers [r, r + 1), weighs

        raw(r) = max(0, 1 - |r + 1/2 - q| / s) * |[r, r + 1) and [low, high)|,    weight(r) = raw(r) / sum of raw

    at position q = y_i + 1/2, with reach s = max(|extent| / P, 1), and the ends of the box, low and high =
    centre -+ max(|extent|, 1) / 2: a box thinner than a pixel is taken as one pixel. The sum runs over all pixels,
    those outside the frame too. An end of the box on a pixel's edge takes its derivative on the inner side.
    """
    footprints = _AntialiasedFootprints.of(centre, extent, positions)
    first, last = footprints.first, footprints.last
    pixel = torch.arange(size, device=centre.device, dtype=centre.dtype)
    weights = footprints.raw_weight(pixel).where((pixel >= first) & (pixel <= last))
    if padding == "border":  # (A14)
        before = footprints.sum(first, torch.full_like(first, -1))
        after = footprints.sum(torch.full_like(last, size), last)
        weights = weights + before.where(pixel == 0) + after.where(pixel == size - 1)
    total = footprints.sum(first, last)  # (A9)
    scale = torch.where(total.value > 0, 1 / total.value, 0)
    value = weights.value * scale
    return Weights(  # (A10)
        value,
        (weights.by_centre - value * total.by_centre) * scale,
        (weights.by_extent - value * total.by_extent) * scale,
    )


class _Height(NamedTuple):
    """A triangle's height over the centres of pixels, or a sum of heights, and its derivatives."""

    value: Tensor
    by_position: Tensor
    by_reach: Tensor


class _AntialiasedFootprints(NamedTuple):
    """The triangle of each output and the ends of its box, [K, P, 1] or a shape that broadcasts with it."""

    position: Tensor  # q, the centre of the triangle, where pixel r covers [r, r + 1)
    offset: Tensor  # the derivative of q by the extent
    reach: Tensor  # s, the distance from q at which the triangle ends
    reach_by_extent: Tensor  # the derivative of s by the extent
    low: Tensor  # the lower end of the box
    high: Tensor  # the upper end of the box
    high_by_extent: Tensor  # the derivative of high by the extent; that of low is its opposite
    first: Tensor  # the first pixel with a raw weight, in the frame or not
    last: Tensor  # the last pixel with a raw weight

    @staticmethod
    def of(centre: Tensor, extent: Tensor, positions: int) -> "_AntialiasedFootprints":
        huge = float(2**60)  # larger boxes are all alike; the products below must not overflow
        centre, extent = (value.clamp(-huge, huge).nan_to_num(0)[:, None] for value in (centre, extent))
        position, offset = (value[..., None] for value in _outputs(centre, extent, positions))  # (A1)
        centre, extent = centre[..., None], extent[..., None]
        sign = torch.where(extent < 0, -1.0, 1.0).to(centre)
        downscaling, length = extent.abs() / positions, extent.abs().clamp(min=1)
        reach = downscaling.clamp(min=1)  # (A2)
        reach_by_extent = torch.where(downscaling > 1, sign / positions, 0)
        low, high = centre - length / 2, centre + length / 2  # (A3)
        high_by_extent = torch.where(extent.abs() > 1, sign / 2, 0)
        first = torch.maximum((position - reach - 0.5).floor() + 1, low.floor())  # (A8)
        last = torch.minimum((position + reach - 0.5).ceil(), high.ceil()) - 1
        return _AntialiasedFootprints(position, offset, reach, reach_by_extent, low, high, high_by_extent, first, last)

    def height(self, pixel: Tensor) -> _Height:
        """1 - |r + 1/2 - q| / s (A4)."""
        distance = pixel + 0.5 - self.position
        side = torch.where(distance < 0, -1.0, 1.0).to(self.reach)
        return _Height(1 - distance.abs() / self.reach, side / self.reach, distance.abs() / self.reach**2)

    def by_box(self, height: _Height) -> Weights:
        """Derivatives by the position and the reach turned into those by the box."""
        by_extent = height.by_position * self.offset + height.by_reach * self.reach_by_extent
        return Weights(height.value, height.by_position, by_extent)

    def raw_weight(self, pixel: Tensor) -> Weights:
        """The height times the cover, the part of the pixel that the box covers (A6), (A7)."""
        height, by_position, by_reach = self.height(pixel)
        low, high = self.low, self.high
        cover = (torch.minimum(pixel + 1, high) - torch.maximum(pixel, low)).clamp(0, 1)  # (A5)
        cut_by_low = ((low >= pixel) & (low < pixel + 1)).to(cover)
        cut_by_high = ((high > pixel) & (high <= pixel + 1)).to(cover)
        part = self.by_box(_Height(height * cover, by_position * cover, by_reach * cover))
        ends_by_centre = height * (cut_by_high - cut_by_low)
        ends_by_extent = height * (cut_by_high + cut_by_low) * self.high_by_extent
        raw = Weights(part.value, part.by_centre + ends_by_centre, part.by_extent + ends_by_extent)
        return raw.where(height > 0)

    def cut_correction(self, pixel: Tensor) -> Weights:
        """The raw weight less the whole height, of a pixel that an end of the box cuts (A11)."""
        return self.raw_weight(pixel) - self.by_box(self.height(pixel))

    def sum(self, start: Tensor, stop: Tensor) -> Weights:
        """The sum of the raw weights of pixels start..stop in closed form, since they may be any number (A11)."""
        start, stop = torch.maximum(start, self.first), torch.minimum(stop, self.last)
        total = self.by_box(self.sum_of_heights(start, stop))
        low_pixel, high_pixel = self.low.floor(), self.high.ceil() - 1
        for pixel, apart in ((low_pixel, True), (high_pixel, high_pixel > low_pixel)):
            total = total + self.cut_correction(pixel).where((pixel >= start) & (pixel <= stop) & apart)
        return total.where(start <= stop)

    def sum_of_heights(self, start: Tensor, stop: Tensor) -> _Height:
        """The heights over pixels start..stop, an arithmetic series on each side of the triangle (A12), (A13)."""
        position, reach = self.position, self.reach
        peak = torch.maximum(
            torch.minimum((position - 0.5).ceil() - 1, stop), start - 1
        )  # the rising side's last pixel
        rising, falling = peak - start + 1, stop - peak
        away = rising * (position - 0.5 - (start + peak) / 2) + falling * ((peak + 1 + stop) / 2 + 0.5 - position)
        return _Height(rising + falling - away / reach, (falling - rising) / reach, away / reach**2)

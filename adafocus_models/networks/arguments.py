"""What networks check of their arguments, and what follows from them."""

from torch import nn

from adafocus_ops.checks import require


def check_same_frames(num_focus_frames: int, **counts: int | None) -> None:
    """Raises ValueError unless every other number of frames is None or num_focus_frames, of a network that has one."""
    for name, count in counts.items():
        require(
            count in (None, num_focus_frames),
            lambda name=name, count=count: f"{name} must equal num_focus_frames={num_focus_frames}, got {count}",
        )


def check_encoder(name: str, encoder: object) -> None:
    """Raises TypeError unless it is a module with the attributes that a network asks of an encoder."""
    counts = [getattr(encoder, attribute, None) for attribute in ("out_channels", "reduction")]
    fits = isinstance(encoder, nn.Module) and all(isinstance(count, int) and count >= 1 for count in counts)
    require(
        fits,
        lambda: (
            f"{name} must be a module with positive ints out_channels (of its maps) and reduction (of height and"
            f" width), got {type(encoder).__name__} with out_channels={counts[0]!r} and reduction={counts[1]!r}"
        ),
        TypeError,
    )


def map_side(frame_size: int, encoder: nn.Module) -> int:
    """The side of the maps that an encoder makes of frames of this side."""
    return -(-frame_size // encoder.reduction)


def sides_of_patches(frame_size: int, min_side: float | None, max_side: float | None) -> tuple[float, float]:
    """Smallest and largest side of a deformable patch in pixels of the frame, whatever its size after resizing; None
    for the paper's, 96 and 224 in frames of 224, in proportion."""
    smallest = frame_size * 96 / 224 if min_side is None else min_side
    largest = frame_size if max_side is None else max_side
    require(
        0 < smallest < largest <= frame_size,
        lambda: (
            f"min_side and max_side must be 0 < min_side < max_side <= frame_size={frame_size},"
            f" got {smallest:g} and {largest:g}"
        ),
    )
    return smallest, largest

"""Times the ops of adafocus_ops against what they replace: python bench/ops.py

Each case is checked first: an op whose result differs from its baseline's is not timed, and the run fails.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from _console import print_table, progress
from _environment import DEFAULT_DEVICE, ROOT, device_name, environment, header, parse_device
from _rows import Row, default_path, write
from _tables import group_rows, ops_table
from _timing import interleave, stats
from adafocus_ops import backends, crop_resize, use_backend

sys.path.append(str(ROOT / "third_party"))  # adapters of the peers

import kornia_adapter
import torchvision_adapter

OURS = "adafocus_ops"
PEERS = {"torchvision": torchvision_adapter.crop_resize, "kornia": kornia_adapter.crop_resize}

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
NUM_BOXES = {"cpu": 48, "cuda": 1536}

Crop = Callable[[Tensor, Tensor, int], Tensor]  # frames [K, C, H, W], boxes [K, 4], P -> [K, C, P, P]
Call = Callable[[], tuple[Tensor, ...]]  # the results that are compared


class MismatchError(Exception):
    """A contender does not compute what the baseline computes."""


@dataclass(frozen=True)
class Case:
    """One op on one input, and what to compare it with."""

    op: str
    name: str
    input: str  # what there is of it, to follow a number: "boxes of ..."
    mode: str  # "forward" or "forward+backward"
    dtype: str
    layout: str
    baseline: str  # name of the contender that the op is checked against and must beat
    # Largest difference allowed, as a share of the baseline's largest value.
    tolerance: float
    at_least: Mapping[str, float]  # device type -> times faster than the baseline
    contenders: Callable[[torch.device], dict[str, Call]]  # OURS, the baseline and peers


# --- crop_resize ---------------------------------------------------------------------------------------------------


def crop_case(
    patch: int,
    dtype: torch.dtype,
    layout: str,
    at_least: Mapping[str, float],
    *,
    out_dtype: torch.dtype = torch.float32,
    gradient: str | None = None,
    frame_size: int = 224,
    sides: tuple[float, float] = (96, 224),
    num_boxes: int | None = None,
) -> Case:
    """crop_resize of one box a frame.

    Args:
        patch, frame_size, sides: P, side of the frames, least and largest side of the boxes, in pixels.
        dtype: of the frames; uint8 ones are gathered and normalised, in the op's read or by the chain.
        gradient: "boxes" or "frames": the backward pass to these alone is timed too.
        num_boxes: default NUM_BOXES of the device.
    """
    normalised = dtype == torch.uint8

    def contenders(device: torch.device) -> dict[str, Call]:
        count = num_boxes or NUM_BOXES[device.type]
        generator = torch.Generator().manual_seed(0)
        frames = torch.randint(256, (count, 3, frame_size, frame_size), dtype=torch.uint8, generator=generator)
        frames = frames if normalised else (frames / 255).to(dtype)
        frames = frames.to(device).contiguous(memory_format=LAYOUTS[layout])
        boxes = random_boxes(count, patch, frame_size, sides, generator).to(device)
        grad = torch.randn(count, 3, patch, patch, generator=generator).to(device, out_dtype)
        grad = grad.contiguous(memory_format=LAYOUTS[layout])
        index = torch.arange(count, device=device)
        mean, std = (torch.tensor(value, device=device).view(3, 1, 1) for value in (MEAN, STD))
        wanted = {"boxes": boxes, "frames": frames}.get(gradient)
        if wanted is not None:
            wanted.requires_grad_()

        def ours() -> Tensor:
            if not normalised:
                return crop_resize(frames, boxes, patch, out_dtype=out_dtype)
            return crop_resize(frames, boxes, patch, frame_index=index, mean=MEAN, std=STD, out_dtype=out_dtype)

        def chain(crop: Crop) -> Tensor:
            x = frames
            if normalised:
                x = x.index_select(0, index).float().div(255).sub(mean).div(std)
            return crop(x, boxes, patch).to(out_dtype).contiguous(memory_format=LAYOUTS[layout])

        def results(forward: Callable[[], Tensor]) -> tuple[Tensor, ...]:
            out = forward()
            return (out,) if wanted is None else (out.detach(), *torch.autograd.grad(out, wanted, grad))

        crops = {"grid_sample": grid_sample_crop, **PEERS}
        return {OURS: lambda: results(ours)} | {
            name: lambda crop=crop: results(lambda: chain(crop)) for name, crop in crops.items()
        }

    source = str(dtype).removeprefix("torch.")
    target = str(out_dtype).removeprefix("torch.")
    dtypes = source if source == target else f"{source} to {target}"
    what = f"gradient of {gradient}" if gradient else "forward"
    return Case(
        op="crop_resize",
        name=f"crop_resize {dtypes}, P={patch}, {layout}, {what}",
        input=f"boxes of {sides[0]} to {sides[1]} px, one a frame of {frame_size} px",
        mode="forward+backward" if gradient else "forward",
        dtype=source,
        layout=layout,
        baseline="grid_sample",
        # grid_sample in float32 is up to 4e-5 from itself in float64: positions on 224 pixels round to about 1e-5.
        tolerance=max(2e-4, 2 * torch.finfo(out_dtype).eps),
        at_least=at_least,
        contenders=contenders,
    )


def grid_sample_crop(frames: Tensor, boxes: Tensor, patch: int) -> Tensor:
    """The crop of box k from frame k by affine_grid and grid_sample."""
    grid = F.affine_grid(_theta(boxes, frames.shape[-2:]), [len(boxes), 3, patch, patch], align_corners=False)
    return F.grid_sample(frames, grid.to(frames.dtype), align_corners=False)


def _theta(boxes: Tensor, frame_size: Sequence[int]) -> Tensor:
    """[K, 2, 3]: the boxes as affine_grid takes them, with the frame as [-1, 1] in x and y."""
    (cy, cx, h, w), (height, width) = boxes.unbind(1), frame_size
    zero = torch.zeros_like(cy)
    rows = [w / width, zero, 2 * cx / width - 1, zero, h / height, 2 * cy / height - 1]
    return torch.stack(rows, 1).view(-1, 2, 3)


def random_boxes(
    count: int, patch: int, frame_size: int, sides: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """[count, 4]: boxes anywhere inside the frame, none with a sample within 1e-4 pixels of a pixel's position.

    There the value has a kink in the box, and float32 rounding would decide which side's derivative is taken.
    """
    shape = (4 * count, 4)
    a_y, a_x, a_h, a_w = torch.rand(shape, generator=generator).unbind(1)
    h, w = (sides[0] + a * (sides[1] - sides[0]) for a in (a_h, a_w))
    boxes = torch.stack([a_y * (frame_size - h) + h / 2, a_x * (frame_size - w) + w / 2, h, w], 1)
    theta = _theta(boxes.double(), (frame_size, frame_size))
    grid = F.affine_grid(theta, [len(boxes), 1, patch, patch], align_corners=False)  # [4 count, P, P, (x, y)]
    position = ((grid + 1) * frame_size - 1) / 2
    clear = ((position - position.round()).abs() > 1e-4).flatten(1).all(1)
    return boxes[clear][:count]


def crop_cases(dtype: torch.dtype, at_least: dict[int, Mapping[str, float]], **options: Any) -> list[Case]:
    """The cases of one kind in both layouts; at_least: patch -> device type -> times faster than the baseline."""
    return [crop_case(patch, dtype, layout, at_least[patch], **options) for patch in at_least for layout in LAYOUTS]


CASES = [
    *crop_cases(torch.uint8, {96: {"cpu": 15, "cuda": 5}, 128: {"cpu": 12, "cuda": 5}}),
    *crop_cases(torch.uint8, {96: {"cuda": 5}, 128: {"cuda": 5}}, out_dtype=torch.float16),
    *crop_cases(torch.float32, {96: {"cpu": 2.5}, 128: {"cpu": 2.5}}),
    *crop_cases(torch.float32, {96: {"cpu": 6, "cuda": 5}, 128: {"cpu": 6, "cuda": 5}}, gradient="boxes"),
    *crop_cases(torch.float32, {96: {"cuda": 5}, 128: {"cuda": 5}}, gradient="frames"),
]


# --- measuring -----------------------------------------------------------------------------------------------------


def measure(case: Case, device: torch.device, backend: str, runs: int, env: dict[str, Any]) -> Row:
    """Checks a case, times it, and returns its row; a peer that cannot run it or differs is left out, with the reason.

    Raises:
        MismatchError: our result differs from the baseline's.
    """
    calls = case.contenders(device)
    calls[OURS] = on_backend(backend, calls[OURS])
    expected = calls[case.baseline]()
    max_error = check(case, f"{OURS} ({backend})", calls[OURS](), expected)
    check_layout(case, calls[OURS]()[0])
    absent = {}
    for name in [name for name in calls if name not in (OURS, case.baseline)]:
        try:
            check(case, name, calls[name](), expected)
        except (ImportError, NotImplementedError, MismatchError) as reason:
            absent[name] = str(reason)
            del calls[name]
    # On a CPU each timed run finds its data where a run before it left it; on a GPU the cache is emptied.
    measured = interleave(calls, device, runs=runs, settle=1 if device.type == "cpu" else 0)
    times = {name: stats(values) for name, values in measured.items()}
    ours = times.pop(OURS)
    return {
        "what": "ops",
        "op": case.op,
        "case": case.name,
        "input": f"{len(expected[0])} {case.input}",
        "device": env["device"],
        "device_type": device.type,
        "dtype": case.dtype,
        "layout": case.layout,
        "mode": case.mode,
        "backend": backend,
        "threads": env["threads"],
        "stats": ours,
        "baseline": case.baseline,
        "contenders": times,
        "absent": absent,
        "check": {"passed": True, "max_error": max_error, "tolerance": case.tolerance},
        "ratios": {name: theirs["p50_ms"] / ours["p50_ms"] for name, theirs in times.items()},
        "at_least": case.at_least.get(device.type),
        "env": env,
    }


def on_backend(backend: str, call: Call) -> Call:
    """The call with every op on one backend."""

    def run() -> tuple[Tensor, ...]:
        with use_backend(backend):
            return call()

    return run


def check(case: Case, name: str, results: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """The largest difference of any result, as a share of the expected one's largest value.

    Raises:
        MismatchError: it is larger than the case allows, or a shape differs.
    """
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (results, expected)]
    if shapes[0] != shapes[1]:
        raise MismatchError(f"{case.name}: {name} gives shapes {shapes[0]}, {case.baseline} {shapes[1]}; not timed")
    pairs = [(r.double(), e.double()) for r, e in zip(results, expected, strict=True)]
    error = max(float((r - e).abs().max() / e.abs().max()) for r, e in pairs)
    if not error <= case.tolerance:  # not "larger": NaN must not pass
        raise MismatchError(
            f"{case.name}: {name} differs from {case.baseline} by {error:.1e} of its largest value,"
            f" {case.tolerance:.0e} is allowed; not timed"
        )
    return error


def check_layout(case: Case, out: Tensor) -> None:
    """The result must be stored like the frames."""
    if not out.is_contiguous(memory_format=LAYOUTS[case.layout]):
        raise MismatchError(f"{case.name}: the result must be {case.layout}, its strides are {out.stride()}; not timed")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=parse_device, default=DEFAULT_DEVICE)
    parser.add_argument("--backend", choices=backends.BACKENDS, help="of adafocus_ops (default: the best)")
    parser.add_argument("--cases", metavar="TEXT", default="", help="only the cases whose name contains this")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    parser.add_argument("--runs", type=int, default=30, help="timed rounds, after 3 that warm up (default: 30)")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU (default: 1)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="rows (default: bench/results/ops_DEVICE.jsonl)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    device = args.device
    cases = [case for case in CASES if args.cases in case.name]
    if args.list:
        print("\n".join(case.name for case in cases))
        return 0
    if not cases:
        print(f"no case contains {args.cases!r}; see --list", file=sys.stderr)
        return 2
    try:
        chosen = {case.op: backends.choose(case.op, device.type, args.backend) for case in cases}
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    torch.set_num_threads(args.threads)
    env = environment(device)
    print("\n".join(header(env)))
    caches = "warm caches" if device.type == "cpu" else "cold L2"
    print(f"{args.runs} interleaved runs, medians, {caches}; frames and boxes resident on {device_name(device)}")
    rows, failures = [], []
    with progress("timing", len(cases)) as step:
        for case in cases:
            try:
                rows.append(measure(case, device, chosen[case.op], args.runs, env))
            except MismatchError as error:
                failures.append(str(error))
            step()
    if rows:
        for group in group_rows(rows):
            print_table(*ops_table(group))
        write(args.json or default_path("ops", env["device"]), rows)
    for reason in dict.fromkeys(reason for row in rows for reason in row["absent"].values()):
        print(f"left out: {reason}")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

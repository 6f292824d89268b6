"""Compilers fuse products with sums, or don't: what decides between two sides of a kink must not depend on it."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from raw_calls import raw_calls

from adafocus_ops import backends, crop_mean, crop_resize
from adafocus_ops.examples import EXAMPLES, Example
from adafocus_ops.examples.tensors import random_images
from conftest import device_of, require_backend
from cuda_on_host.backend import NAME, HostOp

OPS = {"crop_resize": crop_resize, "crop_mean": crop_mean}


def boxes_of_whole_pixels() -> torch.Tensor:
    """[64, 4]: corners between pixels. Of 12 samples, some lie where the gradient jumps, at a pixel's middle, and would
    be on its other side if the step between samples were rounded before it is added."""
    tops, heights, lefts, widths = zip(*itertools.product((0, 1, 5, 7), (44, 52), (0, 2, 3, 6), (44, 52)), strict=True)
    top, left, h, w = (torch.tensor(values, dtype=torch.float32) for values in (tops, lefts, heights, widths))
    return torch.stack([top + h / 2, left + w / 2, h, w], 1)


def examples() -> Iterator[Example]:
    boxes = boxes_of_whole_pixels()
    frames = random_images((3, 3, 61, 60), torch.float32, "contiguous")
    index = {"frame_index": torch.arange(len(boxes)) % 3}
    for size in ((12, 12), (12, 7), (20, 30)):
        yield Example(f"to {size}", (frames, boxes, size), index)


@pytest.mark.parametrize("op", OPS)
def test_boxes_of_whole_pixels_have_one_gradient(request, op, backend):
    device = device_of(backend)
    require_backend(request, op, backend, device)
    for example in examples():
        frames, boxes, size = (x.to(device) if isinstance(x, torch.Tensor) else x for x in example.args)
        gradients = []
        for name in (backend, "reference"):
            leaf = boxes.clone().requires_grad_()
            index = example.kwargs["frame_index"].to(device)
            out = OPS[op](frames, leaf, size, frame_index=index, backend=name)
            upstream = torch.linspace(-1, 1, out.numel(), device=device).view(out.shape)
            gradients.append(torch.autograd.grad(out, leaf, upstream)[0])
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("op", OPS)
def test_where_products_and_sums_are_fused_it_is_the_same(request, op):
    require_backend(request, op, NAME, "cpu")
    if "fma" not in Path("/proc/cpuinfo").read_text().split():
        pytest.skip("this processor fuses nothing")
    fused = HostOp(op, mode="contracted")
    try:
        antialiased = [
            Example(e.name, e.args, {**e.kwargs, "antialias": True}) for e in examples() if op == "crop_resize"
        ]
        for example in [*examples(), *antialiased, EXAMPLES[op].any_size(5)]:
            for call in raw_calls(op, example):
                if call.part == "fwd_out":
                    continue
                found = fused.kernel(call.part)(*call.arguments.values())
                expected = backends.kernel(op, call.part, "reference")(**call.arguments)
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    finally:
        fused.harness.close()

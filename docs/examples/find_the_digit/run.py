"""Trains the rows that are not there yet, and writes tables and pictures: python run.py --seeds 0 1 2 --jobs 2."""

import os

# Set before torch is imported: as many trainings at a time as there are cores are faster than one on all cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import torch
from choices import ROWS
from measure import measure
from pictures import plot_learned
from train import Settings, pretrained, save, train, training_videos
from videos import Videos, make_videos

from report import write_report

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"


def held_out(split: str, folder: Path) -> Videos:
    """Videos to measure on, the same for all seeds."""
    count, seed = {"validation": (1024, 7), "test": (2048, 99)}[split]
    path = folder / f"{split}.pt"
    if not path.exists():
        save(tuple(make_videos(split, count, seed)), path)
    return Videos(*torch.load(path))


def prepare(seed: int, folder: Path) -> None:
    """Makes what all rows of a seed share."""
    torch.set_num_threads(1)
    pretrained(seed, folder, Settings(), training_videos(seed, folder, Settings()))


def run(row: str, seed: int, folder: Path) -> dict:
    """Trains and measures one row; its line of the results."""
    torch.set_num_threads(1)
    model, seconds = train(row, seed, folder, Settings())
    torch.manual_seed(seed)  # of random choices
    numbers = measure(model, row, held_out("validation", folder), held_out("test", folder))
    return {
        "row": row,
        "seed": seed,
        **numbers,
        "seconds": round(seconds, 1),
        "settings": asdict(Settings()),
        "torch": torch.__version__,
    }


def finished() -> set[tuple[str, int]]:
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {(line["row"], line["seed"]) for line in map(json.loads, lines)}


def rounded(value: object) -> object:
    """The same with five digits behind the point, so that a line can be read."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="*", choices=[*ROWS, []], default=list(ROWS), help="none: the report alone")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, each on one thread")
    parser.add_argument("--folder", type=Path, default=Path("build/find_the_digit"), help="for videos and weights")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)

    done = finished()
    todo = [(row, seed) for row in arguments.rows for seed in arguments.seeds if (row, seed) not in done]
    if todo:
        for split in ("validation", "test"):
            held_out(split, arguments.folder)
        with ProcessPoolExecutor(arguments.jobs) as pool:
            list(pool.map(prepare, dict.fromkeys(seed for _, seed in todo), [arguments.folder] * len(todo)))
            jobs = [pool.submit(run, row, seed, arguments.folder) for row, seed in todo]
            for job in as_completed(jobs):
                line = rounded(job.result())
                with RESULTS.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                accuracy = line["test"]["focus"]
                print(f"{line['row']}, seed {line['seed']}: {accuracy[0]:.3f} {accuracy[1]:.3f}", flush=True)
    write_report(HERE)
    learned = arguments.folder / f"learned_{arguments.seeds[0]}" / "best.safetensors"
    if learned.exists():
        plot_learned(learned, held_out("test", arguments.folder), HERE / "boxes.png")


if __name__ == "__main__":
    main()

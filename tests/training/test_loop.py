"""The loop: what it learns, what it writes, and that a stop changes nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up_clips import MadeUpClips
from tiny_models import fresh

from adafocus_models.data import EpochOrder, Sample
from adafocus_models.training import Recipe
from adafocus_models.training.loop import Group, train

ROOT = Path(__file__).parents[2]
RECIPE = Recipe(
    "uni_adafocus_tsm", num_classes=5, batch_size=4, learning_rate=0.03, weight_decay=1e-4, epochs=3, dropout=0.1
)


def states(out: Path) -> dict:
    return torch.load(out / "last.pt", weights_only=True)


def equal(a, b) -> bool:
    """Bit by bit, but for the seconds that things took."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def log(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def timeless(lines: list[dict]) -> list[dict]:
    return [{name: value for name, value in line.items() if name != "videos_per_s"} for line in lines]


@pytest.mark.parametrize("name", ["uni_adafocus", "uni_adafocus_tsm", "adafocus_v2", "tsm"])
def test_it_learns(name, tmp_path):
    model = fresh(name)
    recipe = replace(RECIPE, epochs=12, dropout=0.0, learning_rate=0.1)
    said = []
    clips = MadeUpClips(model, 20)
    trained = train(model, recipe, clips, MadeUpClips(model, 10), out=tmp_path, say=said.append)
    assert (trained.step, trained.epoch, trained.finished) == (60, 12, True)
    lines = log(tmp_path)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-3:]) / 3 < 0.85 * losses[0]
    validations = [line for line in lines if "validation_top1" in line]
    assert len(validations) == 12
    assert trained.best == max(line["validation_top1"] for line in validations) >= 0.5
    assert trained.figures["top1"] == validations[-1]["validation_top1"]
    assert "epoch 12/12, step 5/5, loss " in said[-1]
    assert "images/s), 0 min left" in said[-1]
    best = fresh(name, seed=1)
    best.load_checkpoint(tmp_path / "best.safetensors")
    resumed = fresh(name, seed=1)
    resumed.load_checkpoint(tmp_path / "last.pt")
    assert equal(dict(resumed.state_dict()), dict(model.state_dict()))


def test_the_log_is_there_for_tensorboard_too(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model = fresh("tsm")
    recipe = replace(RECIPE, model="tsm", epochs=2)
    train(model, recipe, MadeUpClips(model, 8), MadeUpClips(model, 4), out=tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    for name in ("loss", "classification", "validation_top1"):
        expected = {line["step"]: line[name] for line in log(tmp_path) if name in line}
        assert {event.step: event.value for event in events.Scalars(name)} == pytest.approx(expected)


def test_stages_of_v1_train_their_parts_alone(tmp_path):
    model = fresh("adafocus_v1")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = replace(RECIPE, model="adafocus_v1", epochs=1, objective={"stage": 2}, optimizer="adamw")
    train(model, recipe, MadeUpClips(model, 8), None, out=tmp_path)
    changed = {name.partition(".")[0] for name, value in model.state_dict().items() if (value != before[name]).any()}
    assert changed == {"spatial_policy"}
    assert (tmp_path / "best.safetensors").exists()  # of the end, without validation


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_a_signal_stopped_ends_where_it_would_have_ended(tmp_path, accumulate):
    recipe = replace(RECIPE, accumulate=accumulate)

    def run(out, when=lambda epoch, index: None, resume=False):
        model = fresh("uni_adafocus_tsm")
        clips, validation = MadeUpClips(model, 14, when), MadeUpClips(model, 5, when)
        return train(model, recipe, clips, validation, out=out, resume=resume)

    assert run(tmp_path / "whole").finished
    # In the middle of an epoch, at its last sample, and while it is validated: 12 samples, and 5 of validation.
    for stop, with_signal in ((6, signal.SIGTERM), (12, signal.SIGINT), (15, signal.SIGTERM)):
        out, seen = tmp_path / str(stop), []

        def when(epoch, index, seen=seen, stop=stop, with_signal=with_signal):
            seen.append(index)
            if len(seen) == stop:
                os.kill(os.getpid(), with_signal)

        stopped = run(out, when)
        assert not stopped.finished
        assert stopped.step < 9
        assert run(out, resume=True).finished
        assert equal(states(tmp_path / "whole"), states(out))
        assert timeless(log(out)) == timeless(log(tmp_path / "whole"))


def test_a_run_that_was_killed_ends_where_it_would_have_ended(tmp_path):
    """At whatever moment: while a step is taken, or a checkpoint written."""
    program = (
        "import sys, time; sys.path[:0] = ['.', 'tests', 'tests/ops', 'tests/models', 'tests/training']\n"
        "import torch; torch.set_num_threads(1)\n"
        "from dataclasses import replace\n"
        "from test_loop import RECIPE, MadeUpClips, fresh, train\n"
        "model = fresh('uni_adafocus')\n"
        "slow = lambda epoch, index: time.sleep(float(sys.argv[2]))\n"
        "recipe = replace(RECIPE, model='uni_adafocus', epochs=4)\n"
        "train(model, recipe, MadeUpClips(model, 8, slow), None, out=sys.argv[1], resume=True)\n"
    )

    def start(out, pause):
        return subprocess.Popen([sys.executable, "-c", program, str(out), str(pause)], cwd=ROOT)

    assert start(tmp_path / "whole", 0).wait(120) == 0
    out, kills = tmp_path / "killed", 0
    for _ in range(3):
        process = start(out, 0.02)
        beginning = time.monotonic()
        reached = states(out)["step"] if (out / "last.pt").exists() else 0
        while process.poll() is None and time.monotonic() < beginning + 60:
            if kills < 2 and (out / "last.pt").exists() and states(out)["step"] > reached:
                time.sleep(0.03 * (kills + 1))
                process.kill()
                kills += 1
                break
            time.sleep(0.005)
        if process.wait(60) == 0:
            break
    assert kills == 2
    assert equal(states(tmp_path / "whole"), states(out))


def test_parts_of_a_batch_are_the_batch(tmp_path):
    """Whatever is drawn; but for BatchNorm, which has each part's statistics, and dropout."""
    recipe = replace(RECIPE, batch_norm="frozen", dropout=0.0, epochs=1)
    found = []
    for accumulate in (1, 2):
        model = fresh("uni_adafocus_tsm").double()
        train(
            model, replace(recipe, accumulate=accumulate), MadeUpClips(model, 12), None, out=tmp_path / str(accumulate)
        )
        found.append(model.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-9, atol=1e-11)


def of_two(rank: int, out: str, port: int, name: str) -> None:
    """One of two processes that train together."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = fresh(name).double()
    recipe = replace(RECIPE, batch_norm="frozen", dropout=0.0, epochs=2)
    clips, validation = MadeUpClips(model, 12), MadeUpClips(model, 5)
    trained = train(model, recipe, clips, validation, out=out, group=Group(rank, 2))
    assert trained.finished
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["uni_adafocus_tsm", pytest.param("uni_adafocus", marks=pytest.mark.slow)])
def test_two_processes_are_one_with_the_same_batches(name, tmp_path, free_port):
    torch.multiprocessing.spawn(of_two, (str(tmp_path / "two"), free_port, name), nprocs=2)
    model = fresh(name).double()
    recipe = replace(RECIPE, batch_norm="frozen", dropout=0.0, epochs=2)
    train(model, recipe, MadeUpClips(model, 12), MadeUpClips(model, 5), out=tmp_path / "one")
    one, two = states(tmp_path / "one"), states(tmp_path / "two")
    for key, value in one["model"].items():
        torch.testing.assert_close(two["model"][key], value, rtol=1e-8, atol=1e-10)
    assert two["figures"] == pytest.approx(one["figures"])
    assert len(log(tmp_path / "two")) == len(log(tmp_path / "one"))


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_processes_that_read_change_nothing(tmp_path):
    found = []
    for workers in (0, 2):
        model = fresh("tsm")
        recipe = replace(RECIPE, model="tsm", epochs=1)
        train(model, recipe, MadeUpClips(model, 8), None, out=tmp_path / str(workers), workers=workers)
        found.append(states(tmp_path / str(workers))["model"])
    assert equal(*found)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_16_bits(precision, tmp_path):
    model = fresh("uni_adafocus_tsm")
    forward = model.glance_encoder.forward
    train(model, replace(RECIPE, precision=precision), MadeUpClips(model, 8), None, out=tmp_path)
    assert model.glance_encoder.forward == forward
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    losses = [line["loss"] for line in log(tmp_path)]
    assert losses[-1] < losses[0]


def test_the_warm_up_leaves_the_policies_alone(tmp_path):
    model = fresh("uni_adafocus_tsm")
    before = {name: value.clone() for name, value in model.named_parameters()}
    recipe = replace(RECIPE, policy_warmup=1.0, epochs=1, weight_decay=0.0)
    train(model, recipe, MadeUpClips(model, 8), None, out=tmp_path)
    moved = {name.partition(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name, _ in model.named_children()} - {
        "temporal_policy",
        "spatial_policy",
        "spatial_aux_head",
        "dropout",
    }


def test_a_loss_that_is_not_finite_names_the_videos(tmp_path):
    model = fresh("tsm")
    recipe = replace(RECIPE, model="tsm", learning_rate=1e30)
    with pytest.raises(ValueError, match="the loss is not finite in epoch") as error:
        train(model, recipe, MadeUpClips(model, 8), None, out=tmp_path)
    epoch, step, videos = re.search(r"epoch (\d+), step (\d+): .*from 0\): ([\d, ]+)\. A", str(error.value)).groups()
    order = EpochOrder(8, 4, seed=0, rank=0, world_size=1)
    order.set_epoch(int(epoch))
    assert videos == ", ".join(str(index) for _, index in list(order)[int(step) % 2])


class ManyReplaced(MadeUpClips):
    """One in twenty cannot be read."""

    def __getitem__(self, place: tuple[int, int]) -> Sample:
        return super().__getitem__(place)._replace(replaced=int(place[1] % 20 == 0))


def test_too_many_clips_that_cannot_be_read_stop_it(tmp_path):
    model = fresh("tsm")
    clips = ManyReplaced(model, 100)
    with pytest.raises(ValueError, match="2 clips could not be read, which is more than 1%"):
        train(model, replace(RECIPE, model="tsm", batch_size=20), clips, None, out=tmp_path)


def test_what_does_not_fit(tmp_path):
    model = fresh("tsm")
    clips, recipe = MadeUpClips(model, 8), replace(RECIPE, model="tsm", epochs=1)
    with pytest.raises(ValueError, match="there are 8 videos, which is less than one batch of 16"):
        train(model, replace(recipe, batch_size=16), clips, None, out=tmp_path)
    with pytest.raises(ValueError, match=r"batch_size must be a multiple of 3 \(processes times accumulate\), got 4"):
        train(model, replace(recipe, accumulate=3), clips, None, out=tmp_path)
    with pytest.raises(ValueError, match="batch_norm=synchronised is there on GPUs alone, and the model is on cpu"):
        train(model, replace(recipe, batch_norm="synchronised"), clips, None, out=tmp_path)
    train(model, recipe, clips, None, out=tmp_path)
    with pytest.raises(FileExistsError, match="holds a run: give --resume, or another --out"):
        train(model, recipe, clips, None, out=tmp_path)
    with pytest.raises(ValueError, match=r"had another recipe: momentum was 0\.9, is 0\.5"):
        train(model, replace(recipe, momentum=0.5), clips, None, out=tmp_path, resume=True)
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="is not a checkpoint: it is empty"):
        train(model, recipe, clips, None, out=tmp_path, resume=True)

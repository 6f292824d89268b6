"""The loop: a model, a recipe and videos in, weights out; to be stopped and gone on with at any moment."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from adafocus_ops.checks import require

from ..data import MOST_ERRORS, EpochOrder, Sample, batch_of
from ..exits import mean_average_precision, top_k_accuracy
from ..networks import VideoModel
from .losses import Losses
from .objective import objective
from .optimisation import encoders_in, make_optimizer, parameter_groups, set_dropout, set_rates, set_training
from .recipes import Recipe
from .run_files import RunFiles, TensorBoard
from .signals import leave_interrupts_to_the_run, noted_signals
from .uni_adafocus import Network

SAVES_EVERY = 600.0  # seconds, beside the end of every epoch
LOGS_EVERY = 10  # steps
STEPS_A_SEED = 1 << 32  # more than a run has


class Clips(Protocol):
    """What gives the samples: a `TrainingClips`, or anything that has its length and its samples."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: tuple[int, int]) -> Sample:
        """The sample of an epoch and an index; whatever is random in it depends on these two alone."""


class Group(NamedTuple):
    """The processes that train together, of which this is one; torch.distributed is set up where there are several."""

    rank: int = 0
    world_size: int = 1


class Trained(NamedTuple):
    """What a run has come to."""

    step: int  # steps that are done
    epoch: int  # epochs that are done
    finished: bool  # False where it was interrupted
    best: float | None  # the recipe's metric of the best weights
    figures: dict[str, float]  # of the last validation


def train(
    model: VideoModel,
    recipe: Recipe,
    training: Clips,
    validation: Clips | None,
    *,
    out: str | os.PathLike,
    rates: dict[str, float] | None = None,
    resume: bool = False,
    group: Group | None = None,
    workers: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Trained:
    """Trains a model in place, as its recipe says, and writes what it needs to go on, the best weights and a log.

    A run that was killed at any moment and is resumed ends where it would have ended, bit by bit where the device's
    arithmetic is reproducible: everything random in a step depends on the seed and its number alone. Ctrl-C and
    SIGTERM save and leave.

    Args:
        model: on the device that trains.
        recipe: what is done with it; its `model` and `arguments` are not looked at.
        training, validation: the videos. Without validation the weights of the end are the best.
        out: folder of the run's files: last.pt, best.safetensors, log.jsonl, and events for TensorBoard where it is
            installed.
        rates: beginning of a weight's name -> its share of the learning rate; default the recipe's own alone.
        resume: go on where last.pt is; begin where there is none.
        group: of several processes. Each takes its share of every batch, and draws what one would have drawn for it.
        workers: processes that read clips; 0 reads between the steps.
        say: is told how far it is.

    Raises:
        FileExistsError: there is a run in `out`, and resume is False.
        ValueError: a recipe that does not fit the model or the videos; a loss that is not finite, with the videos of
            its batch; more than 1 % of clips that cannot be read.
    """
    run = _Run(model, recipe, training, validation, RunFiles(out), rates or dict(recipe.rates), group or Group(), say)
    run.begin(resume)
    with run.board_closed():
        return run.go(workers)


class _Run:
    """One call of `train`."""

    def __init__(
        self,
        model: VideoModel,
        recipe: Recipe,
        training: Clips,
        validation: Clips | None,
        files: RunFiles,
        rates: dict[str, float],
        group: Group,
        say: Callable[[str], None],
    ) -> None:
        self.model, self.recipe, self.files, self.group, self.say = model, recipe, files, group, say
        self.training, self.validation = training, validation
        self.device = next(model.parameters()).device
        parts = group.world_size * recipe.accumulate
        require(
            recipe.batch_size % parts == 0,
            lambda: f"batch_size must be a multiple of {parts} (processes times accumulate), got {recipe.batch_size}",
        )
        self.epoch_steps = len(training) // recipe.batch_size
        require(
            self.epoch_steps > 0,
            lambda: f"there are {len(training)} videos, which is less than one batch of {recipe.batch_size}",
        )
        set_dropout(model, recipe)
        if recipe.batch_norm == "synchronised":
            require(
                self.device.type == "cuda",
                lambda: f"batch_norm=synchronised is there on GPUs alone, and the model is on {self.device}",
            )
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.optimizer = make_optimizer(parameter_groups(model, recipe, rates), recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")
        step = _Step(model, recipe)
        self.parallel = DistributedDataParallel(step, find_unused_parameters=True) if group.world_size > 1 else step
        self.board: TensorBoard | None = None
        self.step = 0
        self.best: float | None = None
        self.figures: dict[str, float] = {}
        self.errors = 0

    # Beginning and end.

    def begin(self, resume: bool) -> None:
        """From what an earlier run left, if there is one."""
        state = self.files.begin(resume, alone=self.group.rank == 0)
        if state is not None:
            theirs, ours = state["recipe"], self.recipe.as_dict()
            other = [name for name in ours if name != "epochs" and theirs.get(name) != ours[name]]
            require(
                not other,
                lambda: (
                    "the run that is to be resumed had another recipe: "
                    + ", ".join(f"{name} was {theirs.get(name)!r}, is {ours[name]!r}" for name in other)
                ),
            )
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.step, self.best, self.errors = state["step"], state["best"], state["errors"]
            self.figures = state["figures"]
        if self.group.rank == 0:
            self.board = TensorBoard(self.files.folder, self.step)

    @contextmanager
    def board_closed(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self.board is not None:
                self.board.close()

    def save(self) -> None:
        if self.group.rank == 0:
            self.files.save(
                {
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "recipe": self.recipe.as_dict(),
                    "step": self.step,
                    "best": self.best,
                    "errors": self.errors,
                    "figures": self.figures,
                }
            )

    # All steps.

    def go(self, workers: int) -> Trained:
        """To the last epoch, or to the signal that ends it."""
        with noted_signals() as asked:
            while not self.finished:
                if not self._epoch(workers, asked):
                    break
        return Trained(self.step, self.step // self.epoch_steps, self.finished, self.best, self.figures)

    @property
    def finished(self) -> bool:
        return self.step >= self.recipe.epochs * self.epoch_steps

    def _epoch(self, workers: int, asked: Callable[[], bool]) -> bool:
        """What is left of an epoch, and the validation that ends it; False where a signal asked to leave."""
        epoch, first = divmod(self.step, self.epoch_steps)
        set_rates(self.optimizer, epoch, self.recipe.epochs)
        set_training(self.model, self.recipe)
        order = EpochOrder(
            len(self.training),
            self.recipe.batch_size // self.group.world_size,
            seed=self.recipe.seed,
            rank=self.group.rank,
            world_size=self.group.world_size,
        )
        order.set_epoch(epoch, first)
        began = saved = time.monotonic()
        steps, done = len(order), 0
        for samples in self._loaded(self.training, order, workers):
            losses = self._take_step(samples, epoch)
            self.step, done = self.step + 1, done + 1
            now = time.monotonic()
            speed = done * self.recipe.batch_size / (now - began)
            self._tell(epoch, losses, speed)
            if done == steps:
                break  # what is saved at the end of an epoch has its validation behind it
            leave = self._anyone(asked())
            if leave or now - saved > SAVES_EVERY:
                self.save()
                saved = now
            if leave:
                return False
        self._validate(epoch, workers)
        self.save()
        return not self._anyone(asked())

    def _loaded(self, clips: Clips, places: Any, workers: int) -> Iterator[list[Sample]]:
        """Lists of samples, at these places [(epoch, index), ...] each."""
        pinned = self.device.type == "cuda"
        yield from DataLoader(
            clips,
            batch_sampler=places,
            num_workers=workers,
            collate_fn=list,
            pin_memory=pinned,
            worker_init_fn=leave_interrupts_to_the_run,
        )

    def _anyone(self, asked: bool) -> bool:
        """Whether a signal has reached any of the processes: all must leave after the same step."""
        if self.group.world_size == 1:
            return asked
        flag = torch.tensor(float(asked), device=self.device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)

    # One step.

    def _take_step(self, samples: Sequence[Sample], epoch: int) -> Losses:
        """The gradient of this process's share of a batch, in parts, and what it does to the weights."""
        self._count_errors(samples, epoch)
        seed = self.recipe.seed * STEPS_A_SEED + self.step
        torch.manual_seed(seed * self.group.world_size + self.group.rank)  # of dropout
        policies = self.step >= self.recipe.policy_warmup * self.epoch_steps
        parts = _cut(samples, len(samples) // self.recipe.accumulate)
        found = []
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            together = nullcontext() if last or self.group.world_size == 1 else self.parallel.no_sync()
            with together, encoders_in(self.model, self.device, self.recipe.precision):
                batch = batch_of(part, device=self.device, frame_size=self.model.frame_size)
                first = self.group.rank * len(samples) + number * len(part)
                draws = {"seed": seed, "rows": (first, self.recipe.batch_size), "policies": policies}
                losses = self.parallel(batch.frames, batch.glance_frames, batch.labels, **draws)  # [terms]
                self.scaler.scale(losses.sum() / len(parts)).backward()
            found.append(losses.detach())
        terms = torch.stack(found).mean(0)
        self._check_finite(terms, samples, epoch)
        self.scaler.unscale_(self.optimizer)
        if self.recipe.clip_norm is not None:
            learning = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
            nn.utils.clip_grad_norm_(learning, self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return Losses(*terms.unbind())

    def _check_finite(self, terms: Tensor, samples: Sequence[Sample], epoch: int) -> None:
        if terms.isfinite().all():
            return
        named = ", ".join(f"{name} {value:g}" for name, value in zip(Losses._fields, terms.tolist(), strict=True))
        videos = ", ".join(str(sample.index) for sample in samples)
        raise ValueError(
            f"the loss is not finite in epoch {epoch}, step {self.step}: {named}; the videos of the batch (places in"
            f" the list, from 0): {videos}. A lower learning_rate, a clip_norm or precision=float32 may help"
        )

    def _count_errors(self, samples: Sequence[Sample], epoch: int) -> None:
        """Stops a run whose videos cannot be read."""
        self.errors += sum(sample.replaced for sample in samples)
        share = len(self.training) / self.group.world_size
        most = max(MOST_ERRORS * share * (epoch + 1), 1)
        require(
            self.errors <= most,
            lambda: (
                f"{self.errors} clips could not be read, which is more than {MOST_ERRORS:.0%}: the run would not be of"
                " these videos"
            ),
        )

    # What it tells.

    def _tell(self, epoch: int, losses: Losses, speed: float) -> None:
        if self.group.rank != 0:
            return
        total = sum(value.item() for value in losses)
        left = (self.recipe.epochs * self.epoch_steps - self.step) * self.recipe.batch_size / speed
        frames = self.model.num_glance_frames + self.model.num_focus_frames
        self.say(
            f"epoch {epoch + 1}/{self.recipe.epochs}, step {self.step % self.epoch_steps or self.epoch_steps}/"
            f"{self.epoch_steps}, loss {total:.3f}, {speed:.3g} videos/s ({speed * frames:.0f} images/s),"
            f" {_duration(left)} left"
        )
        if self.step % LOGS_EVERY == 0 or self.step % self.epoch_steps == 0:
            numbers = {name: value.item() for name, value in losses._asdict().items()}
            rate = max(group["lr"] for group in self.optimizer.param_groups)
            self._log(epoch, {"loss": total, **numbers, "highest_rate": rate, "videos_per_s": speed})

    def _log(self, epoch: int, numbers: dict[str, float]) -> None:
        self.files.write({"step": self.step, "epoch": epoch, **numbers})
        self.board.write(self.step, numbers)

    # Validation.

    def _validate(self, epoch: int, workers: int) -> None:
        """The figures of all validation videos, and the weights where they are the best so far."""
        if self.validation is None:
            if self.group.rank == 0:
                self.files.save_best(self.model)
            return
        logits, labels = self._answers(workers)
        if self.group.rank != 0:
            return
        self.figures = {
            "top1": top_k_accuracy(logits, labels),
            "top5": top_k_accuracy(logits, labels, min(5, logits.shape[1])),
            "mAP": mean_average_precision(logits.softmax(1), labels),
        }
        self._log(epoch, {f"validation_{name}": value for name, value in self.figures.items()})
        reached = self.figures[self.recipe.metric]
        if self.best is None or reached > self.best:
            self.best = reached
            self.files.save_best(self.model)

    @torch.no_grad()
    def _answers(self, workers: int) -> tuple[Tensor, Tensor]:
        """Logits [V, C] and labels [V] of the validation videos, on rank 0 of all of them."""
        self.model.eval()
        size = self.recipe.batch_size // (self.group.world_size * self.recipe.accumulate)
        share = range(self.group.rank, len(self.validation), self.group.world_size)
        places = [[(0, index) for index in some] for some in _cut(share, size)]
        logits, labels = [torch.empty(0, self.model.num_classes)], [torch.empty(0, dtype=torch.int64)]
        for samples in self._loaded(self.validation, places, workers):
            batch = batch_of(samples, device=self.device, frame_size=self.model.frame_size)
            with encoders_in(self.model, self.device, self.recipe.precision):
                output = self.model(batch.frames, batch.glance_frames)
            logits.append(output.logits.float().cpu())
            labels.append(batch.labels.cpu())
        found = torch.cat(logits), torch.cat(labels)
        if self.group.world_size > 1:
            everyone = [None] * self.group.world_size if self.group.rank == 0 else None
            distributed.gather_object(found, everyone)
            found = tuple(map(torch.cat, zip(*everyone, strict=True))) if everyone else found
        return found


class _Step(nn.Module):
    """The objective as a module, which is what torch runs on several processes."""

    def __init__(self, model: VideoModel, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.options = model, dict(recipe.objective)

    def forward(
        self,
        frames: Tensor,
        glance_frames: Tensor | None,
        labels: Tensor,
        *,
        seed: int,
        rows: tuple[int, int],
        policies: bool,
    ) -> Tensor:
        """[terms]; `policies` is for Uni-AdaFocus networks alone."""
        options = self.options
        if isinstance(self.model, Network):
            options = {"policies": policies, **options}
        generator = torch.Generator(frames.device).manual_seed(seed)  # the same for every part of a batch
        losses = objective(self.model, frames, glance_frames, labels, generator=generator, rows=rows, **options)
        return torch.stack(losses)


def _cut(items: Sequence, size: int) -> list[Sequence]:
    """Parts of this size; the last may be smaller."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"

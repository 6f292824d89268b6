"""Processes that torchrun started: which of them this is, its share of the work, and all results in order."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
from torch import distributed

Item, Result = TypeVar("Item"), TypeVar("Result")

# How long rank 0 waits for the others, whose share may be the longer videos.
PATIENCE = timedelta(days=7)


class Ranks(NamedTuple):
    """Which process this is, of how many: one of torchrun's, or the only one.

    here = Ranks.of_torchrun()
    with here.joined():
        for answer in here.in_order(answers_to, videos):
            print(answer)  # on rank 0, all of them; on the others, none
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # among the processes of this machine

    @classmethod
    def of_torchrun(cls) -> "Ranks":
        """This process, as torchrun's environment has it; the only one without torchrun."""
        if not distributed.is_torchelastic_launched():
            return cls()
        return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))

    def device(self, device: torch.device) -> torch.device:
        """The device of this process: where any GPU will do, one of its own."""
        if self.world_size > 1 and device.type == "cuda" and device.index is None:
            return torch.device("cuda", self.local_rank)
        return device

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part of the work: items rank, rank + world_size, ..."""
        return items[self.rank :: self.world_size]

    @contextmanager
    def joined(self, device: torch.device | None = None) -> Iterator[None]:
        """While it lasts the processes can send one another what they found, through gloo, whatever they compute on;
        with a GPU as `device` also tensors that are there, through NCCL."""
        if self.world_size == 1:
            yield
            return
        on_gpu = device is not None and device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
        try:
            yield
        finally:
            distributed.destroy_process_group()

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of their ranks, on rank 0; an empty list on the others.

        Every process must call it, while joined, with something that can be pickled. It waits for the last one.
        """
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size if self.rank == 0 else None
        distributed.gather_object(value, values)
        return values or []

    def of_first(self, work: Callable[[], Result], *, expected: tuple[type[Exception], ...] = ()) -> Result:
        """What rank 0 alone finds, on every process, once it is there; all must call it while joined.

        Raises:
            ValueError: on all, with the message of an expected error of work.
        """
        if self.world_size == 1:
            return work()
        told: list[Any] = [None, None]
        if self.rank == 0:
            try:
                told[0] = work()
            except expected as error:
                told[1] = str(error)
        distributed.broadcast_object_list(told)
        if told[1] is not None:
            raise ValueError(told[1])
        return told[0]

    def in_order(
        self,
        work: Callable[[Sequence[Item]], Iterable[Result]],
        items: Sequence[Item],
        *,
        expected: tuple[type[Exception], ...] = (),
    ) -> Iterator[Result]:
        """Gives on rank 0 the results of all items in their order, and nothing on the others, while joined.

        A process alone gives each result as soon as it is there; several do so once all are.

        Args:
            work: gives one result, which can be pickled, for each item of a share.
            items: the same in every process.
            expected: errors of work that are rank 0's to tell.

        Raises:
            ValueError: on rank 0 alone, with the message of the first expected error in any of several processes.
        """
        if self.world_size == 1:
            yield from work(items)
            return
        results, message = [], None
        try:
            results = list(work(self.share(items)))
        except expected as error:
            message = str(error)
        everyone = self.gather((results, message))
        for _, message in everyone:
            if message is not None:
                raise ValueError(message)
        if everyone:
            yield from (everyone[i % self.world_size][0][i // self.world_size] for i in range(len(items)))

"""The processes that train one pack together, data-parallel. All of them hold the same weights.

Each runs the models on its share of a batch's images. What the models return is gathered, so that in every process the
losses, the methods and their buffers see the whole batch: they need not know that there are several processes, and
what they compute is what a single one would.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT = timedelta(minutes=10)  # within which the processes must meet, and each answer the others
ALIKE_SECONDS = 30.0


class LostRank(BaseException):
    """The processes no longer do the same: this one cannot go on. Like KeyboardInterrupt not an Exception, so that
    nothing takes it for a run's own failure."""


@dataclass(frozen=True)
class Part:
    """Every ``of``-th row of a batch, from row ``index`` on. A process's rows, which lie together, hold some of each
    part; so parts are the same for any number of processes."""

    index: int = 0
    of: int = 1

    @property
    def rows(self) -> slice:
        return slice(self.index, None, self.of)


WHOLE = Part()


@dataclass(frozen=True)
class Ranks:
    """This process among those of its job; the default is a process alone."""

    rank: int = 0
    world: int = 1
    store: dist.Store | None = None

    def __deepcopy__(self, memo: Any) -> "Ranks":
        """A copy of a model is shared by the same processes."""
        return self

    def device(self) -> torch.device:
        """Where this process computes; processes of one node are spread over its GPUs by LOCAL_RANK."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) if self.world > 1 else 0)
        return torch.device("cuda")

    def rows(self, count: int, part: Part = WHOLE) -> slice:
        """This process's share of ``count`` rows, or what of it is in a part."""
        first, stop = (count * r // self.world for r in (self.rank, self.rank + 1))
        return slice(first + (part.index - first) % part.of, stop, part.of)

    def gather(self, mine: Tensor, count: int, part: Part = WHOLE) -> Tensor:
        """All rows of a part of a batch of ``count``, from the share of each process; gradients go back to where rows
        came from.

        What is computed of the result must be the same in every process: each gives its rows the gradient of its own
        copy of the loss.
        """
        if self.world == 1:
            return mine
        gathered: Tensor = _Gather.apply(mine, self, count, part)
        return gathered

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by its sum over the processes, bit for bit the same in all of them."""
        if self.world == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([t.reshape(-1) for t in tensors])
        with _together():
            dist.all_reduce(flat)
        for t, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            t.copy_(total.view(t.shape))

    def greatest(self, value: int, device: torch.device) -> int:
        """Of the processes' values."""
        if self.world == 1:
            return value
        found = torch.tensor(value, device=device)
        with _together():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def collect(self, value: Any) -> list[Any]:
        """Each process's JSON-able value, in the order of their ranks."""
        if self.world == 1:
            return [value]
        text, device = json.dumps(value).encode(), self.device()
        padded = text.ljust(self.greatest(len(text), device))  # spaces behind a value are JSON too
        mine = torch.frombuffer(bytearray(padded), dtype=torch.uint8).to(device)
        parts = [torch.empty_like(mine) for _ in range(self.world)]
        with _together():
            dist.all_gather(parts, mine)
        return [json.loads(part.cpu().numpy().tobytes()) for part in parts]

    def share(self, name: str, value: Any) -> Any:
        """The first process's JSON-able value, in every process; ``name`` is used once."""
        if self.store is None:
            return value
        with _together():
            if self.rank == 0:
                self.store.set(name, json.dumps(value))
            return json.loads(self.store.get(name))

    def fail_alike(self, what: str) -> None:
        """Called by a process in which ``what`` has failed; returns when it has failed in every one. Once per name.

        Raises:
            LostRank: it has not: the others go on without this one, or are gone.
        """
        if self.store is None:
            return
        end = time.monotonic() + ALIKE_SECONDS
        with _together():
            self.store.add(what, 1)
            while self.store.add(what, 0) < self.world:
                if time.monotonic() > end:
                    raise LostRank(f"{what} failed in process {self.rank}, and not in every other")
                time.sleep(0.05)


ALONE = Ranks()


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Meets the other processes of this job, told by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT (as torchrun sets
    them); without WORLD_SIZE, or with 1, this process is alone.

    Raises:
        LostRank: the others did not come in time.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        yield ALONE
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    with _together():
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(address, port, world, is_master=rank == 0, timeout=TIMEOUT)
        dist.init_process_group(backend, store=dist.PrefixStore("torch", store), rank=rank, world_size=world,
                                timeout=TIMEOUT)  # fmt: skip
    try:
        yield Ranks(rank, world, dist.PrefixStore("harness", store))
    finally:
        dist.destroy_process_group()


@contextmanager
def _together() -> Iterator[None]:
    """torch raises plain RuntimeErrors when another process is gone."""
    try:
        yield
    except (RuntimeError, ValueError) as e:
        raise LostRank(f"the processes of this job have lost each other: {e}") from e


class _Gather(torch.autograd.Function):
    """Rows of every process, in rank order; backward keeps the gradient of one's own."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, ranks: Ranks, count: int, part: Part) -> Tensor:
        sizes = [len(range(count)[Ranks(r, ranks.world).rows(count, part)]) for r in range(ranks.world)]
        ctx.rows = slice(sum(sizes[: ranks.rank]), sum(sizes[: ranks.rank + 1]))
        padded = mine.new_zeros((max(sizes), *mine.shape[1:]))
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in sizes]
        with _together():
            dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return gradients[0][ctx.rows], None, None, None

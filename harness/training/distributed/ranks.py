"""Ranks: the processes that train one pack together, data-parallel. All of them hold the same weights.

Each runs the models on its own rows of a batch. The models' outputs are gathered, so that on every rank the losses, the
methods and their buffers see the whole batch: they need not know that there are several ranks, and compute what a
single process would.
"""

import importlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from harness.training.distributed import peers, rendezvous

TIMEOUT = timedelta(minutes=10)  # for the ranks to meet, and for each to answer the others
SAME_FAILURE_SECONDS = 30.0


class LostRank(BaseException):
    """Another rank is gone or does something else, so this one cannot continue.

    Like KeyboardInterrupt it is not an Exception, so that nothing takes it for a run's own failure.
    """


@dataclass(frozen=True)
class BatchPart:
    """Every ``parts``-th row of a batch from row ``index`` on: the rows of a micro-batch.

    A rank's rows lie together and so hold some of each part: parts are the same for any number of ranks.
    """

    index: int = 0
    parts: int = 1

    @property
    def rows(self) -> slice:
        return slice(self.index, None, self.parts)


WHOLE_BATCH = BatchPart()


@dataclass(frozen=True)
class Ranks:
    """This process's rank among those of its job; the default is a single process."""

    rank: int = 0
    world_size: int = 1
    store: dist.Store | None = None
    at_end: list[Callable[[], None]] = field(default_factory=list)  # what to call before the ranks leave each other

    def __deepcopy__(self, memo: Any) -> "Ranks":
        """Return the same object: copies of a model belong to the same ranks."""
        return self

    def device(self) -> torch.device:
        """Return this rank's device. LOCAL_RANK spreads the ranks of a node over its GPUs."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) if self.world_size > 1 else 0)
        return torch.device("cuda")

    def rows(self, count: int, part: BatchPart = WHOLE_BATCH) -> slice:
        """Return this rank's rows of a batch of ``count``, or those of them that are in a part."""
        # The first ranks take one more each, so that no rank has more rows of a smaller batch than of a larger one.
        least, rest = divmod(count, self.world_size)
        first, stop = (r * least + min(r, rest) for r in (self.rank, self.rank + 1))
        return slice(first + (part.index - first) % part.parts, stop, part.parts)

    def all_gather(self, mine: Tensor, count: int, part: BatchPart = WHOLE_BATCH) -> Tensor:
        """Return all rows of a part of a batch of ``count``, from each rank's rows; gradients flow back to them.

        Every rank must compute the same from the result: its rows receive the gradient of its own copy of the loss.
        """
        if self.store is None:
            return mine
        gathered: Tensor = _AllGather.apply(mine, self, count, part)
        return gathered

    def all_reduce_sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks, bit for bit the same on all of them."""
        if self.store is None:
            return
        tensors = list(tensors)
        flat = torch.cat([t.reshape(-1) for t in tensors])
        with _lost_rank_on_error():
            dist.all_reduce(flat)
        for t, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            t.copy_(total.view(t.shape))

    def all_reduce_max(self, value: int, device: torch.device) -> int:
        """Return the largest of the ranks' values."""
        if self.store is None:
            return value
        largest = torch.tensor(value, device=device)
        with _lost_rank_on_error():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def all_gather_json(self, value: Any) -> list[Any]:
        """Return each rank's JSON-able value, in the order of ranks."""
        if self.store is None:
            return [value]
        text, device = json.dumps(value).encode(), self.device()
        padded = text.ljust(self.all_reduce_max(len(text), device))  # spaces behind a value are JSON too
        mine = torch.frombuffer(bytearray(padded), dtype=torch.uint8).to(device)
        parts = [torch.empty_like(mine) for _ in range(self.world_size)]
        with _lost_rank_on_error():
            dist.all_gather(parts, mine)
        return [json.loads(part.cpu().numpy().tobytes()) for part in parts]

    def broadcast_json(self, value: Any) -> Any:
        """Return the first rank's JSON-able value on every rank."""
        return self.all_gather_json(value if self.rank == 0 else None)[0]

    def confirm_failure(self, name: str) -> None:
        """Wait until ``name`` has failed on every rank as it has on this one; use each ``name`` once.

        Raises:
            LostRank: it has not failed everywhere: the others continue without this rank, or are gone.
        """
        if self.store is None:
            return
        end = time.monotonic() + SAME_FAILURE_SECONDS
        with _lost_rank_on_error():
            self.store.add(name, 1)
            while self.store.add(name, 0) < self.world_size:
                if time.monotonic() > end:
                    raise LostRank(f"{name} failed in process {self.rank}, but not in every other")
                time.sleep(0.05)


ONE_RANK = Ranks()


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the other ranks of this job: RANK, WORLD_SIZE and either KD_RENDEZVOUS or torchrun's variables are set.

    Without WORLD_SIZE, or with 1, this is a single process.

    Raises:
        LostRank: the others did not come in time, or somebody else came.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        yield ONE_RANK
        return
    with _lost_rank_on_error():
        store = _open_store(rank, world)
        _init_process_group(store, rank, world)
    try:
        yield (ranks := Ranks(rank, world, dist.PrefixStore("harness", store)))
        for function in ranks.at_end:
            function()
    finally:
        dist.destroy_process_group()


def _open_store(rank: int, world: int) -> dist.Store:
    if path := os.environ.get(rendezvous.FILE):
        store: dist.Store = dist.FileStore(path, world)
        store.set_timeout(TIMEOUT)
        return store
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, world, is_master=rank == 0, timeout=TIMEOUT)


def _init_process_group(store: dist.Store, rank: int, world: int) -> None:
    # Its functions have the group that exists when it is imported as a default argument: that would keep the group, and
    # gloo's threads, to the interpreter's end. torch's compiler imports it.
    importlib.import_module("torch.distributed.nn.functional")
    backend, before = "nccl" if torch.cuda.is_available() else "gloo", peers.open_files()
    dist.init_process_group(backend, store=dist.PrefixStore("torch", store), rank=rank, world_size=world,
                            timeout=TIMEOUT)  # fmt: skip
    if backend == "gloo" and rendezvous.FILE in os.environ:
        if rank == 0:
            store.set("secret", os.urandom(32).hex())
        peers.confirm_peers(store.get("secret"))
        peers.ignore_strangers(peers.open_files() - before)


@contextmanager
def _lost_rank_on_error() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as e:  # torch raises these plain errors when another process is gone
        raise LostRank(f"the processes of this job have lost each other: {e}") from e


class _AllGather(torch.autograd.Function):
    """All-gather of rows in rank order; backward keeps the gradient of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, ranks: Ranks, count: int, part: BatchPart) -> Tensor:
        sizes = [len(range(count)[Ranks(r, ranks.world_size).rows(count, part)]) for r in range(ranks.world_size)]
        ctx.rows = slice(sum(sizes[: ranks.rank]), sum(sizes[: ranks.rank + 1]))
        padded = mine.new_zeros((max(sizes), *mine.shape[1:]))
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in sizes]
        with _lost_rank_on_error():
            dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return gradients[0][ctx.rows], None, None, None

"""A pack: runs of one pair and seed that are trained together, so that they share data loading and the teacher.

Members never influence each other: each has its own weights, optimiser and random numbers, and takes part in exactly
the epochs that it has not finished yet. A member that fails or diverges leaves; the others continue.

Epochs of the main stage are 0, 1, ... for every method. Those of a first stage end with -1. They have an order and
augmentation of their own, so the main stage is the same with and without them.
"""

import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from harness.data.load.loader import EvalSet, Loader
from harness.phrases import some
from harness.training.cuda.graph import Capture
from harness.training.cuda.memory import MemoryBudget
from harness.training.cuda.streams import Streams
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.fidelity import FidelityReference
from harness.training.member import Member
from harness.training.step import SharedForward, StepInputs, StepRunner
from harness.training.stopwatch import Stopwatch
from harness.training.teacher import Teacher
from harness.training.teacher_logits import CachedLogits


class Observer(Protocol):
    """The receiver of a pack's progress."""

    def on_step(self, members: dict[str, Member], steps_per_epoch: int, share_costs: Callable[[], None]) -> None: ...
    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None: ...
    def on_failure(self, run_id: str, error: BaseException, details: str) -> None: ...


@dataclass
class Pack:
    """Runs in training. Members may start at different epochs and steps."""

    members: dict[str, Member]  # by run_id; a member leaves when it has finished
    loader: Loader
    evalset: EvalSet
    teacher: Teacher | None
    observer: Observer
    ranks: Ranks = ONE_RANK
    capture: Capture | None = None  # captures steps as graphs; None: they run eagerly
    cached_logits: CachedLogits | None = None  # the teacher's, for members that read nothing else of it
    memory: MemoryBudget | None = None  # shared with the other packs of a job; None: there are none
    make_stopwatch: Callable[[torch.device], Stopwatch] = Stopwatch
    fidelity: FidelityReference | None = None  # what finished runs are compared with; None: they are not

    def __post_init__(self) -> None:
        self._device = self.evalset.targets.device
        self._runners: dict[str, StepRunner] = {}  # by run_id; of members that have begun
        self._waiting: set[str] = set()  # members for which the memory was too small
        self._memory = self.memory or MemoryBudget(self._device)
        self._streams = Streams(self._device)
        self._forward = SharedForward(self.teacher, self.cached_logits, self.capture, self.loader.batch_size)

    def train(self) -> None:
        """Train every member to its last epoch."""
        for took_step in self.turns():
            if not took_step:
                self._memory.reset()

    def turns(self) -> Iterator[bool]:
        """Train every member to its last epoch. Yield True after each step, and False when no member is in training
        and those that are left need the memory to be reset."""
        while self.members:
            positions = {k: (m.history.epoch, m.steps) for k, m in self.members.items() if k not in self._waiting}
            if positions:
                first = min(positions.values())
                yield from self._train_epoch(*first, {k: self.members[k] for k, at in positions.items() if at == first})
            else:
                yield False
                self._waiting.clear()

    def _train_epoch(self, epoch: int, first_step: int, active: dict[str, Member]) -> Iterator[bool]:
        watch = self.make_stopwatch(self._device)
        steps = len(self.loader)
        for member in active.values():
            member.begin_epoch(steps)
        if self.cached_logits:
            self.cached_logits.begin(epoch, first_step, steps, self._device)
        batches = self.loader.epoch(epoch, first_step, partial(watch.part, "waiting", within="data"))
        for step in range(first_step, steps):
            with watch.part("data"):
                batch = next(batches)
            with watch.part("teacher"):
                inputs = self._forward(batch, step, list(active.values()))
            with watch.part("members"):
                versions = inputs.versions()
                for run_id in list(active):
                    if not self._fits(run_id):
                        del active[run_id]
                        continue
                    with self._failure_of(run_id, active):
                        replayed = self._step(run_id, inputs, epoch, epoch * steps + step)
                        if not replayed and versions != inputs.versions():
                            raise ValueError("the method changed its batch or the teacher's outputs in place")
                    if run_id not in active and versions != inputs.versions():
                        inputs = self._forward(next(self.loader.epoch(epoch, step)), step, list(active.values()))
                        versions = inputs.versions()
                self._streams.join()
            self.observer.on_step(active, steps, partial(share_costs, watch, active.values()))
            yield True
            if not active:
                return
        if self.cached_logits:
            self.cached_logits.end()
        share_costs(watch, active.values())
        for run_id, member in list(active.items()):
            with self._failure_of(run_id, active):
                self._end_epoch(run_id, member)

    def _fits(self, run_id: str) -> bool:
        """Return whether the member can train now; otherwise it waits until those in training have finished."""
        if run_id in self._runners or self._memory.fits_another():
            return True
        print(f"{run_id} waits for GPU memory; in training: {some(self._runners) or 'none'}", flush=True)
        self._waiting.add(run_id)
        return False

    def _step(self, run_id: str, inputs: StepInputs, epoch: int, step: int) -> bool:
        """Take a member's step; return whether it was a replay, see ``StepRunner.run``."""
        is_first = run_id not in self._runners
        if is_first:
            self._runners[run_id] = StepRunner(run_id, self.members[run_id], self._streams, self.capture)
        with self._memory.measure(run_id) if is_first else nullcontext():
            return self._runners[run_id].run(inputs, epoch, step)

    def _end_epoch(self, run_id: str, member: Member) -> None:
        member.end_epoch()
        recipe, history = member.recipe, member.history
        finished = history.epoch == recipe.last_epoch or history.diverged
        due = history.epoch > 0 and history.epoch % recipe.eval_every == 0  # a first stage trains no classifier
        if not history.diverged and (due or finished):
            member.evaluate(self.evalset, self.fidelity if finished else None)
        member.add_costs({})
        self.observer.on_epoch(run_id, member, finished)
        if finished:
            self._remove(run_id)

    def _remove(self, run_id: str) -> None:
        del self.members[run_id]
        self._runners.pop(run_id, None)

    @contextmanager
    def _failure_of(self, run_id: str, active: dict[str, Member]) -> Iterator[None]:
        """Treat an exception as this member's own failure: it leaves, the others continue."""
        try:
            yield
        except Exception as error:
            self.observer.on_failure(run_id, error, traceback.format_exc())
            self.ranks.confirm_failure(run_id)
            del active[run_id]
            self._remove(run_id)


def share_costs(watch: Stopwatch, members: Collection[Member]) -> None:
    """Add to each member's costs its share of the seconds that a pack has spent since the last call."""
    seconds = watch.take()
    teacher_readers = sum(m.teacher_taps is not None for m in members)
    own = [member.watch.take() for member in members]
    # In parallel streams, members slow each other down: what they measured adds up to more than the time spent.
    measured = sum(sum(parts.values()) for parts in own)
    scale = min(1.0, seconds.get("members", 0.0) / measured) if measured else 1.0
    for member, parts in zip(members, own, strict=True):
        costs = {part: seconds.get(part, 0.0) / len(own) for part in ("waiting", "data")}
        if member.teacher_taps is not None:
            costs["teacher"] = seconds.get("teacher", 0.0) / teacher_readers
        member.add_costs(costs | {part: spent * scale for part, spent in parts.items()})

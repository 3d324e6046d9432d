"""A pack: runs of one pair and seed trained side by side, so that one data pass and one teacher forward serve all.

Members never influence each other: each has its own weights, optimiser and random numbers, and takes part in exactly
the epochs it has not finished yet. One that fails or diverges leaves; the others go on.

Epochs of the main stage are 0, 1, ... for every method. Those of a stage before it end with -1: they have an order and
augmentation of their own, and leave the main stage's to what it is without them.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from harness.data import counter
from harness.data.resident import TrainLoader
from harness.training.evaluate import EvalSet
from harness.training.member import Member
from harness.training.ranks import ALONE, Ranks
from harness.training.stopwatch import Stopwatch
from harness.training.teacher import Teacher
from methods.base import Batch, Outputs, SampleRandom


class Observer(Protocol):
    """What is told of a pack's progress, by run_id."""

    def on_step(self, members: dict[str, Member], steps_per_epoch: int) -> None: ...
    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None: ...
    def on_failure(self, run_id: str, error: BaseException, details: str) -> None: ...


@dataclass
class Pack:
    members: dict[str, Member]  # by run_id; a member leaves when it has finished
    loader: TrainLoader
    evalset: EvalSet
    teacher: Teacher | None
    observer: Observer
    ranks: Ranks = ALONE

    def train(self) -> None:
        """Trains every member to its last epoch. Members may start at different epochs and steps."""
        while self.members:
            first = min((m.history.epoch, m.steps) for m in self.members.values())
            self._epoch(*first, {k: m for k, m in self.members.items() if (m.history.epoch, m.steps) == first})

    def _epoch(self, epoch: int, first_step: int, active: dict[str, Member]) -> None:
        device = self.evalset.targets.device
        watch = Stopwatch(device)
        precision = next(iter(active.values())).recipe.precision
        for member in active.values():
            member.begin_epoch()
        steps = len(self.loader)
        batches = self.loader.epoch(epoch, first_step)
        for step in range(first_step, steps):
            with watch.part("data"):
                images, targets, indices = next(batches)
            with watch.part("teacher"):
                teacher = self._teach(images, active, precision)
            for run_id, member in list(active.items()):
                at = epoch * steps + step
                random = SampleRandom(counter.key(member.seed, at, "method"), len(targets), device)
                # For what draws from torch's own random numbers, such as dropout.
                torch.manual_seed(counter.key(member.seed, at, "torch"))
                shared = [images, targets, indices, teacher.logits, teacher.embedding, *teacher.features.values()]
                before = [t._version for t in shared]
                with self._own_failure(run_id, active):
                    member.step(Batch(images, targets, indices, random, epoch + 1), teacher)
                    if before != [t._version for t in shared]:
                        raise ValueError("the method changed its batch or the teacher's outputs in place")
                if before != [t._version for t in shared]:
                    images, targets, indices = next(self.loader.epoch(epoch, step))
                    teacher = self._teach(images, active, precision)
            self.observer.on_step(active, steps)
        spent = watch.take()
        taught = sum(m.teacher_taps is not None for m in active.values())
        for run_id, member in list(active.items()):
            share = {"data": spent.get("data", 0.0) / len(active)}
            if member.teacher_taps is not None:
                share["teacher"] = spent.get("teacher", 0.0) / taught
            with self._own_failure(run_id, active):
                self._close_epoch(run_id, member, share)

    def _teach(self, images: Tensor, active: dict[str, Member], precision: str) -> Outputs:
        wanted = [m.teacher_taps for m in active.values() if m.teacher_taps is not None]
        if self.teacher is None or not wanted:
            return Outputs(images.new_empty(0), images.new_empty(0))
        return self.teacher(images, set().union(*wanted), precision)

    def _close_epoch(self, run_id: str, member: Member, shared_costs: dict[str, float]) -> None:
        member.add_costs(shared_costs)
        member.end_epoch()
        recipe, history = member.recipe, member.history
        finished = history.epoch == recipe.epochs or history.diverged
        due = history.epoch > 0 and history.epoch % recipe.eval_every == 0  # a first stage teaches no classifier
        if not history.diverged and (due or finished):
            member.evaluate(self.evalset)
        member.add_costs({})
        self.observer.on_epoch(run_id, member, finished)
        if finished:
            del self.members[run_id]

    @contextmanager
    def _own_failure(self, run_id: str, active: dict[str, Member]) -> Iterator[None]:
        """A member's own exception is its own failure: it leaves, the others go on."""
        try:
            yield
        except Exception as error:
            self.observer.on_failure(run_id, error, traceback.format_exc())
            self.ranks.fail_alike(run_id)
            del active[run_id], self.members[run_id]

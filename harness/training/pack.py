"""A pack: runs of one pair and seed trained side by side, so that one data pass and one teacher forward serve all.

Members never influence each other: each has its own weights, optimiser and random numbers, and takes part in exactly
the epochs it has not finished yet. One that fails or diverges leaves; the others go on.

Epochs of the main stage are 0, 1, ... for every method. Those of a stage before it end with -1: they have an order and
augmentation of their own, and leave the main stage's to what it is without them.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.data.load.loader import EvalSet, Loader
from harness.training.cuda.graph import Capture, CapturedStep, StaticInputs
from harness.training.cuda.memory import MemoryBudget
from harness.training.cuda.streams import Streams
from harness.training.distributed.ranks import ALONE, Ranks
from harness.training.member import Member
from harness.training.step import StepInputs, StepRunner
from harness.training.stopwatch import Stopwatch
from harness.training.teacher import Teacher
from harness.training.teacher_logits import CachedLogits
from methods.base import Outputs


class Observer(Protocol):
    """What is told of a pack's progress, by run_id."""

    def on_step(self, members: dict[str, Member], steps_per_epoch: int) -> None: ...
    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None: ...
    def on_failure(self, run_id: str, error: BaseException, details: str) -> None: ...


@dataclass
class Pack:
    members: dict[str, Member]  # by run_id; a member leaves when it has finished
    loader: Loader
    evalset: EvalSet
    teacher: Teacher | None
    observer: Observer
    ranks: Ranks = ALONE
    record: Capture | None = None  # how steps are recorded, to be played again; None: they are not
    logits: CachedLogits | None = None  # of the teacher, for members that read nothing else of it

    def __post_init__(self) -> None:
        device = self.evalset.targets.device
        self._lanes: dict[str, StepRunner] = {}  # of the members that are training
        self._waiting: set[str] = set()  # those that found no room beside them
        self._room = MemoryBudget() if device.type == "cuda" else None
        self._streams = Streams(device)
        self._slots = StaticInputs()
        self._taught = CapturedStep(self.record, "the teacher", lambda: None, lambda: None)
        self._teacher_outputs = Outputs(torch.empty(0), torch.empty(0))

    def train(self) -> None:
        """Trains every member to its last epoch. Members may start at different epochs and steps."""
        while self.members:
            here = {k: m for k, m in self.members.items() if k not in self._waiting}
            if here:
                first = min((m.history.epoch, m.steps) for m in here.values())
                self._epoch(*first, {k: m for k, m in here.items() if (m.history.epoch, m.steps) == first})
            else:
                self._waiting.clear()
                assert self._room
                self._room.clear()

    def _epoch(self, epoch: int, first_step: int, active: dict[str, Member]) -> None:
        watch = Stopwatch(self.evalset.targets.device)
        for member in active.values():
            member.begin_epoch()
        steps = len(self.loader)
        if self.logits:
            self.logits.begin(epoch, first_step, steps, self.evalset.targets.device)
        batches = self.loader.epoch(epoch, first_step)
        for step in range(first_step, steps):
            with watch.part("data"):
                batch = next(batches)
            with watch.part("teacher"):
                shared = self._share(batch, step, active)
            with watch.part("members"):
                for run_id in list(active):
                    if not self._has_room(run_id):
                        del active[run_id]
                        continue
                    before = shared.versions()
                    with self._own_failure(run_id, active):
                        self._step(run_id, shared, epoch, epoch * steps + step)
                        if before != shared.versions():
                            raise ValueError("the method changed its batch or the teacher's outputs in place")
                    if before != shared.versions():
                        shared = self._share(next(self.loader.epoch(epoch, step)), step, active)
                self._streams.join()
            self.observer.on_step(active, steps)
            if not active:
                return
        if self.logits:
            self.logits.end()
        self._close(watch.take(), active)

    def _share(self, batch: tuple[Tensor, Any, Tensor], step: int, active: dict[str, Member]) -> StepInputs:
        """The step's tensors, for full batches at the addresses that recorded steps read."""
        images, targets, indices = batch
        wanted = [m.teacher_taps for m in active.values() if m.teacher_taps is not None]
        taps = frozenset(tap for taps in wanted for tap in taps)
        precision = next((m.recipe.precision for m in active.values()), "float32")
        teacher = self.teacher if wanted else None

        def taught() -> Outputs:
            if teacher is None:
                return _nothing(images)
            if self.logits is None:
                return teacher(images, taps, precision, len(indices))
            kept = self.logits(step, indices, lambda: teacher(images, taps, precision, len(indices)).logits)
            return Outputs(kept, images.new_empty(0))

        if self.record is None or len(indices) < self.loader.batch_size:
            return StepInputs(images, targets, indices, taught(), None)

        placed = self._slots.load({"images": images, "targets": targets, "indices": indices})
        images = placed["images"]

        def run_teacher() -> None:
            self._teacher_outputs = taught()

        if self.logits:
            run_teacher()
        else:
            self._taught((teacher is None, taps, precision, images.data_ptr()), run_teacher)
        outputs = self._teacher_outputs
        heads = self._slots.load({"logits": outputs.logits, "embedding": outputs.embedding})
        maps = self._slots.load({f"tap {k}": v for k, v in outputs.features.items()})
        features = {k: maps[f"tap {k}"] for k in outputs.features}
        outputs = Outputs(heads["logits"], heads["embedding"], features)
        return StepInputs(images, placed["targets"], placed["indices"], outputs, self._slots.moved)

    def _has_room(self, run_id: str) -> bool:
        """Whether the member trains now; without room for it, it waits until those that train have finished."""
        if run_id in self._lanes or self._room is None or self._room.left():
            return True
        print(f"{run_id} waits: the GPU's memory is taken by {', '.join(self._lanes)}", flush=True)
        self._waiting.add(run_id)
        return False

    def _step(self, run_id: str, shared: StepInputs, epoch: int, at: int) -> None:
        if lane := self._lanes.get(run_id):
            lane.step(shared, epoch, at)
            return
        self._lanes[run_id] = StepRunner(run_id, self.members[run_id], self._streams, self.record)
        with self._room.measured(run_id) if self._room else nullcontext():
            self._lanes[run_id].step(shared, epoch, at)

    def _close(self, spent: dict[str, float], active: dict[str, Member]) -> None:
        """Closes the epoch of all, each with its share of the seconds spent."""
        taught = sum(m.teacher_taps is not None for m in active.values())
        own = {run_id: member.watch.take() for run_id, member in active.items()}
        # Side by side on a GPU, members slow each other down; their times together are those of all.
        together = sum(sum(seconds.values()) for seconds in own.values())
        scale = min(1.0, spent["members"] / together) if together else 1.0
        for run_id, member in list(active.items()):
            costs = {"data": spent.get("data", 0.0) / len(own)}
            if member.teacher_taps is not None:
                costs["teacher"] = spent.get("teacher", 0.0) / taught
            costs |= {part: seconds * scale for part, seconds in own[run_id].items()}
            with self._own_failure(run_id, active):
                self._close_epoch(run_id, member, costs)

    def _close_epoch(self, run_id: str, member: Member, costs: dict[str, float]) -> None:
        member.add_costs(costs)
        member.end_epoch()
        recipe, history = member.recipe, member.history
        finished = history.epoch == recipe.epochs or history.diverged
        due = history.epoch > 0 and history.epoch % recipe.eval_every == 0  # a first stage teaches no classifier
        if not history.diverged and (due or finished):
            member.evaluate(self.evalset)
        member.add_costs({})
        self.observer.on_epoch(run_id, member, finished)
        if finished:
            self._leave(run_id)

    def _leave(self, run_id: str) -> None:
        del self.members[run_id]
        self._lanes.pop(run_id, None)

    @contextmanager
    def _own_failure(self, run_id: str, active: dict[str, Member]) -> Iterator[None]:
        """A member's own exception is its own failure: it leaves, the others go on."""
        try:
            yield
        except Exception as error:
            self.observer.on_failure(run_id, error, traceback.format_exc())
            self.ranks.fail_alike(run_id)
            del active[run_id]
            self._leave(run_id)


def _nothing(images: Tensor) -> Outputs:
    """What members are given that have no use for a teacher."""
    return Outputs(images.new_empty(0), images.new_empty(0))

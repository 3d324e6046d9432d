"""The timing of packs: the harness's own training of random images, for about a second of steps that are timed."""

import gc
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.card import synchronise
from benchmarks.perf.cifar import Silent, science
from harness.data.load.loader import Waiting
from harness.data.load.tensors import Normalise, TensorEvalSet, TensorLoader
from harness.spec.tasks import DATASETS
from harness.training.cuda.graph import Work, capture_cuda_graph
from harness.training.member import Member
from harness.training.pack import Pack
from harness.training.precision import set_float32
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher, freeze

INFO = DATASETS["cifar100"]
WARM_UP, PACED, TIMED, LAST = range(4)  # the epochs of a timing; the last is evaluated
Hook = Callable[[], object]


@dataclass(frozen=True)
class Pair:
    teacher: str
    student: str

    def __str__(self) -> str:
        return f"{self.teacher} -> {self.student}"


@dataclass(frozen=True)
class Scale:
    """The lengths of a timing."""

    batch: int = 64
    paced_steps: int = 15  # whose pace decides how many are timed
    seconds: float = 1.2  # of the timed steps
    least_steps: int = 20
    images: int = INFO.train_size or 0
    evaluated: int = INFO.test_size or 0  # images

    def timed_steps(self, pace: float, most: int) -> int:
        """Return the number of steps to time, at ``pace`` seconds per step."""
        return max(1, min(most, max(self.least_steps, round(self.seconds / max(pace, 1e-6)))))


@dataclass(frozen=True)
class Pace:
    """The pace of a pack, and what it took."""

    step: float  # seconds
    steps: int  # that were timed
    memory: int  # bytes that it reserved on the device: all members, the teacher and the images
    graphs: int  # that were captured: one for each member and for the teacher, unless a step cannot be captured
    parts: dict[str, float]  # milliseconds per step by the harness's own stopwatch
    evaluation: float  # seconds, of one student on as many images as the test set has


class EpochsOfGivenLength:
    """A loader whose epochs have the lengths that `steps` names when they begin."""

    def __init__(self, loader: Any, steps: int) -> None:
        self._loader, self.steps, self.batch_size = loader, steps, loader.batch_size

    def __len__(self) -> int:
        return self.steps

    def epoch(
        self, epoch: int, first_step: int = 0, waiting: Waiting = nullcontext
    ) -> Generator[tuple[Tensor, Any, Tensor], None, None]:
        yield from islice(self._loader.epoch(epoch, first_step, waiting), self.steps - first_step)


class Observer(Silent):
    """An observer that notes when epochs end, sets the next one's length, and sees members that wait for memory."""

    def __init__(self, loader: EpochsOfGivenLength, members: int, scale: Scale, most: int, begin: Hook, end: Hook):
        self.loader, self.members, self.scale, self.most = loader, members, scale, most
        self.begin, self.end = begin, end
        self.began = 0.0
        self.step = 0.0  # seconds, of the timed epoch
        self.timed = 0
        self._ended = Counter[int]()

    def on_step(self, members: dict[str, Member], steps_per_epoch: int, share_costs: Callable[[], None]) -> None:
        """Refuse to time a pack that is not whole.

        Raises:
            RuntimeError: some members do not fit into the memory.
        """
        if len(members) < self.members:
            raise RuntimeError(f"only {len(members)} of {self.members} members fit into the memory")

    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None:
        epoch = member.history.epoch - 1
        self._ended[epoch] += 1
        if self._ended[epoch] < self.members:
            return
        now = time.perf_counter()  # the device has done its work: the epoch's losses have been read
        seconds = (now - self.began) / len(self.loader)
        if epoch == TIMED:
            self.end()
            self.step, self.timed = seconds, len(self.loader)
        self.loader.steps = {WARM_UP: self.scale.paced_steps, PACED: self.scale.timed_steps(seconds, self.most)}.get(
            epoch, 1
        )
        if epoch == PACED:
            self.begin()
        self.began = time.perf_counter()


def time_pack(
    loader: Any, teacher: nn.Module, pair: Pair, methods: Sequence[str], precision: str, scale: Scale, most: int,
    targets: Tensor, task: Classification, evaluated: TensorEvalSet, graphs: bool = True, compiled: bool = False,
    begin: Hook = lambda: None, end: Hook = lambda: None,
) -> Pace:  # fmt: skip
    """Train a pack on a loader's batches; ``begin`` and ``end`` are called around the timed epoch of at most ``most``
    steps.

    Raises:
        RuntimeError: the members do not fit into the memory together.
    """
    device = targets.device
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    held = reserved(device)
    set_float32(precision)
    spec = task.describe(teacher)
    freeze(teacher, device)
    shared = Teacher(teacher, pair.teacher, Path(), "", 0.0, spec)
    shared.prepare(precision, scale.batch if compiled else None)
    members = {}
    for i, method in enumerate(methods):
        recipe: dict[str, Any] = {
            "precision": precision,
            "batch_size": scale.batch,
            "epochs": LAST + 1,
            "eval_every": LAST + 1,
        }
        run = science(method, pair.teacher, pair.student, **recipe)
        members[f"{method} {i}"] = Member(run, shared, targets, task, device)
    captured = 0

    def capture(work: Work, generator: torch.Generator | None) -> Work:
        nonlocal captured
        replay = capture_cuda_graph(work, generator) if device.type == "cuda" else work
        captured += 1
        return replay

    timed = EpochsOfGivenLength(loader, 4)  # eager, captured, replayed
    observer = Observer(timed, len(members), scale, most, begin, end)
    trained = list(members.values())
    few = TensorEvalSet("test", evaluated.images[:2], evaluated.targets[:2], evaluated.normalise)
    pack = Pack(members, timed, few, shared, observer, capture=capture if graphs else None)
    pack.train()
    spent = Counter[str]()
    for member in trained:
        spent.update(member.history.costs)
    steps = 5 + scale.paced_steps + observer.timed
    return Pace(
        observer.step, observer.timed, reserved(device) - held, captured,
        {part: round(1000 * s / steps, 4) for part, s in spent.items() if part != "evaluation"},
        _evaluation(trained[0], evaluated, precision),
    )  # fmt: skip


def reserved(device: torch.device) -> int:
    """Return the bytes that were reserved on a GPU at most; 0 on a CPU."""
    return torch.cuda.max_memory_reserved() if device.type == "cuda" else 0


def _evaluation(member: Member, on: TensorEvalSet, precision: str) -> float:
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        member.task.evaluate(member.student, on, precision)
        synchronise(on.targets.device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


class CifarTrainer:
    """Packs on random images of CIFAR-100's shape and number, which take as long as real ones."""

    def __init__(self, scale: Scale, device: torch.device):
        assert INFO.image_shape
        generator = torch.Generator().manual_seed(0)
        shape = (scale.images, *INFO.image_shape)
        self.pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
        self.targets = (torch.arange(scale.images) % INFO.classes).to(device)
        self.scale, self.normalise = scale, Normalise(INFO, device)
        self.task = Classification(INFO.classes, INFO.image_shape)
        self.loader = TensorLoader(
            self.pixels, self.targets, self.normalise, batch_size=scale.batch, crop_padding=4, flip=True, seed=0
        )

    def time(self, pair: Pair, methods: Sequence[str], precision: str, **options: Any) -> Pace:
        """Return the pace of a pack of these methods, see ``time_pack``."""
        torch.manual_seed(0)
        count = self.scale.evaluated
        on = TensorEvalSet("test", self.pixels[:count], self.targets[:count], self.normalise)
        options = {"most": len(self.loader) - 1, **options}  # full batches
        return time_pack(
            self.loader, self.task.build(pair.teacher), pair, methods, precision, self.scale, targets=self.targets,
            task=self.task, evaluated=on, **options,
        )  # fmt: skip

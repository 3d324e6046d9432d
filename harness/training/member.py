"""One run in training: a student, its distiller, their optimiser, and what has been measured so far."""

import importlib
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import rng
from harness.data.load.loader import EvalSet
from harness.models.checkpoints import load_weights
from harness.models.taps import ConvNet
from harness.spec import methods as method_sources
from harness.spec.lr_schedule import learning_rate, warmup
from harness.spec.schema import Recipe
from harness.training.distributed.ranks import ALONE, Part, Ranks
from harness.training.distributed.sync_batchnorm import sync_batch_norms
from harness.training.ema import EMA
from harness.training.engines.native import MakeEngine, NativeEngine
from harness.training.microbatches import micro_batches
from harness.training.outputs import gathered, in_float32
from harness.training.precision import autocast
from harness.training.stopwatch import Stopwatch
from harness.training.tasks import Task, open_task
from harness.training.teacher import Teacher
from methods.base import Batch, Distiller, FirstStage, Outputs, TapSpec

Metrics = dict[str, float | None]


@dataclass
class History:
    """What a record needs besides weights; JSON-able, so that it travels in checkpoints."""

    epoch: int = 0  # epochs of the main stage finished; before it, minus the first stage's that are left
    curves: list[tuple[int, str, float]] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)
    last: Metrics | None = None
    best: Metrics | None = None
    best_epoch: int | None = None
    diverged: bool = False
    warnings: list[str] = field(default_factory=list)  # the method's, of the last epoch

    def add(self, metrics: Metrics, score: str, evaluated_on: str) -> None:
        """Notes an evaluation after ``epoch`` epochs; the first of equally good epochs, by ``score``, is the best."""
        self.last = metrics
        self.curves += [(self.epoch, f"{evaluated_on}_{k}", v) for k, v in metrics.items() if v is not None]
        if self.best is None or _score(metrics, score) > _score(self.best, score):
            self.best, self.best_epoch = metrics, self.epoch


class Member:
    """A run being trained. Its numbers depend on its science alone, not on what it shares a process with.

    Students of one seed start from the same weights whatever the method (paired design).
    """

    def __init__(
        self,
        science: dict[str, Any],
        teacher: Teacher | None,
        train_targets: Tensor,
        task: Task,
        device: torch.device,
        ranks: Ranks = ALONE,
        engine: MakeEngine = NativeEngine,
    ):
        """Raises whatever the method's constructor raises for settings it cannot use."""
        self.science, self.task, self.device, self.ranks = science, task, device, ranks
        self._seen = ranks if task.whole_batch else ALONE  # the processes whose images losses and methods see
        self.seed: int = science["seed"]
        self.recipe = Recipe.model_validate(science["recipe"])
        self.weights: dict[str, float] = science["method"]["weights"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.stream_key(self.seed, 0, f"student {science['student']}"))
            self.student = task.build(science["student"])
            task.start(self.student, science["student"])
            spec = task.describe(self.student)
            torch.manual_seed(rng.stream_key(self.seed, 0, "method"))
            self.distiller = build_distiller(science["method"], spec, teacher.spec if teacher else spec)
            self.distiller.setup(train_targets)
            self._first = self.distiller.first_stage or FirstStage(0)
            offered = teacher.spec if teacher else None
            self._main_taps = known_taps(task.teacher_taps(self.distiller), offered)
            self._first_taps = known_taps(self._first.teacher_taps, offered)
            self.peer: nn.Module | None = None
            if self.distiller.peer is not None:
                assert teacher is not None, "a method whose teacher learns needs one"
                torch.manual_seed(rng.stream_key(self.seed, 0, "peer"))
                self.peer = task.build(teacher.name)
                if self.distiller.peer == "teacher":
                    task.load(self.peer, teacher.name, teacher.file, teacher.sha256)
        for net in self.networks:
            if ranks.world > 1:
                sync_batch_norms(net, ranks)
            net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        if self._seen.world < ranks.world:
            sync_batch_norms(self.distiller, ranks)
        self.distiller.to(device).train()
        trained = [self.student, self.distiller, *self.networks[1:]]
        self.parameters = [p for m in trained for p in m.parameters() if p.requires_grad]
        if self._seen.world > 1:
            # Engines sum gradients over the processes. The student's come from each one's own images; the method's are
            # those of the whole batch already.
            for p in self.distiller.parameters():
                if p.requires_grad:
                    p.register_hook(lambda gradient: gradient / ranks.world)
        self.average = EMA(self.student, self.recipe.ema) if self.recipe.ema else None
        self.engine = engine(self.parameters, self.recipe, ranks)
        self.lr = self.recipe.lr
        self.history = History(epoch=-self._first.epochs)
        self.predictions: bytes | None = None  # of the last evaluation
        self.watch = Stopwatch(device)
        self.steps = 0  # done of the epoch that is running
        self._sums: dict[str, Tensor] = {}
        self._images = 0

    @property
    def in_first_stage(self) -> bool:
        return self.history.epoch < 0

    @property
    def networks(self) -> list[nn.Module]:
        """The student, and the teacher that learns with it where there is one."""
        return [self.student] if self.peer is None else [self.student, self.peer]

    @property
    def evaluated(self) -> nn.Module:
        """The trained model."""
        student = self.average.model if self.average else self.student
        return WithMethod(student, self.distiller) if self.distiller.part_of_model else student

    @property
    def first_epochs(self) -> int:
        """Epochs of the stage before the main one; 0 for most methods."""
        return self._first.epochs

    @property
    def teacher_taps(self) -> set[str] | None:
        """The shared teacher's maps that are read now; None where it need not run at all."""
        if self.in_first_stage:
            return self._first_taps
        reads = self.distiller.needs_teacher and self._first.teacher_later and self.peer is None
        return self._main_taps if reads else None

    @property
    def settings(self) -> tuple[bool, float]:
        """What of ``compute`` changes only between epochs: the stage and the learning rate."""
        return self.in_first_stage, self.lr

    def begin_epoch(self) -> None:
        self._epoch_lr = self.lr = (
            (self._first.lr or self.recipe.lr)
            if self.in_first_stage
            else learning_rate(self.recipe, self.history.epoch)
        )

    def begin_step(self, at: int) -> None:
        """``at``: which of all steps of the main stage, counted from 0; those of a stage before it are negative."""
        self.lr = self._epoch_lr * warmup(self.recipe, at)

    def step(self, batch: Batch, teacher: Outputs) -> Tensor:
        """One optimiser step; the total loss, detached."""
        total = self.compute(batch, teacher, len(batch.indices))
        self.count(len(batch.indices))
        return total

    def compute(self, batch: Batch, teacher: Outputs, count: int) -> Tensor:
        """What the device does in a step, with a batch of ``count`` images in all processes; the total loss, detached.
        Nothing here waits for the device, and from the second time on nothing changes but the values of tensors, so
        that it can be recorded as a graph."""
        totals = [
            self._compute_part(part, count, micro_batch, taught)
            for part, micro_batch, taught in micro_batches(batch, teacher, self.recipe.accumulate, self._seen)
        ]
        with self.watch.part("student"):
            self.engine.step(self.lr)
            if self._seen.world < self.ranks.world:
                self._share_buffers(len(batch.indices) / count)
            if self.average:
                self.average.update()
        return torch.stack(totals).sum()

    def _compute_part(self, part: Part, count: int, batch: Batch, teacher: Outputs) -> Tensor:
        """The gradients of a part of a batch of ``count`` images; what it adds to the total loss, detached."""
        student = self._run_student(batch, count, part)
        if self.peer is not None:
            with self.watch.part("teacher"):
                teacher = self._run(self.peer, batch, self._main_taps, count, part)
        with self.watch.part("method"):
            own: dict[str, Tensor] = {}
            if self.in_first_stage:
                terms = dict(self.distiller.first_terms(batch, student, teacher))
                total = torch.stack(list(terms.values())).sum()
            else:
                own = self.task.losses(student, batch, self.recipe)
                met, taught = self.task.meet(self.distiller, batch, student, teacher)
                terms = {"ce": own["ce"], **self.distiller(met, student, taught)}
                if not self._images:
                    self._check_terms(terms)
                total = torch.stack([weight * terms[name] for name, weight in self.weights.items() if weight]).sum()
            of_batch = total * (len(batch.indices) / count)
        with self.watch.part("student"):
            self.engine.backward(of_batch, last=part.index + 1 == part.of)
        self._note({**own, **terms, "total": total}, len(batch.indices))
        return of_batch.detach()

    def count(self, images: int) -> None:
        """What the host notes of a step with so many images."""
        self._images += images
        self.steps += 1

    def end_epoch(self) -> None:
        """Closes the epoch's curves. A loss that is not finite marks the run as diverged."""
        curve = "first" if self.in_first_stage else "train"
        self.history.epoch += 1
        means = {k: float(s) / self._images for k, s in self._sums.items()}
        self.history.curves += [(self.history.epoch, f"{curve}_{k}", v) for k, v in means.items()]
        self.history.diverged = not all(map(_finite, means.values()))
        self.steps, self._images = 0, 0
        for s in self._sums.values():  # which stay where a recorded step adds to them
            s.zero_()
        if self.history.epoch > 0 and not self.history.diverged:
            self.history.warnings = list(self.distiller.warnings(means))
        if self.history.epoch == 0:
            self._sums = {}
            self.engine.restart()
            if self.average:
                self.average.restart()

    def evaluate(self, on: EvalSet) -> None:
        """Notes how good the trained model is now."""
        with self.watch.part("evaluation"):
            found = self.task.evaluate(self.evaluated, on, self.recipe.precision, self.ranks)
            score = self.task.info.score
            if self.peer is not None:
                peers = self.task.evaluate(self.peer, on, self.recipe.precision, self.ranks).metrics
                self.history.curves.append((self.history.epoch, f"{on.name}_peer_{score}", _score(peers, score)))
        self.history.add(found.metrics, score, on.name)
        self.predictions = found.predictions

    def weights_to_keep(self) -> dict[str, Tensor]:
        """The tensors of the trained model: the student's under its own names, or, where the method is part of the
        model, ``student.*`` and ``method.*``."""
        return self.evaluated.state_dict()

    def add_costs(self, shared: dict[str, float]) -> None:
        """Adds the seconds spent since the last call, and this member's share of what the pack did for all. Called
        before an epoch is closed, so that those of the first stage are told apart."""
        for name, seconds in (*shared.items(), *self.watch.take().items()):
            part = "first_stage" if self.in_first_stage else name
            self.history.costs[part] = self.history.costs.get(part, 0.0) + seconds

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changes, by name. All processes call it together."""
        return {
            **{f"student.{k}": v for k, v in self.student.state_dict().items()},
            **{f"method.{k}": v for k, v in self.distiller.state_dict().items()},
            **({f"peer.{k}": v for k, v in self.peer.state_dict().items()} if self.peer is not None else {}),
            **({f"average.{k}": v for k, v in self.average.model.state_dict().items()} if self.average else {}),
            **{f"momentum.{i}": m for i, m in self.engine.momenta().items()},
        }

    def state(self) -> dict[str, Any]:
        """What ``tensors`` does not hold, JSON-able: with it, a run continues at the very step it had reached."""
        self.add_costs({})
        sums = [(k, float(v)) for k, v in self._sums.items()]  # a list: their order is that of the curves
        return {"history": asdict(self.history), "steps": self.steps, "sums": sums, "images": self._images}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continues from what ``tensors()`` and ``state()`` gave."""
        parts: dict[str, dict[str, Tensor]] = {"student": {}, "method": {}, "peer": {}, "average": {}, "momentum": {}}
        for name, tensor in tensors.items():
            part, _, key = name.partition(".")
            parts[part][key] = tensor
        self.student.load_state_dict(parts["student"])
        self.distiller.load_state_dict(parts["method"])
        if self.peer is not None:
            self.peer.load_state_dict(parts["peer"])
        if self.average:
            self.average.model.load_state_dict(parts["average"])
        self.engine.restore({int(i): momentum for i, momentum in parts["momentum"].items()})
        self.history = History(**state["history"])
        self.steps, self._images = state["steps"], state["images"]
        self._sums = {k: torch.tensor(v, dtype=torch.float64, device=self.device) for k, v in state["sums"]}

    def forget_gradients(self) -> None:
        """After a step that was not finished."""
        for p in self.parameters:
            p.grad = None

    def _run_student(self, batch: Batch, count: int, part: Part) -> Outputs:
        """Of a part of the batch; in the first stage its maps alone."""
        with self.watch.part("student"):
            if not self.in_first_stage:
                return self._run(self.student, batch, self.distiller.student_taps, count, part)
            assert isinstance(self.student, ConvNet), "methods with a first stage are for classifiers"
            nothing = batch.images.new_empty(0)
            with autocast(self.device, self.recipe.precision):
                outputs = Outputs(nothing, nothing, self.student.maps(batch.images, self._first.student_taps))
            return gathered(in_float32(outputs), self._seen, count, part)

    def _run(self, net: nn.Module, batch: Batch, taps: Collection[str], count: int, part: Part) -> Outputs:
        """Of a part of a batch of ``count`` images, whichever of them this process has."""
        with autocast(self.device, self.recipe.precision):
            outputs = self.task.run(net, batch, taps)
        return gathered(in_float32(outputs), self._seen, count, part)

    def _share_buffers(self, weight: float) -> None:
        """A method that sees one process's images alone keeps the mean of what the processes have found."""
        buffers = [b for b in self.distiller.buffers() if b.is_floating_point()]
        for buffer in buffers:
            buffer *= weight
        if buffers:
            self.ranks.sum(buffers)

    def _check_terms(self, terms: dict[str, Tensor]) -> None:
        name, expected = type(self.distiller).__name__, {*self.weights, *self.distiller.diagnostics}
        if extra := sorted(set(terms) - expected):
            raise ValueError(f"{name}.forward returned {extra}, which are neither in its weights nor its diagnostics")
        if missing := sorted(expected - set(terms)):
            raise ValueError(f"{name}.forward did not return {missing}, which its weights or diagnostics name")

    def _note(self, terms: dict[str, Tensor], images: int) -> None:
        values = {k: v.detach().double().to(self.device) * images for k, v in terms.items()}
        if self._seen.world < self.ranks.world:
            self.ranks.sum(values.values())
        for name, value in values.items():
            if name in self._sums:
                self._sums[name] += value
            else:
                self._sums[name] = value


class WithMethod(nn.Module):
    """A student together with the method that is part of the trained model."""

    def __init__(self, student: nn.Module, distiller: Distiller):
        super().__init__()
        self.student, self.method = student, distiller

    def forward(self, images: Tensor) -> Outputs:
        found = in_float32(self.student(images, self.method.student_taps))
        return Outputs(self.method.predict(found), found.embedding)


def build_distiller(method: dict[str, Any], student: TapSpec, teacher: TapSpec) -> Distiller:
    """The method that a science dict names, with its hyper-parameters."""
    return method_class(method["use"])(student, teacher, **method["params"])


def method_class(name: str) -> type[Distiller]:
    """A built-in method, or a user's own by ``package.module:Class``."""
    module, _, class_name = method_sources.describe_method(name).target.partition(":")
    if ":" in name:
        method_sources.add_current_folder_to_path()
    found: type[Distiller] = getattr(importlib.import_module(module), class_name)
    return found


def trained_model(science: dict[str, Any], file: Path, sha256: str | None) -> nn.Module:
    """What a finished run has left in ``file``: its student, with the method where that is part of the model.

    Raises:
        BadWeights: the file is not what the run wrote.
    """
    task = open_task(science)
    student = task.build(science["student"])
    model: nn.Module = student
    if method_class(science["method"]["use"]).part_of_model:
        specs = task.describe(student), task.describe(task.build(science["teacher"]["model"]))
        model = WithMethod(student, build_distiller(science["method"], *specs))
    load_weights(model, f"{science['student']} trained with {science['method']['use']}", file, sha256)
    return model


def known_taps(taps: Collection[str], teacher: TapSpec | None) -> set[str]:
    """The teacher's maps that a method or its first stage reads. Asked for once, before anything is shared with other
    runs.

    Raises:
        ValueError: the teacher has no such map.
    """
    if teacher is None:
        return set()
    if unknown := sorted(set(taps) - set(teacher.names)):
        raise ValueError(f"the teacher has no tap named {unknown[0]!r}; it has: {teacher.listed}")
    return set(taps)


def _score(metrics: Metrics, score: str) -> float:
    """By which results are ranked: one that could not be measured is the worst."""
    value = metrics[score]
    return -math.inf if value is None else value


def _finite(x: float) -> bool:
    return abs(x) < float("inf")

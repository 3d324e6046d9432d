"""A run in training: its networks, method, optimiser and state. ``harness.training.step`` takes its steps."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness import rng
from harness.data.load.loader import EvalSet
from harness.models.drop_path import build_with_drop_path
from harness.spec.lr_schedule import learning_rate, warmup
from harness.spec.science import Science
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.distributed.sync_batchnorm import sync_batch_norms
from harness.training.ema import EMA
from harness.training.engines.base import STATE_NAMES, MakeEngine, Rate
from harness.training.engines.native import NativeEngine
from harness.training.fidelity import FidelityReference
from harness.training.frozen_parts import freeze_parts, remove_head_bias, set_frozen_to_eval
from harness.training.parameter_groups import parameter_groups
from harness.training.stopwatch import Stopwatch
from harness.training.tasks import Task
from harness.training.teacher import Teacher
from harness.training.trained_model import StudentWithMethod, build_distiller
from methods.base import FirstStage, TapSpec

Metrics = dict[str, float | None]


@dataclass
class History:
    """A run's progress and results, JSON-able for checkpoints: what its record needs besides weights."""

    epoch: int = 0  # finished epochs of the main stage; before it, minus the remaining epochs of the first stage
    curves: list[tuple[int, str, float]] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)
    last: Metrics | None = None
    best: Metrics | None = None
    best_epoch: int | None = None
    diverged: bool = False
    warnings: list[str] = field(default_factory=list)  # from the method, on the last epoch

    def add(self, metrics: Metrics, score: str, evaluated_on: str) -> None:
        """Add an evaluation of the current epoch. Of epochs with equal ``score`` the first is the best."""
        self.last = metrics
        self.curves += [(self.epoch, f"{evaluated_on}_{k}", v) for k, v in metrics.items() if v is not None]
        if self.best is None or _score(metrics, score) > _score(self.best, score):
            self.best, self.best_epoch = metrics, self.epoch


class Member:
    """A run in training. Its numbers depend only on its science, not on the other runs in its process.

    Students of one seed start from the same weights, whatever the method (paired design).
    """

    def __init__(
        self,
        science: Science,
        teacher: Teacher | None,
        train_targets: Tensor,
        task: Task,
        device: torch.device,
        ranks: Ranks = ONE_RANK,
        engine: MakeEngine = NativeEngine,
    ):
        """Build the networks, the method and the engine.

        Raises whatever the method's constructor raises for settings it cannot use.
        """
        self.science, self.task, self.device, self.ranks = science, task, device, ranks
        self.loss_ranks = ranks if task.whole_batch else ONE_RANK  # the ranks whose images losses and methods see
        self.seed = science.seed
        self.recipe = science.recipe
        self.loss_weights = science.method.weights
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.stream_key(self.seed, 0, f"student {science.student}"))
            self.student = build_with_drop_path(task.build, science.student, self.recipe.drop_path)
            self.start_note = task.start(self.student, science.student)
            freeze_parts(self.student, science.student, self.recipe.freeze)
            spec = task.describe(self.student)
            torch.manual_seed(rng.stream_key(self.seed, 0, "method"))
            self.distiller = build_distiller(science.method, spec, teacher.spec if teacher else spec)
            if self.distiller.student_without_bias:
                remove_head_bias(self.student)
            self.distiller.setup(train_targets)
            self.first_stage = self.distiller.first_stage or FirstStage(0)
            offered = teacher.spec if teacher else None
            self.main_taps = known_taps(task.teacher_taps(self.distiller), offered)
            self._first_stage_taps = known_taps(self.first_stage.teacher_taps, offered)
            self.teacher_view_taps = known_taps(self.distiller.teacher_view_taps, offered)
            self.peer: nn.Module | None = None
            if self.distiller.peer is not None:
                assert teacher is not None, "a method whose teacher learns needs one"
                torch.manual_seed(rng.stream_key(self.seed, 0, "peer"))
                self.peer = task.build(teacher.name)
                if self.distiller.peer == "teacher":
                    task.load(self.peer, teacher.name, teacher.file, teacher.sha256, teacher.place)
                    self.peer.renormalisation = teacher.model.renormalisation
                task.describe(self.peer)  # which notes where its head is, as in the teacher
        for net in self.networks:
            if ranks.world_size > 1:
                sync_batch_norms(net, ranks)
            net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        if self.recipe.freeze:
            set_frozen_to_eval(self.student)
        if self.has_local_loss:
            sync_batch_norms(self.distiller, ranks)
        self.distiller.to(device).train()
        trained = [self.student, self.distiller, *self.networks[1:]]
        self.parameters = [p for m in trained for p in m.parameters() if p.requires_grad]
        if self.loss_ranks.world_size > 1:
            # Engines sum gradients over the ranks. A network's come from the rank's own images, but a method's are
            # already those of the whole batch.
            for p in self.distiller.parameters():
                if p.requires_grad:
                    p.register_hook(lambda gradient: gradient / ranks.world_size)
        self.ema = EMA(self.student, self.recipe.ema) if self.recipe.ema else None
        groups = parameter_groups(self.student, science.student, self.recipe, self.parameters)
        self.engine = engine(self.parameters, self.recipe, ranks, groups)
        # A captured step bakes in a number, but reads a tensor, of which it bakes in the address. By epoch it stays a
        # number, as GPUs round a tensor to float32: earlier runs resume bit for bit.
        per_step = self.recipe.schedule_by == "step" and ranks.world_size == 1
        self.lr: Rate = torch.zeros((), device=device) if per_step else self.recipe.lr
        self.last_lr = self.recipe.lr  # of the step that was begun last
        self._epoch_steps = 1  # of the epoch in training
        self.history = History(epoch=-self.first_stage.epochs)
        self.predictions: bytes | None = None  # from the last evaluation
        self.fidelity: Metrics = {}  # of the finished model, by columns of its record
        self.keeps_best = False  # whether the best epoch's weights are kept
        self.best_weights: dict[str, Tensor] | None = None  # the trained model's, of ``history.best_epoch``
        self.watch = Stopwatch(device)
        self.steps = 0  # finished steps of the current epoch
        self._images = 0  # seen in the current epoch, by all ranks
        self._loss_sums: dict[str, Tensor] = {}  # term -> its sum over these images

    @property
    def in_first_stage(self) -> bool:
        return self.history.epoch < 0

    @property
    def is_fresh(self) -> bool:
        """Return whether no step has been taken yet."""
        return self.steps == 0 and self.history.epoch == -self.first_stage.epochs

    @property
    def views(self) -> tuple[str, ...]:
        """The further views of images that the current stage reads."""
        read = self.recipe.views or {}  # of the method's, those that its hyper-parameters let it read
        return () if self.in_first_stage else tuple(name for name in self.distiller.views if name in read)

    @property
    def networks(self) -> list[nn.Module]:
        """The student, and the teacher that learns with it where there is one."""
        return [self.student] if self.peer is None else [self.student, self.peer]

    @property
    def has_local_loss(self) -> bool:
        """Return whether the loss and the method see only this rank's images of a larger batch."""
        return self.loss_ranks.world_size < self.ranks.world_size

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is evaluated and saved."""
        student = self.ema.model if self.ema else self.student
        return StudentWithMethod(student, self.distiller) if self.distiller.part_of_model else student

    @property
    def teacher_taps(self) -> set[str] | None:
        """The shared teacher's maps that the current stage reads; None if the teacher need not run."""
        if self.in_first_stage:
            return self._first_stage_taps
        reads = self.distiller.needs_teacher and self.first_stage.teacher_later and self.peer is None
        return self.main_taps if reads else None

    def begin_epoch(self, steps: int = 1) -> None:
        """Set the epoch's learning rate; ``steps``: how many the epoch has."""
        self._epoch_steps = steps
        first_lr = self.first_stage.lr or self.recipe.lr
        self._epoch_lr = first_lr if self.in_first_stage else learning_rate(self.recipe, self.history.epoch)
        self._set_lr(self._epoch_lr)

    def begin_step(self, step: int) -> None:
        """Set a step's learning rate; ``step`` counts the main stage's steps from 0, a first stage's are negative."""
        by_step = self.recipe.schedule_by == "step" and not self.in_first_stage
        lr = learning_rate(self.recipe, step / self._epoch_steps) if by_step else self._epoch_lr
        self._set_lr(lr * warmup(self.recipe, step))

    def _set_lr(self, lr: float) -> None:
        self.last_lr = lr
        if isinstance(self.lr, Tensor):
            self.lr.fill_(lr)
        else:
            self.lr = lr

    def check_terms(self, terms: Any) -> None:
        """Check what the method returned, at an epoch's first step.

        Raises:
            TypeError: it is no mapping of names to tensors of one number.
            ValueError: a term is missing, or is neither weighted nor a diagnostic.
        """
        if self._images:
            return
        name = f"{type(self.distiller).__name__}.{'first_terms' if self.in_first_stage else 'forward'}"
        if not isinstance(terms, Mapping):
            raise TypeError(f"{name} returned {_kind(terms)}; expected a dict of terms by name")
        for key, term in terms.items():
            if not isinstance(term, Tensor) or term.numel() != 1:
                raise TypeError(f"{name} returned {_kind(term)} as {key!r}; expected a scalar tensor")
        if self.in_first_stage:  # whose terms have any names
            return
        expected = {*self.loss_weights, *self.distiller.diagnostics}
        if extra := sorted(set(terms) - expected):
            raise ValueError(f"{name} returned {extra}, which are neither in its weights nor its diagnostics")
        if missing := sorted(expected - {"ce"} - set(terms)):
            raise ValueError(f"{name} did not return {missing}, which its weights or diagnostics name")

    def add_losses(self, terms: dict[str, Tensor], images: int) -> None:
        """Add terms, means over the given number of images, to the epoch's sums on the device."""
        values = {k: v.detach().double().to(self.device) * images for k, v in terms.items()}
        if self.has_local_loss:
            self.ranks.all_reduce_sum(values.values())
        for name, value in values.items():
            if name in self._loss_sums:
                self._loss_sums[name] += value
            else:
                self._loss_sums[name] = value

    def count_step(self, images: int) -> None:
        """Count a finished step and its images on all ranks."""
        self._images += images
        self.steps += 1

    def end_epoch(self) -> None:
        """Close the epoch's curves. A loss that is not finite marks the run as diverged."""
        curve = "first" if self.in_first_stage else "train"
        self.history.epoch += 1
        means = {k: float(total) / self._images for k, total in self._loss_sums.items()}
        self.history.curves += [(self.history.epoch, f"{curve}_{k}", v) for k, v in means.items()]
        self.history.diverged = not all(map(math.isfinite, means.values()))
        self.steps, self._images = 0, 0
        for total in self._loss_sums.values():  # in place: captured steps add to these very tensors
            total.zero_()
        if self.history.epoch > 0 and not self.history.diverged:
            self.history.warnings = list(self.distiller.warnings(means))
        if self.history.epoch == 0:
            self._loss_sums = {}
            self.engine.restart()
            if self.ema:
                self.ema.restart()

    def evaluate(self, on: EvalSet, reference: FidelityReference | None = None) -> None:
        """Evaluate the trained model and add the result to the history; measure its fidelity to a reference."""
        with self.watch.part("evaluation"):
            model, precision = self.evaluated_model, self.recipe.precision
            if reference is None:
                result = self.task.evaluate(model, on, precision, self.ranks)
            else:
                # A teacher that learns with the student is no fixed reference.
                compared = self.science.teacher is not None and self.peer is None
                result, self.fidelity = reference.measure(model, on, self.task, precision, self.ranks, compared)
            if self.recipe.freeze:
                set_frozen_to_eval(self.student)
            score = self.task.info.score
            if self.peer is not None:
                metrics = self.task.evaluate(self.peer, on, self.recipe.precision, self.ranks).metrics
                self.history.curves.append((self.history.epoch, f"{on.name}_peer_{score}", _score(metrics, score)))
        self.history.add(result.metrics, score, on.name)
        if self.keeps_best and self.history.best_epoch == self.history.epoch:
            trained = self.trained_tensors().items()
            self.best_weights = {k: v.detach().contiguous().to("cpu", copy=True) for k, v in trained}
        self.predictions = result.predictions

    def trained_tensors(self) -> dict[str, Tensor]:
        """Return the trained model's tensors: the student's by their own names, or, if the method is part of the model,
        ``student.*`` and ``method.*``."""
        return self.evaluated_model.state_dict()

    def add_costs(self, shared: dict[str, float]) -> None:
        """Add the seconds spent since the last call, and this member's share of what the pack did for all members.

        Call it before an epoch is closed: the first stage's seconds are counted separately.
        """
        for name, seconds in (*shared.items(), *self.watch.take().items()):
            part = "first_stage" if self.in_first_stage else name
            self.history.costs[part] = self.history.costs.get(part, 0.0) + seconds

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that training changes, by name. All ranks must call it together."""
        parts: dict[str, Mapping[Any, Tensor]] = {k: module.state_dict() for k, module in self._modules().items()}
        parts |= self.engine.state()
        parts["best"] = self.best_weights or {}
        return {f"{part}.{key}": tensor for part, tensors in parts.items() for key, tensor in tensors.items()}

    def _modules(self) -> dict[str, nn.Module]:
        """Return the modules that training changes, by the first part of their tensors' names in a checkpoint."""
        average = self.ema.model if self.ema else None
        modules = {"student": self.student, "method": self.distiller, "peer": self.peer, "average": average}
        return {name: module for name, module in modules.items() if module is not None}

    def state(self) -> dict[str, Any]:
        """Return what ``tensors`` does not hold, JSON-able. Both together continue a run at the very same step."""
        sums = [(k, float(v)) for k, v in self._loss_sums.items()]  # a list: the curves keep its order
        return {"history": asdict(self.history), "steps": self.steps, "sums": sums, "images": self._images}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from what ``tensors()`` and ``state()`` returned."""
        parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in tensors.items():
            part, _, key = name.partition(".")
            parts[part][key] = tensor
        for name, module in self._modules().items():
            module.load_state_dict(parts[name])
        self.engine.restore({name: {int(i): x for i, x in parts[name].items()} for name in STATE_NAMES})
        self.best_weights = parts.get("best")
        self.keeps_best |= self.best_weights is not None
        self.history = History(**state["history"])
        self.steps, self._images = state["steps"], state["images"]
        self._loss_sums = {k: torch.tensor(v, dtype=torch.float64, device=self.device) for k, v in state["sums"]}


def _kind(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def known_taps(taps: Collection[str], teacher: TapSpec | None) -> set[str]:
    """Check the names of the teacher's maps that a method or its first stage reads, and return them as a set.

    Raises:
        ValueError: the teacher has no such map.
    """
    if teacher is None:
        return set()
    if unknown := sorted(set(taps) - set(teacher.names)):
        raise ValueError(f"the teacher has no tap named {unknown[0]!r}; it has: {teacher.listed}")
    return set(taps)


def _score(metrics: Metrics, score: str) -> float:
    """Return the value that ranks results; a result that could not be measured is the worst."""
    value = metrics[score]
    return -math.inf if value is None else value

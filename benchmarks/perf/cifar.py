"""Training of wrn_40_2 -> wrn_16_2 on random images of CIFAR-100's shape: they cost what real ones cost."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.load.tensors import Normalise, TensorEvalSet, TensorLoader
from harness.data.load.view import View
from harness.models.taps import ConvNet, describe_taps
from harness.models.zoo import build_model
from harness.spec import methods
from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice, Given, MethodSettings, Science
from harness.spec.tasks import DATASETS
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.member import Member
from harness.training.pack import Pack
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher, freeze
from harness.training.teacher_logits import CachedLogits

INFO = DATASETS["cifar100"]
BATCH = 64
# KD_BENCH_BUSY=1 is for a busy machine: it counts CPU seconds on one thread, which other programs disturb little.
BUSY = bool(os.environ.get("KD_BENCH_BUSY"))
THREADS = 1 if BUSY else 2
clock = time.process_time if BUSY else time.perf_counter
CLOCK = "CPU seconds" if BUSY else "wall seconds"
TEACHER, STUDENT = "wrn_40_2", "wrn_16_2"
DEVICE = torch.device("cpu")


def images() -> Tensor:
    """Return all training images, (N, C, H, W) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (INFO.train_size, *INFO.image_shape), dtype=torch.uint8, generator=generator)


def targets() -> Tensor:
    return torch.arange(INFO.train_size) % INFO.classes


def fresh(name: str) -> ConvNet:
    """Build a network with the same random weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(name, INFO.classes)


class Silent:
    """An observer that ignores progress and raises failures."""

    def on_step(self, members: dict[str, Member], steps_per_epoch: int, share_costs: Callable[[], None]) -> None:
        pass

    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None:
        pass

    def on_failure(self, run_id: str, error: BaseException, details: str) -> None:
        raise error


class Trainer:
    """Trains packs for a few steps with the harness's own code. CRD's memory bank has the size of the whole set."""

    def __init__(
        self, steps: int, precision: str = "float32", ranks: Ranks = ONE_RANK, views: dict[str, View] | None = None
    ):
        self.precision = precision
        count = steps * BATCH
        pixels, self.targets = images(), targets()
        normalise = Normalise(INFO, DEVICE)
        self.loader = TensorLoader(
            pixels[:count],
            self.targets[:count],
            normalise,
            batch_size=BATCH,
            crop_padding=4,
            flip=True,
            seed=0,
            rows=ranks.rows,
            views=views,
        )
        # The evaluation is not measured.
        self.evalset = TensorEvalSet("test", pixels[:2], self.targets[:2], normalise)
        model = fresh(TEACHER)
        spec = describe_taps(model, INFO.image_shape)
        freeze(model, DEVICE)
        self.task = Classification(INFO.classes, INFO.image_shape)
        self.teacher = Teacher(model, TEACHER, Path(), "", 0.0, spec, ranks)

    def train(
        self, names: tuple[str, ...], logits: CachedLogits | None = None, **params: Any
    ) -> tuple[float, dict[str, dict[str, Tensor]]]:
        """Train one pack of these methods from fresh weights; return its seconds and each member's final tensors."""
        members = {name: self.member(name, **params) for name in names}
        ended = dict(members)
        began = clock()
        Pack(members, self.loader, self.evalset, self.teacher, Silent(), cached_logits=logits).train()
        seconds = clock() - began
        return seconds, {name: member.tensors() for name, member in ended.items()}

    def member(self, name: str, **params: Any) -> Member:
        """Make a run of a method with its default settings except ``params``."""
        run = science(name, TEACHER, STUDENT, params, precision=self.precision)
        return Member(run, self.teacher, self.targets, self.task, DEVICE)


def science(method: str, teacher: str, student: str, params: dict[str, Any] | None = None, **recipe: Any) -> Science:
    """Return a science: a method's defaults except ``params``, one epoch of CIFAR-100's recipe except ``recipe``."""
    info = methods.describe_method(method)
    usual = {"epochs": 1, "batch_size": BATCH, "lr": 0.05, "crop_padding": 4, "flip": True}
    settings = {k: h.default for k, h in info.hyper.items()} | (params or {})
    usual |= {"views": {view: {"crop_padding": 4, "flip": True} for view in info.views_read(settings)} or None}
    return Science(
        dataset=DatasetChoice.of_info(INFO),
        teacher=Given(teacher, ""),
        student=student,
        method=MethodSettings(method, info.version, settings, info.weights),
        recipe=Recipe.model_validate(usual | recipe),
        seed=0,
    )

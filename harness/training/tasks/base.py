"""What training asks of a task, such as classification."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from harness.data.load.loader import EvalSet
from harness.spec.schema import Recipe
from harness.spec.tasks import TaskInfo
from harness.training.distributed.ranks import ONE_RANK, Ranks
from methods.base import Batch, Distiller, Outputs, SampleRandom, TapSpec


@dataclass(frozen=True)
class Evaluated:
    """How good a model is."""

    metrics: dict[str, float | None]  # in the task's order; None: there is nothing to measure it on
    predictions: bytes | None = None  # what they were computed from, as a file that is kept with the run


class Task(Protocol):
    """A run's task. All of it is a function of the run's science."""

    info: TaskInfo
    whole_batch: bool  # losses and methods see the images of all processes; else each process its own share
    recordable: bool  # full batches are alike in shape, so that a GPU can play steps from a graph

    def build(self, model: str) -> nn.Module:
        """A fresh network, drawn from torch's global random generator; it returns ``Outputs``."""

    def start(self, student: nn.Module, model: str) -> None:
        """Gives a fresh student the weights that its science says it starts from, if it does."""

    def load(self, net: nn.Module, model: str, file: Path, sha256: str | None) -> str:
        """Loads all of a network's weights; the file's sha256.

        Raises:
            BadWeights: the file cannot be read, has another content, or is another model's.
        """

    def describe(self, net: nn.Module) -> TapSpec:
        """What it offers a method."""

    def random(self, seed: int, indices: Tensor, device: torch.device) -> SampleRandom:
        """Random numbers for the samples of a step: a pure function of the ``seed``, which says run and step."""

    def teacher_taps(self, method: Distiller) -> set[str]:
        """The teacher's maps that are read when a method trains."""

    def run(self, net: nn.Module, batch: Batch, taps: Collection[str]) -> Outputs:
        """A network that learns, on a batch."""

    def losses(self, student: Outputs, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
        """The student's loss without a teacher, under the name ``ce``, and what else of it is worth a curve."""

    def align(self, method: Distiller, batch: Batch, student: Outputs, teacher: Outputs) -> tuple[Batch, Outputs]:
        """The batch and the teacher's outputs as a method compares them with the student's outputs."""

    def evaluate(self, model: nn.Module, on: EvalSet, precision: str = "float32", ranks: Ranks = ONE_RANK) -> Evaluated:
        """In eval mode; the model is left in the mode it was in. The processes share the images out."""

"""The interface of a task in training."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from harness.data.load.loader import EvalSet
from harness.models.checkpoints import LoadedWeights
from harness.spec.pretrained import ANYWHERE, Place
from harness.spec.schema import Recipe
from harness.spec.science import Science
from harness.spec.tasks import TaskInfo
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.job_order import WeightsFile
from methods.base import Batch, Distiller, Outputs, SampleRandom, TapSpec


class StartWeights(NamedTuple):
    """The weights of a classifier that students, or the backbones of detectors, start from."""

    file: Path
    sha256: str
    place: Place = ANYWHERE

    @classmethod
    def of(cls, science: Science, weights: Mapping[str, WeightsFile]) -> "StartWeights | None":
        """Return those of a run; None where it starts from random numbers, or they are not among ``weights``."""
        start = science.initial_weights
        given = weights.get(start.weights_id) if start else None
        return cls(Path(given.file), start.sha256, start.place) if start and given else None


@dataclass(frozen=True)
class Evaluated:
    """The result of an evaluation."""

    metrics: dict[str, float | None]  # in the task's order; None: there is nothing to measure it on
    predictions: bytes | None = None  # what they were computed from, as a file that is kept with the run


class RandomImages(NamedTuple):
    """Random images in place of a dataset's."""

    images: Tensor  # (B, C, H, W) float32, as if normalised
    targets: Any  # theirs, as a ``Loader`` yields them
    train_targets: Tensor  # (N,) int64: the labels of a training set that ends with these images


class Task(Protocol):
    """The task of a run: a function of the run's science."""

    info: TaskInfo
    whole_batch: bool  # losses and methods see the images of all ranks; otherwise each rank sees only its own
    capturable: bool  # full batches have one shape, so that a GPU can capture and replay steps

    def build(self, model: str) -> nn.Module:
        """Build a network, drawn from torch's global random generator; it returns ``Outputs``."""

    def start(self, student: nn.Module, model: str) -> str:
        """Load the weights that a fresh student starts from, if its science names some.

        Returns:
            A line on what was taken from their file; empty where there is nothing to say.

        Raises:
            WeightsError: the file cannot be read, has another content, or is another model's.
        """

    def load(
        self, net: nn.Module, model: str, file: Path, sha256: str | None, place: Place = ANYWHERE
    ) -> LoadedWeights:
        """Load all of a network's weights.

        Raises:
            WeightsError: the file cannot be read, has another content, or is another model's.
        """

    def random_images(self, count: int, train_images: int) -> RandomImages:
        """Return ``count`` images that models can be trained on without data, of a training set of ``train_images``."""

    def describe(self, net: nn.Module) -> TapSpec:
        """Return what a network offers a method."""

    def random(self, seed: int, indices: Tensor, device: torch.device) -> SampleRandom:
        """Return the random numbers of a step's samples: a pure function of ``seed``, which run and step determine."""

    def teacher_taps(self, method: Distiller) -> set[str]:
        """Return the teacher's maps that are read when a method trains."""

    def run(self, net: nn.Module, batch: Batch, taps: Collection[str]) -> Outputs:
        """Run a network that learns, on a batch."""

    def losses(self, student: Outputs, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
        """Return the student's loss without a teacher, under the name ``ce``, and others that are worth a curve."""

    def align(self, method: Distiller, batch: Batch, student: Outputs, teacher: Outputs) -> tuple[Batch, Outputs]:
        """Return the batch and the teacher's outputs so that a method can compare them with the student's outputs, row
        by row.
        """

    def evaluate(self, model: nn.Module, on: EvalSet, precision: str = "float32", ranks: Ranks = ONE_RANK) -> Evaluated:
        """Evaluate in eval mode, and leave the model in the mode it was in. The images are split over the ranks."""

"""One class per image."""

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.load.loader import EvalSet
from harness.models.checkpoints import load_weights
from harness.models.taps import ConvNet, describe_taps
from harness.models.zoo import build_model
from harness.spec import datasets, tasks
from harness.spec.schema import Recipe
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.tasks.accuracy import evaluate_classifier
from harness.training.tasks.base import Evaluated, Given
from methods.base import Batch, Distiller, Outputs, SampleRandom, TapSpec


def open_task(science: dict[str, Any], given: Given) -> "Classification":
    info = datasets.dataset_of(science["dataset"])
    return Classification(info.classes, datasets.image_shape(info, science["recipe"]))


class Classification:
    """Images of one shape (C, H, W), each of one of so many classes."""

    info = tasks.CLASSIFICATION
    whole_batch = True
    recordable = True

    def __init__(self, classes: int, image_shape: tuple[int, int, int]):
        self._classes, self._image_shape = classes, image_shape

    def build(self, model: str) -> ConvNet:
        return build_model(model, self._classes, in_channels=self._image_shape[0])

    def start(self, student: nn.Module, model: str) -> None:
        """From what ``build`` has drawn."""

    def load(self, net: nn.Module, model: str, file: Path, sha256: str | None) -> str:
        return load_weights(net, model, file, sha256)

    def describe(self, net: nn.Module) -> TapSpec:
        assert isinstance(net, ConvNet)
        return describe_taps(net, self._image_shape)

    def random(self, seed: int, indices: Tensor, device: torch.device) -> SampleRandom:
        return SampleRandom(seed, len(indices), device)

    def teacher_taps(self, method: Distiller) -> set[str]:
        return set(method.teacher_taps)

    def run(self, net: nn.Module, batch: Batch, taps: Collection[str]) -> Outputs:
        outputs: Outputs = net(batch.images, taps)
        return outputs

    def losses(self, student: Outputs, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
        return {"ce": F.cross_entropy(student.logits, batch.targets, label_smoothing=recipe.label_smoothing)}

    def meet(self, method: Distiller, batch: Batch, student: Outputs, teacher: Outputs) -> tuple[Batch, Outputs]:
        return batch, teacher

    def evaluate(self, model: nn.Module, on: EvalSet, precision: str = "float32", ranks: Ranks = ONE_RANK) -> Evaluated:
        return Evaluated(asdict(evaluate_classifier(model, on, precision, ranks)))

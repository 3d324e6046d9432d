"""Detection in training: objects in images."""

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from harness import rng
from harness.data.load.coco import CocoEvalSet
from harness.data.load.loader import EvalSet
from harness.models.checkpoints import LoadedWeights
from harness.models.detection.base import Detector, TrainingOutputs
from harness.models.detection.build import build_detector
from harness.models.detection.checkpoints import load_backbone, load_detector
from harness.models.detection.two_stage import POOLED
from harness.spec.pretrained import ANYWHERE, Place
from harness.spec.schema import Recipe
from harness.spec.tasks import CHANNELS, DatasetInfo
from harness.spec.tasks.detection import TASK, TWO_STAGE
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.precision import autocast
from harness.training.tasks.base import Evaluated, RandomImages, StartWeights
from harness.training.tasks.detection_evaluation import evaluate_detector
from methods.base import Batch, Distiller, Outputs, SampleRandom, TapSpec
from methods.detection import DetectionBatch, DetectorOutputs, Objects

RANDOM_SIZE = (128, 160)  # height and width of random images: small, as they only stand for others


def open_task(info: DatasetInfo, recipe: Recipe, start: StartWeights | None) -> "Detection":
    return Detection(info.classes, recipe, start)


class Detection:
    """Training of detectors. ``start``: the weights that students' backbones start from."""

    info = TASK
    whole_batch = False
    capturable = False

    def __init__(self, classes: int, recipe: Recipe, start: StartWeights | None = None):
        self._classes, self._recipe, self._start = classes, recipe, start

    def build(self, model: str) -> nn.Module:
        return build_detector(model, self._classes, **{key: getattr(self._recipe, key) for key in TASK.recipe})

    def start(self, student: nn.Module, model: str) -> str:
        return load_backbone(_detector(student), model, *self._start).note if self._start else ""

    def load(
        self, net: nn.Module, model: str, file: Path, sha256: str | None, place: Place = ANYWHERE
    ) -> LoadedWeights:
        return load_detector(_detector(net), model, file, sha256, place)

    def random_images(self, count: int, train_images: int) -> RandomImages:
        """Return images smaller than a dataset's, which detectors take in any size, with a few objects in each."""
        height, width = RANDOM_SIZE
        images = torch.randn(count, CHANNELS, height, width).contiguous(memory_format=torch.channels_last)
        corners = torch.rand(count, 4, 2) * torch.tensor([width, height]) / 2
        boxes = torch.cat([corners, corners + torch.tensor([width, height]) / 4], dim=2)
        labels = 1 + torch.randint(self._classes, (count, 4))
        objects = [Objects(*image, RANDOM_SIZE) for image in zip(boxes, labels, strict=True)]
        return RandomImages(images, objects, torch.zeros(train_images, dtype=torch.int64))

    def describe(self, net: nn.Module) -> TapSpec:
        return _detector(net).describe()

    def random(self, seed: int, indices: Tensor, device: torch.device) -> "ImageRandom":
        return ImageRandom(seed, indices.tolist(), device)

    def teacher_taps(self, method: Distiller) -> set[str]:
        """Return the maps that the method reads, and the teacher's pyramid where its head classifies the student's
        regions.
        """
        return {*method.teacher_taps, *(POOLED if TWO_STAGE in method.defined_for else ())}

    def run(self, net: nn.Module, batch: Batch, taps: Collection[str]) -> Outputs:
        assert isinstance(batch.random, ImageRandom)
        outputs: Outputs = net(batch.images, taps, batch.targets, batch.random.seeds)
        return outputs

    def losses(self, student: Outputs, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
        assert isinstance(student, TrainingOutputs)
        return {"ce": torch.stack(list(student.losses.values())).sum(), **student.losses}

    def align(self, method: Distiller, batch: Batch, student: Outputs, teacher: Outputs) -> tuple[Batch, Outputs]:
        assert isinstance(student, TrainingOutputs)
        objects = cast(Sequence[Objects], batch.targets)
        met = DetectionBatch(batch.images, student.targets, batch.indices, batch.random, batch.epoch, objects=objects)
        if TWO_STAGE in method.defined_for:
            assert isinstance(teacher, DetectorOutputs) and teacher.read is not None
            with torch.no_grad(), autocast(batch.images.device, self._recipe.precision):
                logits, embedding = teacher.read(teacher.features, student.rois)
            teacher = replace(teacher, logits=logits.float(), embedding=embedding.float())
        return met, teacher

    def evaluate(self, model: nn.Module, on: EvalSet, precision: str = "float32", ranks: Ranks = ONE_RANK) -> Evaluated:
        return evaluate_detector(_detector(model), cast(CocoEvalSet, on), precision, ranks)


class ImageRandom(SampleRandom):
    """Random numbers per image, which are the same whichever process has the image."""

    def __init__(self, seed: int, indices: list[int], device: torch.device):
        super().__init__(seed, len(indices), device)
        self.seeds = [rng.stream_key(seed, index, "image") for index in indices]
        self._generators = [torch.Generator(device).manual_seed(s) for s in self.seeds]

    def part(self, rows: slice) -> "ImageRandom":
        part = copy.copy(self)
        part.seeds, part._generators = self.seeds[rows], self._generators[rows]
        return part

    def _draw(self, draw: Callable[..., Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.stack([draw(shape, generator=g, device=self._device, dtype=dtype) for g in self._generators])


def _detector(net: nn.Module) -> Detector:
    assert isinstance(net, Detector)
    return net

"""Classification in training: one class per image."""

from collections.abc import Collection
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.load.loader import EvalSet
from harness.models.checkpoints import LoadedWeights, load_weights
from harness.models.initial_weights import load_initial_weights
from harness.models.taps import ConvNet, describe_taps
from harness.models.zoo import build_model
from harness.spec import datasets
from harness.spec.pretrained import ANYWHERE, Place
from harness.spec.schema import Recipe
from harness.spec.tasks import DatasetInfo
from harness.spec.tasks.classification import TASK
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.precision import autocast
from harness.training.tasks.base import Evaluated, RandomImages, StartWeights
from methods.base import Batch, Distiller, Outputs, SampleRandom, TapSpec


def open_task(info: DatasetInfo, recipe: Recipe, start: StartWeights | None) -> "Classification":
    shape = datasets.image_shape(info, recipe.image_size)
    assert shape
    return Classification(info.classes, shape, start)


class Classification:
    """Classification of images of one shape (C, H, W). ``start``: the weights that students start from."""

    info = TASK
    whole_batch = True
    capturable = True

    def __init__(self, classes: int, image_shape: tuple[int, int, int], start: StartWeights | None = None):
        self._classes, self._image_shape, self._start = classes, image_shape, start

    def build(self, model: str) -> ConvNet:
        channels, height, width = self._image_shape
        return build_model(model, self._classes, channels, (height, width))

    def start(self, student: nn.Module, model: str) -> str:
        if self._start is None:
            return ""
        with torch.random.fork_rng(devices=[]):
            other = build_model(model, self._classes + 1, in_channels=self._image_shape[0])
        return load_initial_weights(student, other, model, *self._start)

    def load(
        self, net: nn.Module, model: str, file: Path, sha256: str | None, place: Place = ANYWHERE
    ) -> LoadedWeights:
        return load_weights(net, model, file, sha256, place)

    def random_images(self, count: int, train_images: int) -> RandomImages:
        labels = torch.randperm(train_images) % self._classes
        images = torch.randn(count, *self._image_shape).contiguous(memory_format=torch.channels_last)
        return RandomImages(images, labels[-count:], labels)

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
        targets = batch.targets if batch.target_probs is None else batch.target_probs
        return {"ce": F.cross_entropy(student.logits, targets, label_smoothing=recipe.label_smoothing)}

    def align(self, method: Distiller, batch: Batch, student: Outputs, teacher: Outputs) -> tuple[Batch, Outputs]:
        return batch, teacher

    def evaluate(self, model: nn.Module, on: EvalSet, precision: str = "float32", ranks: Ranks = ONE_RANK) -> Evaluated:
        """Return top-1 and top-5 accuracy in % and mean cross-entropy in nats, over every image once."""
        was_training = model.training
        model.eval()
        totals = torch.zeros(3, dtype=torch.float64, device=on.targets.device)
        with torch.no_grad():
            mine = ranks.rows(len(on.targets))
            for images, targets in on.batches(mine):
                with autocast(images.device, precision):
                    logits = model(images).logits
                logits = logits.float()
                top = logits.topk(min(5, logits.shape[1]), dim=1).indices == targets[:, None]
                loss = F.cross_entropy(logits, targets, reduction="sum")
                totals += torch.stack([top[:, 0].sum(), top.sum(), loss]).double()
        model.train(was_training)
        ranks.all_reduce_sum([totals])
        top1, top5, loss_sum = totals.tolist()
        n = len(on.targets)
        return Evaluated({"top1": 100 * top1 / n, "top5": 100 * top5 / n, "loss": loss_sum / n})

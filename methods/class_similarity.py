"""The similarity of classes to a teacher, by its maps of their training images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base import TapSpec

MOST_VALUES = 2**30  # of all maps, 4 GiB in float32; all of CIFAR-100's for resnet32x4, 256 x 8 x 8, are 3.3 GB
MOST_PRODUCTS = 2**26  # values of the products that are in memory at once


@dataclass(frozen=True)
class ClassSimilarity:
    """The linear CKA (classes, classes) of classes in a teacher's last map, as a ``methods.base.TeacherPass``.

    The samples of a class are all positions of the maps (D, H, W) of its first ``images_per_class`` training images in
    the dataset's order, without augmentation. See ``linear_cka`` for how those of two classes are paired.

    With N samples a class, C classes hold C N D values, twice while they are compared in C^2 N D^2 operations.
    CIFAR-100 under resnet32x4, all 500 images a class: 50,000 forward passes, 6.6 GB, 2e13 operations, which take
    minutes on a few CPU cores. ImageNet under ResNet-34, 42 images a class: 42,000 forward passes, 8.4 GB, 5e14
    operations; more images a class are far beyond a GPU's memory.
    """

    tap: str
    images_per_class: int
    classes: int

    @classmethod
    def of(cls, teacher: TapSpec, images_per_class: int) -> "ClassSimilarity":
        """Return that of a teacher; with 0 images per class, of as many as ``MOST_VALUES`` allows.

        Raises:
            ValueError: the teacher has no map.
        """
        tap = teacher.resolve("last", "the teacher")
        height, width = teacher.sizes[tap]
        values = teacher.channels[tap] * height * width * teacher.num_classes
        return cls(tap, images_per_class or max(1, MOST_VALUES // values), teacher.num_classes)

    def images(self, targets: Tensor) -> Tensor:
        """Return the positions of the images, class by class, in a training set with labels (N,)."""
        order = targets.argsort(stable=True)
        sizes = targets.bincount()
        first = (sizes.cumsum(0) - sizes)[targets[order]]
        rank = torch.arange(len(order), device=order.device) - first
        return order[rank < self.images_per_class]

    def measure(self, maps: Tensor, targets: Tensor) -> Tensor:
        """Return the CKA of all classes from maps (M, D, H, W) and labels (M,), sorted by class."""
        samples = maps.flatten(2).mT  # (M, H W, D)
        sizes = targets.bincount(minlength=self.classes).tolist()
        return linear_cka([x.flatten(0, 1) for x in samples.split(sizes)])


def linear_cka(classes: Sequence[Tensor]) -> Tensor:
    """Return the linear CKA (C, C) of the C classes' samples (N_c, D):

        CKA(X, Y) = ||X' Y||^2 / (||X' X|| ||Y' Y||)    X, Y (N, D) with their columns' means subtracted

    Sample k of one class is paired with sample k of the other, up to the smaller of both N. A class is like itself, 1;
    without samples, or with constant ones, it is like no other, 0.
    """
    result = torch.eye(len(classes), dtype=classes[0].dtype, device=classes[0].device)
    for n in sorted({len(x) for x in classes} - {0}):
        ranked = sorted((c for c, x in enumerate(classes) if len(x) >= n), key=lambda c: len(classes[c]))
        x = torch.stack([centred(classes[c][:n]) for c in ranked])
        norms = torch.cat([(part.mT @ part).norm(dim=(1, 2)) for part in x.split(_at_once(x))])
        for i in range(sum(len(classes[c]) == n for c in ranked)):
            products = [(x[i].T @ part).square().sum((1, 2)) for part in x[i + 1 :].split(_at_once(x)) if len(part)]
            if products:
                scale = (norms[i] * norms[i + 1 :]).clamp_min(torch.finfo(x.dtype).tiny)
                result[ranked[i], ranked[i + 1 :]] = result[ranked[i + 1 :], ranked[i]] = torch.cat(products) / scale
    return result


def centred(x: Tensor) -> Tensor:
    """Return samples (N, D) with their columns' means subtracted, scaled to a norm of 1, which CKA does not see."""
    x = x - x.mean(0)
    return x / x.norm().clamp_min(torch.finfo(x.dtype).tiny)


def _at_once(x: Tensor) -> int:
    """Return how many products (D, D) are in memory at once."""
    return max(1, MOST_PRODUCTS // x.shape[2] ** 2)

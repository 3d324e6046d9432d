"""Fidelity: how closely a trained classifier follows its teacher, and how well it is calibrated.

It is measured after the last epoch, from the logits of the evaluation and of one on training images. The definitions
are in ``docs/fidelity.md``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.load.loader import EvalSet
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.outputs import kept_logits
from harness.training.tasks import Task
from harness.training.tasks.base import Evaluated
from harness.training.teacher import Teacher

BINS = 15  # of equal width, as in Guo et al. 2017, arXiv:1706.04599
TEMPERATURES = (1, 4)

Values = dict[str, float | None]
Logits = Sequence[Tensor]  # (B, classes) for each batch of this rank's images


class TrainingImages:
    """Training images as a set that models are evaluated on: without augmentation, spread evenly over file order.

    ``read`` yields the images (B, C, H, W) at positions of the training set, whose classes are ``targets`` (N,).
    """

    name = "train"

    def __init__(self, read: Callable[[Tensor], Iterator[Tensor]], targets: Tensor, most: int):
        count = min(len(targets), most)
        self._read = read
        self._positions = torch.arange(count, device=targets.device) * len(targets) // count
        self.targets = targets[self._positions]

    def batches(self, mine: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (B, C, H, W) float32 and targets (B,) in file order, each image of ``mine`` once."""
        targets, start = self.targets[mine], 0
        for images in self._read(self._positions[mine]):
            yield images, targets[start : start + len(images)]
            start += len(images)


@dataclass(frozen=True)
class FidelityReference:
    """Training images and the teacher's logits, with which the students of a job are compared."""

    training_images: TrainingImages
    evaluated: Logits | None  # the teacher's, of the images that students are evaluated on; None: no teacher
    trained: Logits | None  # its logits of the training images

    @classmethod
    def of(
        cls, teacher: Teacher | None, training_images: TrainingImages, on: EvalSet, task: Task, ranks: Ranks = ONE_RANK
    ) -> "FidelityReference":
        """Compute the logits that the teacher's own evaluation has not computed already."""
        if teacher is None:
            return cls(training_images, None, None)
        evaluated = teacher.logits if teacher.measured_on is on else _logits(teacher, on, task, ranks)
        return cls(training_images, evaluated, _logits(teacher, training_images, task, ranks))

    def measure(
        self, model: nn.Module, on: EvalSet, task: Task, precision: str, ranks: Ranks, with_teacher: bool
    ) -> tuple[Evaluated, Values]:
        """Evaluate a model on both sets of images.

        Returns:
            What it reaches on the first, and the values by the names of a record's columns.
        """
        results, values = [], Values()
        for part, images, teacher in (("last", on, self.evaluated), ("train", self.training_images, self.trained)):
            with kept_logits(model) as logits:
                results.append(task.evaluate(model, images, precision, ranks))
            targets = images.targets[ranks.rows(len(images.targets))]
            compared = fidelity(logits, teacher if with_teacher else None, targets, ranks)
            values |= {f"{part}_{name}": value for name, value in compared.items()}
        return results[0], {**values, "train_top1": results[1].metrics["top1"]}


def _logits(teacher: Teacher, on: EvalSet, task: Task, ranks: Ranks) -> Logits:
    with kept_logits(teacher.model) as logits:
        task.evaluate(teacher.model, on, ranks=ranks)
    return logits


def fidelity(student: Logits, teacher: Logits | None, targets: Tensor, ranks: Ranks = ONE_RANK) -> Values:
    """Return agreement in %, KL(teacher || student) in nats at each temperature and calibration error in %.

    They cover the images of all ranks; ``targets`` (N,) are those of this one's. Without a teacher only the calibration
    error has a value.
    """
    total = torch.zeros(2 + len(TEMPERATURES) + BINS, dtype=torch.float64)
    of_batches = targets.cpu().split([len(batch) for batch in student])
    for i, (logits, classes) in enumerate(zip(student, of_batches, strict=True)):
        total += _sums(logits.double(), classes, teacher[i].double() if teacher is not None else None)
    total = total.to(targets.device)
    ranks.all_reduce_sum([total])
    count, *compared = total[:-BINS].tolist()
    agreement, *divergences = [value / count if teacher is not None else None for value in compared]
    return {
        "agreement": None if agreement is None else 100 * agreement,
        **{f"kl_t{t}": divergence for t, divergence in zip(TEMPERATURES, divergences, strict=True)},
        "ece": 100 * float(total[-BINS:].abs().sum()) / count,
    }


def _sums(student: Tensor, targets: Tensor, teacher: Tensor | None) -> Tensor:
    """Return a batch's images, agreements, divergences and, for each bin, the correct images minus confidences."""
    confidences, classes = student.softmax(1).max(1)
    compared = torch.zeros(1 + len(TEMPERATURES), dtype=torch.float64)
    if teacher is not None:
        agreements = (classes == teacher.argmax(1)).sum().double()
        compared = torch.stack([agreements, *(_divergence(teacher / t, student / t) for t in TEMPERATURES)])
    bins = (confidences * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, (classes == targets).double() - confidences)
    return torch.cat([torch.tensor([len(student)], dtype=torch.float64), compared, gaps])


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="sum", log_target=True)

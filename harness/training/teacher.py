"""The teacher: weights that are read without executing anything, verified, frozen and evaluated again."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.data.load.loader import EvalSet
from harness.models.batchnorm_folding import fold_batch_norms
from harness.models.checkpoints import WeightsError, first_line
from harness.models.renormalisation import Renormalisation
from harness.phrases import percent
from harness.spec.pretrained import ANYWHERE, Place
from harness.spec.science import Given, Science, Trained
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.outputs import gather_outputs, kept_logits, to_float32
from harness.training.precision import autocast
from harness.training.tasks import Task
from methods.base import Outputs, TapSpec

SCORE_TOLERANCE = 0.1  # points; decoding and convolution libraries change the class of single test images
# Of a teacher that is a run: it may have been evaluated in bfloat16, and on a small test set one image is much.
RUN_SCORE_TOLERANCE = 1.0


@dataclass
class Teacher:
    """A frozen network that students learn from."""

    model: nn.Module
    name: str
    file: Path  # its weights
    sha256: str
    score: float | None  # the task's, in %, measured by this process; None: not measured, or not measurable
    spec: TapSpec
    ranks: Ranks = ONE_RANK  # the ranks whose images its outputs cover
    metrics: Mapping[str, float | None] = field(default_factory=dict)  # measured with the score
    predictions: bytes | None = None  # behind these metrics, if the task saves them
    measured_on: EvalSet | None = None  # what gave the metrics
    logits: Sequence[Tensor] = ()  # a classifier's, of this rank's share of it, by batch
    place: Place = ANYWHERE  # of the weights in their file
    note: str = ""  # on where they were found there
    _compiled: Callable[[Tensor, Collection[str]], Outputs] | None = None  # for batches of ``_batch_size`` images
    _batch_size: int = 0

    def __call__(self, images: Tensor, taps: Collection[str], precision: str, count: int) -> Outputs:
        """Return the outputs for a whole batch of ``count`` images; ``images`` are this rank's rows of it."""
        with torch.no_grad(), autocast(images.device, precision):
            mine = to_float32(self._run(images, tuple(sorted(taps))))
        return gather_outputs(mine, self.ranks, count)

    def prepare(self, precision: str, compiled_for: int | None = None) -> None:
        """Make the model as fast as possible; from now on it runs only in this precision.

        ``compiled_for``: the batch size for which the model is compiled, at the first such batch. Its outputs change
        by rounding.
        """
        if precision == "bf16":
            narrow_to_bfloat16(self.model)
        if compiled_for is not None:
            self._compiled = torch.compile(self.model, dynamic=False)
            self._batch_size = compiled_for

    def _run(self, images: Tensor, taps: Collection[str]) -> Outputs:
        if self._compiled is not None and len(images) == self._batch_size:
            try:
                return self._compiled(images, taps)
            except Exception as error:  # the compiler raises anything at its own limits
                print(f"the teacher runs uncompiled: {type(error).__name__}: {first_line(error)}", flush=True)
                self._compiled = None
        outputs: Outputs = self.model(images, taps)
        return outputs


@dataclass(frozen=True)
class TeacherSource:
    """The weights of a teacher, and what changes the images for it."""

    model: str
    file: Path
    sha256: str
    place: Place = ANYWHERE  # in the file
    renormalisation: Renormalisation | None = None  # None: it sees them as the student does

    @classmethod
    def of_run(cls, science: Science, choice: Trained | Given, file: Path, sha256: str) -> "TeacherSource":
        """Return the source of one of a run's teachers, whose weights are in ``file``."""
        if not isinstance(choice, Given):
            return cls(choice.model, file, sha256)
        own = choice.normalisation
        renormalisation = Renormalisation(science.dataset.info.normalisation, own) if own else None
        return cls(choice.model, file, sha256, choice.place, renormalisation)


def load_teacher(
    source: TeacherSource, stated: float | None, on: EvalSet, task: Task, device: torch.device, ranks: Ranks = ONE_RANK,
    tolerance: float = SCORE_TOLERANCE,
) -> Teacher:  # fmt: skip
    """Load, freeze and evaluate a teacher; ``stated`` is the task's score that it should have, in %.

    Raises:
        WeightsError: the file is missing, has another content, is another model's, or has another score than stated.
    """
    teacher = measure_teacher(read_teacher(source, task, device, ranks), on, task, ranks)
    score = teacher.score
    if stated is not None and (score is None or abs(score - stated) > tolerance):
        raise WeightsError(
            f"teacher {source.model} from {source.file}: measured {task.info.shown} {percent(score)}, "
            f"stated {percent(stated)}"
        )
    return teacher


def measure_teacher(teacher: Teacher, on: EvalSet, task: Task, ranks: Ranks = ONE_RANK) -> Teacher:
    """Return a teacher with what it reaches on an evaluation set."""
    with kept_logits(teacher.model) as logits:
        result = task.evaluate(teacher.model, on, ranks=ranks)
    score = result.metrics[task.info.score]
    measured = replace(teacher, score=score, metrics=result.metrics, predictions=result.predictions)
    return replace(measured, measured_on=on, logits=logits)


def read_teacher(source: TeacherSource, task: Task, device: torch.device, ranks: Ranks = ONE_RANK) -> Teacher:
    """Load and freeze a teacher, whose score is not measured.

    Raises:
        WeightsError: the file is missing, has another content or is another model's.
    """
    model = task.build(source.model)
    note = task.load(model, source.model, source.file, source.sha256, source.place).note
    spec = task.describe(model)
    model.renormalisation = source.renormalisation  # type: ignore[assignment]
    freeze(model, device)
    output_ranks = ranks if task.whole_batch else ONE_RANK
    return Teacher(
        model, source.model, source.file, source.sha256, None, spec, output_ranks, place=source.place, note=note
    )


def freeze(model: nn.Module, device: torch.device) -> None:
    """Make a model a teacher, in place: in eval mode, without gradients, its batch norms folded into convolutions.

    Folding changes the outputs by rounding, about one part in a million.
    """
    fold_batch_norms(model)
    model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]


def narrow_to_bfloat16(model: nn.Module) -> None:
    """Convert, in place, the weights that autocast would convert to bfloat16 at each forward pass.

    Under autocast the outputs stay the same, bit for bit.
    """
    for module in model.modules():
        if type(module) in (nn.Conv2d, nn.Linear):  # a subclass may compute with its weights first
            module.to(torch.bfloat16)

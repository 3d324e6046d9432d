"""The teacher: its weights read without executing anything, verified, frozen, its accuracy measured again."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.data.load.loader import EvalSet
from harness.models.batchnorm_folding import fold_batch_norms
from harness.models.checkpoints import WeightsError, first_line
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.outputs import gathered, in_float32
from harness.training.precision import autocast
from harness.training.tasks import Task
from methods.base import Outputs, TapSpec

STATED_MARGIN = 0.1  # points; decoding and convolution libraries move single test images


@dataclass
class Teacher:
    """A frozen teacher."""

    model: nn.Module
    name: str
    file: Path  # of its weights
    sha256: str
    score: float | None  # the task's, in %, measured here
    spec: TapSpec
    ranks: Ranks = ONE_RANK
    metrics: Mapping[str, float | None] = field(default_factory=dict)  # all that was measured with it
    predictions: bytes | None = None  # what that was measured on, where the task keeps it
    _compiled: Callable[[Tensor, Collection[str]], Outputs] | None = None  # for batches of that many images
    _batch_size: int = 0

    def __call__(self, images: Tensor, taps: Collection[str], precision: str, count: int) -> Outputs:
        """Of a whole batch of ``count`` images, from this process's share of them."""
        with torch.no_grad(), autocast(images.device, precision):
            mine = in_float32(self._run(images, tuple(sorted(taps))))
        return gathered(mine, self.ranks, count)

    def prepare(self, precision: str, compiled_for: int | None = None) -> None:
        """Makes the model as fast as it can be; it runs in this precision alone from now on.

        ``compiled_for``: the number of images of the batches for which the model is compiled, when it is first called
        with one. Its outputs change by rounding.
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
            except Exception as error:  # the compiler meets its own limits with any exception there is
                print(f"the teacher runs uncompiled: {type(error).__name__}: {first_line(error)}", flush=True)
                self._compiled = None
        outputs: Outputs = self.model(images, taps)
        return outputs


def load_teacher(
    name: str, file: Path, sha256: str, stated: float | None, on: EvalSet, task: Task, device: torch.device,
    ranks: Ranks = ONE_RANK,
) -> Teacher:  # fmt: skip
    """``stated``: the task's score that it should have, in %.

    Raises:
        BadWeights: missing file, other content than ``sha256``, not this model's weights, or another score than stated.
    """
    model = task.build(name)
    task.load(model, name, file, sha256)
    spec = task.describe(model)
    freeze(model, device)
    found = task.evaluate(model, on, ranks=ranks)
    score = found.metrics[task.info.score]
    if stated is not None and (score is None or abs(score - stated) > STATED_MARGIN):
        raise WeightsError(
            f"teacher {name} from {file}: measured {task.info.shown} {score:.2f} %, stated {stated:.2f} %"
        )
    seen = ranks if task.whole_batch else ONE_RANK
    return Teacher(model, name, file, sha256, score, spec, seen, found.metrics, found.predictions)


def freeze(model: nn.Module, device: torch.device) -> None:
    """Makes a model a teacher, in place: evaluated only, and as fast as it can be.

    Its batch norms move into its convolutions, which changes its outputs by rounding, about one part in a million.
    """
    fold_batch_norms(model)
    model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]


def narrow_to_bfloat16(model: nn.Module) -> None:
    """Holds as bfloat16 the weights that autocast would turn into that at each forward, in place. Under autocast the
    outputs stay the same, bit for bit."""
    for module in model.modules():
        if type(module) in (nn.Conv2d, nn.Linear):  # a subclass may compute something of its weights
            module.to(torch.bfloat16)

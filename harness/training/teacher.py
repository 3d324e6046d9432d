"""The teacher: its weights read without executing anything, verified, frozen, its accuracy measured again."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.data.base import EvalSet
from harness.models.base import ConvNet, describe
from harness.models.build import build
from harness.models.folding import fold_batch_norms
from harness.models.weights import BadWeights, first_line, load_weights
from harness.training.evaluate import evaluate
from harness.training.outputs import gathered, in_float32
from harness.training.precision import autocast
from harness.training.ranks import ALONE, Ranks
from methods.base import Outputs, TapSpec

STATED_TOP1_MARGIN = 0.1  # points; decoding and convolution libraries move single test images


@dataclass
class Teacher:
    """A frozen teacher."""

    model: ConvNet
    name: str
    file: Path  # of its weights
    sha256: str
    top1: float  # in %, measured here
    spec: TapSpec
    ranks: Ranks = ALONE
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
            narrow(self.model)
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
    name: str, file: Path, sha256: str, stated_top1: float | None, on: EvalSet, image_shape: tuple[int, int, int],
    num_classes: int, device: torch.device, ranks: Ranks = ALONE,
) -> Teacher:  # fmt: skip
    """Raises:
    BadWeights: missing file, other content than ``sha256``, not this model's weights, or another accuracy than stated.
    """
    model = build(name, num_classes, in_channels=image_shape[0])
    load_weights(model, name, file, sha256)
    spec = describe(model, image_shape)
    freeze(model, device)
    top1 = evaluate(model, on, ranks=ranks).top1
    if stated_top1 is not None and abs(top1 - stated_top1) > STATED_TOP1_MARGIN:
        raise BadWeights(f"teacher {name} from {file}: measured top-1 {top1:.2f} %, stated {stated_top1:.2f} %")
    return Teacher(model, name, file, sha256, top1, spec, ranks)


def freeze(model: ConvNet, device: torch.device) -> None:
    """Makes a model a teacher, in place: evaluated only, and as fast as it can be.

    Its batch norms move into its convolutions, which changes its outputs by rounding, about one part in a million.
    """
    fold_batch_norms(model)
    model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]


def narrow(model: nn.Module) -> None:
    """Holds as bfloat16 the weights that autocast would turn into that at each forward, in place. Under autocast the
    outputs stay the same, bit for bit."""
    for module in model.modules():
        if type(module) in (nn.Conv2d, nn.Linear):  # a subclass may compute something of its weights
            module.to(torch.bfloat16)

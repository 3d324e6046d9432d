"""What a distillation method is: the types it is given and the class it extends.

A method knows nothing about runs, clusters or files; it imports torch and its own siblings only.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Head:
    """The end of a model whose logits are a linear layer's of the mean over positions of one of its maps."""

    tap: str  # its map is read through a ReLU when the name ends in ``.preact``
    weight: Tensor  # (classes, C)
    bias: Tensor  # (classes,)

    def read(self, features: dict[str, Tensor]) -> Tensor:
        """The map (B, C, H, W) whose mean the linear layer reads."""
        x = features[self.tap]
        return x.relu() if self.tap.endswith(".preact") else x


@dataclass(frozen=True)
class TapSpec:
    """What one model offers a method; known before training starts.

    A tap is a named place in a model whose feature map a method may read. Names run from the input to the
    output: ``stem``, ``stage1``, ``stage2``, ... ; ``names`` keeps that order.
    """

    channels: dict[str, int]  # tap -> C
    sizes: dict[str, tuple[int, int]]  # tap -> (H, W)
    embedding_dim: int  # width of the pooled penultimate feature
    num_classes: int
    head: Head | None = field(default=None, compare=False)  # where the model has such an end
    pooled: bool = True  # whether an image's embedding is pooled from its last map; a detector's are of RoIs

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.channels)

    @property
    def listed(self) -> str:
        """The names as a message lists them: without those of single modules, of which there can be hundreds."""
        of_modules = any(name.startswith("module.") for name in self.names)
        return ", ".join(n for n in self.names if not n.startswith("module.")) + ", module.PATH" * of_modules

    def resolve(self, tap: str) -> str:
        """The tap's own name; ``last`` stands for the deepest one before pooling.

        Raises:
            ValueError: the model has no such tap.
        """
        if tap == "last":
            return [n for n in self.names if "." not in n][-1]
        if tap not in self.channels:
            raise ValueError(f"no tap named {tap!r}; this model has: {self.listed}, last")
        return tap


class SampleRandom:
    """Random numbers for the samples of one step: a pure function of ``seed``, which says the run's seed and the step.

    So training that is resumed anywhere, in any pack, on any number of processes sees the same values for a sample.
    """

    def __init__(self, seed: int, batch: int, device: torch.device | str = "cpu"):
        self.generator = torch.Generator(device)
        self._batch = batch
        self._device = device
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Begins another step's values."""
        self.generator.manual_seed(seed)

    def part(self, batch: int) -> "SampleRandom":
        """For so many of the step's samples: goes on drawing where the parts before have stopped."""
        part = copy.copy(self)
        part._batch = batch
        return part

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal values of shape (batch, *shape)."""
        return torch.randn((self._batch, *shape), generator=self.generator, device=self._device, dtype=dtype)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values in [0, 1) of shape (batch, *shape)."""
        return torch.rand((self._batch, *shape), generator=self.generator, device=self._device, dtype=dtype)


@dataclass
class Batch:
    """One training batch as a method sees it: the whole one, but for its images, which several processes share out.

    A recipe's ``accumulate`` cuts it into micro-batches; the method is then given each of these in turn.
    """

    images: Tensor  # (B, C, H, W) float, normalised; of several processes, each has its share
    targets: Tensor  # (B,) int64 class
    indices: Tensor  # (B,) int64 position in the training set
    random: SampleRandom
    # The one that is running: those of the main stage are 1, 2, ..., a first stage's end with 0. A batch of no epoch is
    # past every warm-up.
    epoch: float = math.inf

    def ramp(self, epochs: int) -> float:
        """min(epoch / epochs, 1): the factor of a term that comes in over the first ``epochs``; 1 where those are 0."""
        return min(self.epoch / epochs, 1.0) if epochs else 1.0


@dataclass
class Outputs:
    """What a model returns for a batch."""

    logits: Tensor  # (B, classes)
    embedding: Tensor  # (B, D) pooled penultimate feature
    features: dict[str, Tensor] = field(default_factory=dict)  # tap -> (B, C, H, W), the taps asked for


@dataclass(frozen=True)
class FirstStage:
    """A stage before the main one, with a loss of its own: ``Distiller.first_terms``.

    It trains what its loss reaches, and nothing else. The student is run no further than the stage's taps, so that what
    lies behind them stays as it was, batch norms' statistics included; without taps it is not run at all. The optimiser
    is the recipe's with a constant learning rate, and begins the main stage without momenta.
    """

    epochs: int  # 0: there is no such stage
    student_taps: Sequence[str] = ()
    teacher_taps: Sequence[str] = ()
    lr: float | None = None  # None: the recipe's, before any decay
    teacher_later: bool = True  # whether the main stage reads the teacher too

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"the first stage must have 0 or more epochs, not {self.epochs}")
        if self.lr is not None and self.lr <= 0:
            raise ValueError(f"the first stage's learning rate must be positive, not {self.lr}")


class Distiller(nn.Module):
    """A knowledge-distillation method.

    Its parameters are trained together with the student; its buffers are checkpointed with it. Subclasses state:

    ``weights``       the terms of the loss and their default weights. ``ce``, the cross-entropy with the labels, is
                      computed by the trainer for every method; every other name is a key of what ``forward`` returns.
    ``diagnostics``   further keys of what ``forward`` returns: logged per epoch, never optimised.
    ``logits_only``   whether the teacher's logits are all that ``forward`` reads of it: then they can be kept, see the
                      recipe's ``teacher_top_k``.
    ``part_of_model`` whether the trained model is the student together with the method: then it is evaluated through
                      ``predict`` and saved with the method's tensors, and ``forward`` returns the ``ce`` of it.
    ``version``       raised whenever the method's numbers change, so that old results keep their own identity.

    Hyper-parameters are keyword-only arguments of ``__init__`` with a type and a literal default: the sweep planner
    reads them from the source, without importing torch.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0}
    diagnostics: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    needs_teacher: ClassVar[bool] = True
    logits_only: ClassVar[bool] = False
    part_of_model: ClassVar[bool] = False

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__()

    @property
    def student_taps(self) -> Sequence[str]:
        """Names of the student's feature maps that ``forward`` reads."""
        return ()

    @property
    def teacher_taps(self) -> Sequence[str]:
        """Names of the teacher's feature maps that ``forward`` reads."""
        return ()

    @property
    def first_stage(self) -> FirstStage | None:
        """The stage before the main one, of a method that has it."""
        return None

    @property
    def peer(self) -> Literal["scratch", "teacher"] | None:
        """For a method whose teacher learns too: whether it begins from fresh weights or the teacher's. ``forward``
        is then given the run's own network of the teacher's architecture for a teacher, its tensors with gradients."""
        return None

    def setup(self, train_targets: Tensor) -> None:
        """Called once before training and before a checkpoint is loaded, with the training set's labels (N,)."""

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        """Scalar terms by name, unweighted, averaged over the batch. The teacher's tensors carry no gradient."""
        raise NotImplementedError

    def warnings(self, means: dict[str, float]) -> Iterable[str]:
        """What is wrong with a run, by the means of its terms and diagnostics over an epoch of the main stage.

        What is said of the last one is told under tables: without numbers, so that seeds can be counted.
        """
        return ()

    def predict(self, student: Outputs) -> Tensor:
        """Logits (B, classes) of the trained model, for a method that is part of it; there are the maps of
        ``student_taps``."""
        raise NotImplementedError

    def first_terms(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        """Scalar terms by name whose sum is the first stage's loss. Of the student there are the stage's maps alone."""
        raise NotImplementedError

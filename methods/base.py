"""What a distillation method is: the types it is given and the class it extends.

A method knows nothing about runs, clusters or files; it imports torch and its own siblings only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn


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

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.channels)

    def resolve(self, tap: str) -> str:
        """The tap's own name; ``last`` stands for the deepest one before pooling.

        Raises:
            ValueError: the model has no such tap.
        """
        if tap == "last":
            return [n for n in self.names if "." not in n][-1]
        if tap not in self.channels:
            raise ValueError(f"no tap named {tap!r}; this model has: {', '.join(self.names)}, last")
        return tap


class SampleRandom:
    """Random numbers for the samples of one step: a pure function of ``seed``, which says the run's seed and the step.

    So training that is resumed anywhere, in any pack, on any number of processes sees the same values for a sample.
    """

    def __init__(self, seed: int, batch: int, device: torch.device | str = "cpu"):
        self._generator = torch.Generator(device).manual_seed(seed)
        self._batch = batch
        self._device = device

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal values of shape (batch, *shape)."""
        return torch.randn((self._batch, *shape), generator=self._generator, device=self._device, dtype=dtype)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values in [0, 1) of shape (batch, *shape)."""
        return torch.rand((self._batch, *shape), generator=self._generator, device=self._device, dtype=dtype)


@dataclass
class Batch:
    """One training batch as a method sees it: the whole one, also when several processes share its images out."""

    images: Tensor  # (B, C, H, W) float, normalised
    targets: Tensor  # (B,) int64 class
    indices: Tensor  # (B,) int64 position in the training set
    random: SampleRandom
    epoch: float = math.inf  # the one that is running, counted from 1; a batch of no epoch is past every warm-up

    def ramp(self, epochs: int) -> float:
        """min(epoch / epochs, 1): the factor of a term that comes in over the first ``epochs``; 1 where those are 0."""
        return min(self.epoch / epochs, 1.0) if epochs else 1.0


@dataclass
class Outputs:
    """What a model returns for a batch."""

    logits: Tensor  # (B, classes)
    embedding: Tensor  # (B, D) pooled penultimate feature
    features: dict[str, Tensor] = field(default_factory=dict)  # tap -> (B, C, H, W), the taps asked for


class Distiller(nn.Module):
    """A knowledge-distillation method.

    Its parameters are trained together with the student; its buffers are checkpointed with it. Subclasses state:

    ``weights``       the terms of the loss and their default weights. ``ce``, the cross-entropy with the labels, is
                      computed by the trainer for every method; every other name is a key of what ``forward`` returns.
    ``diagnostics``   further keys of what ``forward`` returns: logged per epoch, never optimised.
    ``version``       raised whenever the method's numbers change, so that old results keep their own identity.

    Hyper-parameters are keyword-only arguments of ``__init__`` with a type and a literal default: the sweep planner
    reads them from the source, without importing torch.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0}
    diagnostics: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    needs_teacher: ClassVar[bool] = True

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

    def setup(self, train_targets: Tensor) -> None:
        """Called once before training and before a checkpoint is loaded, with the training set's labels (N,)."""

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        """Scalar terms by name, unweighted, averaged over the batch. The teacher's tensors carry no gradient."""
        raise NotImplementedError

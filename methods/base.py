"""The class that a distillation method extends, and the types of its inputs.

A method knows nothing about runs, clusters or files; it imports only torch and other modules of this package.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CAM = "cam"  # the tap of class activation maps


@dataclass(frozen=True)
class Head:
    """The end of a model that applies a linear layer to the mean over positions of one of its maps."""

    tap: str  # the map passes a ReLU first when the name ends in ``.preact``
    weight: Tensor  # (classes, C)
    bias: Tensor  # (classes,)

    def read(self, features: dict[str, Tensor]) -> Tensor:
        """Return the map (B, C, H, W) whose mean the linear layer reads."""
        return map_read_by_head(features, self.tap)


def map_read_by_head(features: dict[str, Tensor], tap: str) -> Tensor:
    """Return the map (B, C, H, W) of a head's tap, after the ReLU where the tap is before it."""
    x = features[tap]
    return x.relu() if tap.endswith(".preact") else x


@dataclass(frozen=True)
class TapSpec:
    """The shapes of a model's outputs and feature maps, known before training starts.

    A tap is a named place in a model whose feature map a method may read. Names are ordered from the input to the
    output: ``stem``, ``stage1``, ``stage2``, ... A model of tokens also has ``tokens``, its patches after the last
    norm, and, where it has a class token, ``cls``, of size 1x1. A model with a ``head`` has ``cam``, its class
    activation maps (B, classes, H, W): what the linear layer, without bias, makes of each position.
    """

    channels: dict[str, int]  # tap -> C
    sizes: dict[str, tuple[int, int]]  # tap -> (H, W)
    embedding_dim: int  # width of the pooled penultimate feature
    num_classes: int
    head: Head | None = field(default=None, compare=False)  # None: the model has no such end
    pooled: bool = True  # False for a detector, whose embeddings are those of RoIs, not of pooled maps

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.channels)

    @property
    def listed(self) -> str:
        """Return the names for a message. ``module.PATH`` stands for those of single modules, often hundreds."""
        has_modules = any("module." in name for name in self.names)
        names = [name for name in self.names if "module." not in name]
        return ", ".join(names + ["module.PATH"] * has_modules)

    def nearest(self, tap: str) -> str:
        """Return examples of ``module.PATH`` for a message: the names nearest to an unknown tap, or the last ones."""
        modules = [name for name in self.names if "module." in name]
        close = get_close_matches(tap, modules, 3) if "module." in tap else []
        return f" (such as {', '.join(close or modules[-3:])})" if modules else ""

    def resolve(self, tap: str, of: str = "this model") -> str:
        """Return the tap's own name; ``last`` stands for the deepest tap before pooling, or a model's last stage.

        ``of`` names the model in the message.

        Raises:
            ValueError: the model has no such tap.
        """
        places = [name for name in self.names if "." not in name and name not in ("cls", CAM)]
        stages = [name for name in places if name != "tokens"] or places
        if tap == "last" and stages:
            return stages[-1]
        if tap not in self.channels:
            stage = tap.removesuffix(".preact")
            why = f": no ReLU ends {stage}" if stage != tap and stage in self.channels else ""
            raise ValueError(
                f"no tap named {tap!r}{why}; {of} has: {self.listed}{', last' * bool(stages)}{self.nearest(tap)}"
            )
        return tap


def taps_of_both(taps: str) -> tuple[str, str]:
    """Return the student's and the teacher's part of a hyper-parameter that names taps.

    ``a:b`` is the student's tap ``a`` and the teacher's tap ``b``; ``a`` alone is a tap of both.
    """
    parts = [part.strip().partition(":") for part in taps.split(",")]
    return ",".join(own for own, _, _ in parts), ",".join(other or own for own, _, other in parts)


def resolve_both(student: TapSpec, teacher: TapSpec, tap: str) -> tuple[str, str]:
    """Return the student's and the teacher's tap that a hyper-parameter stands for.

    Raises:
        ValueError: one of the models has no such tap.
    """
    own, other = taps_of_both(tap)
    return student.resolve(own.strip(), "the student"), teacher.resolve(other.strip(), "the teacher")


class SampleRandom:
    """Random numbers for the samples of one step, a pure function of ``seed``.

    The seed is derived from the run's seed and the step. A sample therefore gets the same values after a resume, in any
    pack and on any number of processes.
    """

    def __init__(self, seed: int, batch: int, device: torch.device | str = "cpu"):
        self.generator = torch.Generator(device)
        self._batch = batch
        self._device = device
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Start another step's values."""
        self.generator.manual_seed(seed)

    def part(self, rows: slice) -> "SampleRandom":
        """Return the numbers of these samples of the step: they continue after those of earlier parts."""
        part = copy.copy(self)
        part._batch = len(range(self._batch)[rows])
        return part

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return standard normal values (batch, *shape)."""
        return self._draw(torch.randn, shape, dtype)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return uniform values in [0, 1), (batch, *shape)."""
        return self._draw(torch.rand, shape, dtype)

    def _draw(self, draw: Callable[..., Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return draw((self._batch, *shape), generator=self.generator, device=self._device, dtype=dtype)


@dataclass
class Batch:
    """One training batch. Targets and indices cover the global batch; images are this rank's shard.

    For detection, everything is the local shard: see ``methods.detection.DetectionBatch``. A recipe's ``accumulate``
    splits the batch into micro-batches; the method then gets each of them in turn.
    """

    images: Tensor  # (B, C, H, W) float, normalised; this rank's shard
    targets: Tensor  # (B,) int64 class
    indices: Tensor  # (B,) int64 position in the training set
    random: SampleRandom
    # Epochs of the main stage are 1, 2, ...; a first stage's last epoch is 0.
    # Without an epoch every warm-up is over and no decay has begun.
    epoch: float = math.inf
    # Where a recipe mixes images: (B, classes) float32, the share of each class. `targets` is then the largest share's.
    target_probs: Tensor | None = None
    views: dict[str, Tensor] = field(default_factory=dict)  # further views of the same images, shaped as `images`

    label_smoothing: float = 0.0  # the recipe's

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Return the cross-entropy of logits (B, classes) with the targets or, of mixed images, their shares."""
        targets = self.targets if self.target_probs is None else self.target_probs
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def cosine_decay(self, start: int, end: int) -> float:
        """Return the factor of a term that ends: 1 up to epoch ``start``, then half a cosine to 0 at epoch ``end``."""
        if math.isinf(self.epoch):
            return 1.0
        done = (self.epoch - start) / (end - start) if end > start else float(self.epoch > end)
        return (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))) / 2

    def ramp(self, epochs: int) -> float:
        """Return min(epoch / epochs, 1), the factor of a term that warms up over ``epochs``; 1 for 0 epochs."""
        return min(self.epoch / epochs, 1.0) if epochs else 1.0


@dataclass
class Outputs:
    """A model's outputs for a batch."""

    logits: Tensor  # (B, classes)
    embedding: Tensor  # (B, D) pooled penultimate feature
    features: dict[str, Tensor] = field(default_factory=dict)  # tap -> (B, C, H, W), for the requested taps
    # Each teacher's own outputs, where there are several: then ``logits`` are the mean of theirs, the embedding is
    # empty, and taps are named by a teacher's position: ``0.stage1``, ``1.stage1``.
    teachers: "tuple[Outputs, ...]" = ()
    views: dict[str, "Outputs"] = field(default_factory=dict)  # the outputs for the views that the method names


@dataclass(frozen=True)
class FirstStage:
    """A stage before the main one, with its own loss, ``Distiller.first_terms``.

    It trains only what its loss reaches. The student runs only up to the stage's taps, so that later layers do not
    change, batch norms' statistics included; without taps it does not run at all. The optimiser is the recipe's with a
    constant learning rate; its momenta are reset before the main stage.
    """

    epochs: int  # 0: no such stage
    student_taps: Sequence[str] = ()
    teacher_taps: Sequence[str] = ()
    lr: float | None = None  # None: the recipe's, without decay
    teacher_later: bool = True  # whether the main stage uses the teacher too

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"the first stage must have 0 or more epochs, not {self.epochs}")
        if self.lr is not None and self.lr <= 0:
            raise ValueError(f"the first stage's learning rate must be positive, not {self.lr}")


class TeacherPass(Protocol):
    """A pass of the frozen teacher over training images before training, for what a method measures on them.

    The images are seen as in an evaluation. Write it as a frozen dataclass: of equal ones a job makes one, for all its
    runs.
    """

    @property
    def tap(self) -> str:
        """Return the name of the teacher's map that is read."""

    def images(self, targets: Tensor) -> Tensor:
        """Return the positions (M,) of the images to read, in their order, in a training set with labels (N,)."""

    def measure(self, maps: Tensor, targets: Tensor) -> Tensor:
        """Return what is measured on the maps (M, C, H, W) of images with labels (M,)."""


class Distiller(nn.Module):
    """A knowledge-distillation method.

    Its parameters are trained together with the student; its buffers are checkpointed with it. Subclasses state:

    ``weights``       the terms of the loss and their default loss weights. The trainer computes ``ce``, the student's
                      loss without a teacher, for every method: the cross-entropy with the labels, or the sum of a
                      detector's losses. Every other name is a key of the dictionary that ``forward`` returns; a
                      method that also learns the labels of further views returns ``ce`` too.
    ``diagnostics``   further keys of that dictionary: logged per epoch, never optimised.
    ``logits_only``   whether ``forward`` reads nothing of the teacher except its logits: then they can be cached, see
                      the recipe's ``teacher_top_k``.
    ``several_teachers`` whether ``forward`` reads ``Outputs.teachers``, so that it can learn more of several teachers
                      than the mean of their logits. With a single teacher these are empty.
    ``part_of_model`` whether the trained model is the student together with the method: then it is evaluated through
                      ``predict`` and saved with the method's tensors, and ``forward`` returns its ``ce``.
    ``student_without_bias`` whether the bias of the student's head is set to 0 and not trained: it stays an ordinary
                      student, whose logits are the means of its class activation maps.
    ``views``         the recipe's further views of each image that ``forward`` reads, by name: student and teacher run
                      on each, and ``Outputs.views`` has what they return.
    ``views_with``    a hyper-parameter and its value with which alone ``forward`` reads them; None: it always does.
    ``per_image``     whether it keeps something of each training image, known by ``Batch.indices``: then a recipe
                      cannot mix images.
    ``defined_for``   the kinds of models it can compare: ``classification``; ``detection``, detectors by their maps;
                      ``two_stage``, detectors by their outputs for regions: see ``methods.detection``.
    ``used_with``     hyper-parameter -> another one and its value, with which alone it is used; a sweep that states it
                      with another value is warned.
    ``version``       raised whenever the method's numbers change, so that old results keep their own identity.

    ``__init__`` may set what depends on the models and hyper-parameters:

    ``student_taps``  the taps of the student that ``forward`` reads.
    ``teacher_taps``  the taps of the teacher that ``forward`` reads.
    ``student_view_taps`` and ``teacher_view_taps``  likewise, of further views.
    ``first_stage``   the stage before the main one.
    ``teacher_pass``  what is measured on the teacher before training, a ``TeacherPass``; classification alone has it.
    ``peer``          the start of a teacher that is trained too: fresh weights (``scratch``) or the teacher's
                      (``teacher``). ``forward`` then gets the outputs, with gradients, of the run's own network of the
                      teacher's architecture.

    Hyper-parameters are keyword-only arguments of ``__init__`` with a type and a literal default: the sweep planner
    reads them from the source, without importing torch.
    """

    weights: ClassVar[dict[str, float]]
    diagnostics: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    needs_teacher: ClassVar[bool] = True
    defined_for: ClassVar[tuple[str, ...]] = ("classification",)
    logits_only: ClassVar[bool] = False
    several_teachers: ClassVar[bool] = False
    part_of_model: ClassVar[bool] = False
    student_without_bias: ClassVar[bool] = False
    views: ClassVar[tuple[str, ...]] = ()
    views_with: ClassVar[tuple[str, object] | None] = None
    per_image: ClassVar[bool] = False
    used_with: ClassVar[dict[str, tuple[str, str]]] = {}

    student_taps: Sequence[str] = ()
    teacher_taps: Sequence[str] = ()
    student_view_taps: Sequence[str] = ()
    teacher_view_taps: Sequence[str] = ()
    first_stage: FirstStage | None = None
    teacher_pass: TeacherPass | None = None
    peer: Literal["scratch", "teacher"] | None = None

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__()

    def setup(self, train_targets: Tensor) -> None:
        """Prepare for a training set with labels (N,). Called once, before training and any loading of a checkpoint."""

    def use_teacher_pass(self, measured: Tensor) -> None:
        """Store, in buffers, what the teacher's pass has measured.

        Called once, before training; a run that resumes has it in its checkpoint. Training must be possible without it.
        """
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        """Return scalar terms by name, unweighted, averaged over the batch. The teacher's tensors carry no gradient."""
        raise NotImplementedError

    def warnings(self, means: dict[str, float]) -> Iterable[str]:
        """Return what is wrong with a run, judged by an epoch's means of its terms and diagnostics.

        The last epoch's warnings are printed under tables, which count the seeds with the same text: leave out numbers.
        """
        return ()

    def predict(self, student: Outputs) -> Tensor:
        """Return the trained model's logits (B, classes), for a method that is part of the model.

        ``student`` has the maps of ``student_taps``.
        """
        raise NotImplementedError

    def first_terms(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        """Return scalar terms by name; their sum is the first stage's loss. ``student`` has only the stage's maps."""
        raise NotImplementedError


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless a hyper-parameter is above 0."""
    if value <= 0:
        raise ValueError(f"{name} must be positive, not {value}")


def check_not_negative(name: str, value: float) -> None:
    """Raise ValueError if a hyper-parameter is below 0."""
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, not {value}")


def check_at_least_1(name: str, value: float) -> None:
    """Raise ValueError unless a hyper-parameter is 1 or more."""
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")


def check_decay(start: int, end: int) -> None:
    """Raise ValueError unless a decay starts at epoch 0 or later and does not end before it starts."""
    if not 0 <= start <= end:
        raise ValueError(f"decay_start must be 0 or more and at most decay_end, not {start} with decay_end {end}")


def check_choice(name: str, value: object, *choices: object) -> None:
    """Raise ValueError unless a hyper-parameter has one of its values."""
    if value not in choices:
        *others, last = map(repr, choices)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}, not {value!r}")

"""Base classes and functions of methods that compare feature maps of the two models, tap by tap."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from methods.base import Batch, Distiller, FirstStage, Outputs, TapSpec, taps_of_both

ANY_SHAPE = "at, nst, sp and vid compare maps of any width and size, with a ReLU or without"


class TapPairs(Distiller):
    """A method that compares pairs of maps. Each model's taps are a text of names separated by commas.

    ``a:b`` is the student's tap ``a`` and the teacher's tap ``b``; ``a`` alone is a tap of both.

    ``stages`` stands for stage1, stage2, ...; ``stages.preact`` for stage1.preact, stage2.preact, ... For a detector,
    both stand for the levels of its feature pyramid, which no ReLU follows.
    """

    def __init__(self, student: TapSpec, teacher: TapSpec, student_taps: str, teacher_taps: str | None = None):
        super().__init__(student, teacher)
        own, other = taps_of_both(student_taps)
        self.student_taps = expand_taps(student, own, "the student")
        self.teacher_taps = expand_taps(teacher, teacher_taps or other, "the teacher")
        if len(self.student_taps) != len(self.teacher_taps):
            raise ValueError(
                f"the student's taps {', '.join(self.student_taps)} and the teacher's "
                f"{', '.join(self.teacher_taps)} do not pair up: name as many for both models"
            )
        # The taps (student's, teacher's) of each pair, and their channels
        self.names = list(zip(self.student_taps, self.teacher_taps, strict=True))
        self.widths = [(student.channels[s], teacher.channels[t]) for s, t in self.names]

    def maps(self, student: Outputs, teacher: Outputs) -> Iterator[tuple[Tensor, Tensor]]:
        """Return (student's map (B, C_s, H_s, W_s), teacher's map (B, C_t, H_t, W_t)) of each pair."""
        return ((student.features[s], teacher.features[t]) for s, t in self.names)


class FirstStagePairs(TapPairs):
    """A method that compares pairs of maps in a first stage. The main stage has only the cross-entropy, no teacher."""

    def __init__(self, student: TapSpec, teacher: TapSpec, taps: str, epochs: int):
        super().__init__(student, teacher, taps)
        self.first_stage = FirstStage(epochs, self.student_taps, self.teacher_taps, teacher_later=False)
        self.student_taps = self.teacher_taps = ()  # the main stage reads no maps

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {}


def expand_taps(spec: TapSpec, taps: str, of: str = "this model") -> tuple[str, ...]:
    """Return the tap names that a hyper-parameter stands for. ``of`` names the model in messages.

    Raises:
        ValueError: the model has no such tap, or no stages.
    """
    prefix = "stage" if spec.pooled else "p"
    stages = [name for name in spec.names if name.startswith(prefix) and "." not in name]
    names = []
    for part in taps.split(","):
        stage, _, inner = part.strip().partition(".")
        if stage == "stages" and not spec.pooled:
            inner = ""
        matching = stages if stage == "stages" else [stage]
        names += [_resolve(spec, f"{name}.{inner}" if inner else name, of) for name in matching]
    if not names:
        raise ValueError(f"no stages in {of}, which has: {spec.listed}{spec.nearest(taps)}")
    return tuple(names)


def _resolve(spec: TapSpec, name: str, of: str) -> str:
    try:
        return spec.resolve(name, of)
    except ValueError as e:
        if name.removesuffix(".preact") in spec.channels:  # only its ReLU is missing
            raise ValueError(f"{e}; {ANY_SHAPE}") from None
        raise


def total(terms: Iterable[Tensor]) -> Tensor:
    """Return the sum of at least one scalar."""
    return torch.stack(list(terms)).sum()

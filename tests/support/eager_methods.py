"""Methods that no graph can hold, or that fail when they are captured: their steps stay eager."""

from typing import ClassVar

import torch
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class Odd(Distiller):
    """Base of methods that a graph cannot hold."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def factor(self, batch: Batch) -> float | Tensor:
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"odd": student.logits.square().mean() * self.factor(batch)}


class CountsInPython(Odd):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.steps = [0]

    def factor(self, batch: Batch) -> float | Tensor:
        self.steps[0] += 1
        return 1 / self.steps[0]


class HoldsATensor(Odd):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.held = {"factor": torch.ones(())}

    def factor(self, batch: Batch) -> float | Tensor:
        self.held["factor"] = self.held["factor"].to(batch.images.device) * 0.9
        return self.held["factor"]


class ReplacesABuffer(Odd):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.register_buffer("scale", torch.ones(()))

    def factor(self, batch: Batch) -> float | Tensor:
        self.scale = self.scale * 0.9
        return self.scale


class DrawsOnTheHost(Odd):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def factor(self, batch: Batch) -> float | Tensor:
        return float(torch.rand(()))


class SpoilsTheTeacher(Odd):
    """Changes the teacher's logits in place, which autograd does not notice."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        teacher.logits.zero_()
        return {"odd": student.logits.square().mean()}


class RaisesLater(Odd):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def factor(self, batch: Batch) -> float | Tensor:
        if batch.epoch == 2:
            raise ArithmeticError("a bug")
        return 1.0

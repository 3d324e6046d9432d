"""KD on an image and on a further view of it, for benches."""

from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Outputs
from methods.kd import KD


class TwoViewKD(KD):
    """KD with the sum of the two views' terms."""

    weights: ClassVar[dict[str, float]] = {"ce": 0.1, "kd": 0.9}
    views: ClassVar[tuple[str, ...]] = ("strong",)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        strong = super().forward(batch, student.views["strong"], teacher.views["strong"])
        return {"kd": super().forward(batch, student, teacher)["kd"] + strong["kd"]}

"""CAT-KD: transfer of class activation maps."""

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from methods.base import CAM, Batch, Distiller, Outputs, TapSpec, check_at_least_1, check_choice
from methods.unit_vectors import plain_unit


class CATKD(Distiller):
    """Class attention transfer: Guo et al. 2023, "Class Attention Transfer Based Knowledge Distillation",
    arXiv:2304.12777.

        A(k, x) = sum_c w_kc f_c(x)                  (B, classes, H, W): class k's activation map
        L_cam = ( n(pool_R A_s) - n(pool_R A_t) )^2,  mean over batch, classes and R x R cells

    f is the map whose mean the classifier w reads, pool_R adaptive mean pooling to ``resolution`` R, and n the identity
    or, with ``normalise``, division of each map by its length over the cells. ``binarise`` makes the teacher's map,
    before pooling, 1 where it is above its mean absolute value and 0 elsewhere.

    ``reading: paper`` normalises throughout and divides by the classes alone: R^2 times the code's normalised term.

    The maps have no bias, so the student is trained and evaluated without its classifier's, as by the authors. They
    drop the teacher's too; here the teacher's accuracy in tables includes its bias, which its maps do not.

    Defaults and code: GzyAftermath/CAT-KD @4467073, mdistiller/distillers/CAT_KD.py; 1 CE + 15, R = 2 and no
    normalisation are its configuration of resnet32x4 > resnet8x4. Its weight and R vary from pair to pair, and five of
    its cross-architecture pairs normalise. Its ``onlyCAT`` is weight 0 of ``ce``. Its choice of some classes' maps is
    left out. An all-zero map stays 0 under n, without a gradient; the code's is 1e12 times the difference.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "cam": 15.0}
    student_without_bias: ClassVar[bool] = True
    student_taps = teacher_taps = (CAM,)
    used_with: ClassVar[dict[str, tuple[str, str]]] = {"normalise": ("reading", "code")}

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        resolution: int = 2,
        normalise: bool = False,
        binarise: bool = False,
        reading: Literal["code", "paper"] = "code",
    ):
        super().__init__(student, teacher)
        check_at_least_1("resolution", resolution)
        check_choice("reading", reading, "code", "paper")
        for who, spec in (("student", student), ("teacher", teacher)):
            if spec.head is None:
                raise ValueError(
                    f"no class activation maps: the {who}'s logits are not linear in its last map's mean or class token"
                )
        self.pooled = [who for who, spec in (("student", student), ("teacher", teacher)) if spec.sizes[CAM] == (1, 1)]
        self.resolution, self.binarise = resolution, binarise
        self.normalise = normalise or reading == "paper"
        self.scale = resolution**2 if reading == "paper" else 1

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        a_s, a_t = student.features[CAM], teacher.features[CAM]
        if self.binarise:
            a_t = (a_t > a_t.abs().mean((2, 3), keepdim=True)).to(a_t)
        return {"cam": self.scale * F.mse_loss(self._cells(a_s), self._cells(a_t))}

    def warnings(self, means: dict[str, float]) -> list[str]:
        return [f"the {who}'s class activation maps have one position, so they tell no place" for who in self.pooled]

    def _cells(self, maps: Tensor) -> Tensor:
        """Return the cells (B, classes, R^2) of maps (B, classes, H, W)."""
        cells = F.adaptive_avg_pool2d(maps, self.resolution).flatten(2)
        return plain_unit(cells, 2) if self.normalise else cells

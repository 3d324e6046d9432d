"""MLKD: multi-level logit distillation of a weak and a strong view."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec, check_choice, check_positive

FURTHER = (3.0, 5.0, 2.0, 6.0)  # temperatures beside `temperature`
READ_STRONG = 3  # with the code's reading, the first three temperatures of the strong view read its logits


class MLKD(Distiller):
    """Multi-level logits: Jin, Wang, Lin 2023, "Multi-Level Logit Distillation", CVPR 2023, section 3.

        KL_T = T^2 KL( P_t || P_s ) of a row,  P = softmax(z / T), (B, classes),  T in S = { temperature, 3, 5, 2, 6 }
        L_kd = a sum_S KL_T(weak) + sum_{temperature, 3, 5} KL_T(strong) + sum_{2, 6} KL_T(weak),  means over the batch
        L_cc = b sum_S || P_t' P_t - P_s' P_s ||^2 / classes,   L_bc = a sum_S || P_t P_t' - P_s P_s' ||^2 / B,   weak
        L_ce = CE(weak) + CE(strong)

    The weak view is the batch's images, the strong one the recipe's view of that name. a is the share of images whose
    largest teacher probability, at T = 1 of the weak view, is at most the batch's median; b the share of classes whose
    sum of these probabilities over the batch is at most the median over classes. This, T = 4 and the weights are what
    the authors' code computes (Jin-Ying/Multi-Level-Logit-Distillation @5ee473f, mdistiller/distillers/KD_ours.py).
    ``reading: paper`` has masks instead of these shares, of rows and of the columns of the squared differences, and the
    strong view at all five temperatures. ``strong_view: false`` is the weak view alone, as MLKD_NOAUG of zju-SWJ/RLD
    @8b6cf60. Where mixed images or label smoothing change the labels, they do in both views.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 0.1, "kd": 0.9, "cc": 0.9, "bc": 0.9}
    views: ClassVar[tuple[str, ...]] = ("strong",)
    views_with: ClassVar[tuple[str, object] | None] = ("strong_view", True)
    logits_only: ClassVar[bool] = True
    temperatures: Tensor

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        temperature: float = 4.0,
        strong_view: bool = True,
        reading: Literal["code", "paper"] = "code",
    ):
        super().__init__(student, teacher)
        check_positive("temperature", temperature)
        check_choice("reading", reading, "code", "paper")
        self.strong_view, self.reading = strong_view, reading
        self.register_buffer("temperatures", torch.tensor((temperature, *FURTHER)), persistent=False)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        z_s, z_t = student.logits, teacher.logits
        rows, classes = self.masks(z_t)
        kl = self.divergences(z_s, z_t, self.temperatures)
        p_s, p_t = ((z / self.temperatures[:, None, None]).softmax(2) for z in (z_s, z_t))
        terms = {"kd": (rows * kl).sum(0).mean(), "cc": gram_loss(p_s.mT, p_t.mT, classes)}
        terms["bc"] = gram_loss(p_s, p_t, rows)
        if self.strong_view:
            strong_s, strong_t = student.views["strong"].logits, teacher.views["strong"].logits
            count = READ_STRONG if self.reading == "code" else len(self.temperatures)
            kl_strong = torch.cat([self.divergences(strong_s, strong_t, self.temperatures[:count]), kl[count:]])
            terms["kd"] = terms["kd"] + kl_strong.sum(0).mean()
            terms["ce"] = batch.cross_entropy(z_s) + batch.cross_entropy(strong_s)
        return terms

    def masks(self, z_t: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1 for what the teacher is less sure of, else 0: of rows (B,) and classes; for the code, both means."""
        p = z_t.softmax(1)
        # Of an even count torch takes the lower middle value: what is at or below it is below the mean of both too.
        rows, classes = ((x <= x.median()).to(p.dtype) for x in (p.amax(1), p.sum(0)))
        return (rows, classes) if self.reading == "paper" else (rows.mean(), classes.mean())

    def divergences(self, z_s: Tensor, z_t: Tensor, temperatures: Tensor) -> Tensor:
        """Return T^2 KL(teacher || student) of each row at each temperature, (temperatures, B)."""
        log_p_s, log_p_t = (F.log_softmax(z / temperatures[:, None, None], dim=2) for z in (z_s, z_t))
        kl = F.kl_div(log_p_s, log_p_t, reduction="none", log_target=True).sum(2)
        return temperatures[:, None].square() * kl


def gram_loss(p_s: Tensor, p_t: Tensor, mask: Tensor) -> Tensor:
    """Return the masked sum of (P_t P_t' - P_s P_s')^2 over its columns, divided by n, for P (temperatures, n, m)."""
    gap = p_t @ p_t.mT - p_s @ p_s.mT
    return (mask * gap.square()).sum() / gap.shape[-1]

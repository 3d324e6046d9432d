"""TeKAP-F: CRD with a noisy copy of the teacher's feature."""

from typing import ClassVar, Literal

from torch import Tensor

from methods.base import Batch, Outputs, TapSpec, check_not_negative
from methods.crd import CRD, nce_loss


class TeKAPF(CRD):
    """CRD from two teacher features: Hossain et al. 2025, "Single Teacher, Multiple Perspectives: Teacher Knowledge
    Augmentation for Enhanced Knowledge Distillation", ICLR 2025. It is as in the authors' code
    (github.com/mdimtiazh/TeKAP @279d380, crd/criterion.py).

        f_n = (1 - noise) f_t + noise noise_std e         e (B, D_t) standard normal, new in each step
        L   = 2 L_s + L_t + L_n

    L_s and L_t are the student's and the teacher's part of L_crd, see ``crd.CRD``. After them both banks are updated;
    L_n is the teacher's part for f_n, with the same layer, rows and Z, against the student's updated bank. Then both
    banks are updated again, the student's with the same v_s, the teacher's with the embedding of f_n. The authors
    compute the student's part a second time, without using it, and count the first one twice.

    The paper draws several noisy teachers; the code has one on features, whose noise has a standard deviation of
    noise noise_std = 0.01. Weight 0.8 and the other defaults are those of the authors' code for CIFAR-100.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "crd": 0.8}
    per_image: ClassVar[bool] = True

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        feat_dim: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        noise: float = 0.1,
        noise_std: float = 0.1,
        mode: Literal["exact", "relax"] = "exact",
    ):
        super().__init__(
            student, teacher, feat_dim=feat_dim, negatives=negatives, temperature=temperature, momentum=momentum,
            mode=mode,
        )  # fmt: skip
        if not 0 <= noise <= 1:
            raise ValueError(f"noise must be between 0 and 1, not {noise}")
        check_not_negative("noise_std", noise_std)
        self.noise, self.noise_std = noise, noise_std

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        v_s, v_t = self.embed_s(student.embedding), self.embed_t(teacher.embedding)
        rows = self.contrast_rows(batch)
        loss_s, loss_t = self.contrast(v_s, v_t, rows, batch.indices)

        v_n = self.embed_t(self.perturb(teacher.embedding, batch))
        loss_n = nce_loss(self.score(v_n, self.bank_s, rows, batch.indices) - self.log_z[1], len(self.bank_s))
        self.remember(self.bank_s, batch.indices, v_s.detach())
        self.remember(self.bank_t, batch.indices, v_n.detach())
        return {"crd": 2 * loss_s + loss_t + loss_n}

    def perturb(self, f_t: Tensor, batch: Batch) -> Tensor:
        """Return f_n of f_t (B, D_t)."""
        e = batch.random.normal(f_t.shape[1], dtype=f_t.dtype).to(f_t.device)
        return (1 - self.noise) * f_t + self.noise * self.noise_std * e

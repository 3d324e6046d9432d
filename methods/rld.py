"""RLD: logits refined by the label: the teacher's confidence, and its classes below the target."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec, check_positive


class RLD(Distiller):
    """Refined logits: Sun et al. 2024, "Knowledge Distillation with Refined Logits", arXiv:2408.07703.

        b_s = ( p_s(target), 1 - p_s(target) ),  b_t = ( max p_t, 1 - max p_t )    p = softmax(z / A), z (B, classes)
        q   = softmax(z / T) over the classes c with z_t(c) < z_t(target)
        L_scd = A^2 KL( b_t || b_s ),   L_mcd = T^2 KL( q_t || q_s ),   means over the batch

    A is ``confidence_temperature``, T ``temperature``. The largest p_t counts whatever its class. The target itself is
    not among q's classes, so an image whose target is the teacher's last class adds nothing to L_mcd, though it counts
    in its mean.

    The weights 1 and 8, T = 4 and A = 1 are the defaults of the authors' code (github.com/zju-SWJ/RLD @d54578f,
    mdistiller/distillers/RLD.py); its README's example sets A to T. For ImageNet it has T = 1, a warm-up of 1 and beta
    (the weight of L_mcd) 0.5 for ResNet34 -> 18 and 2 for ResNet50 -> MobileNet. Both terms are multiplied by
    min(epoch / warmup, 1), with epochs from 1; 0 turns it off. The target of mixed images is the class of the larger
    share. Logarithms come from log-softmax: the authors' log of a sum of probabilities is infinite once 1 - p_s(target)
    rounds to 0.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "scd": 1.0, "mcd": 8.0}
    logits_only: ClassVar[bool] = True

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        temperature: float = 4.0,
        confidence_temperature: float = 1.0,
        warmup: int = 20,
    ):
        super().__init__(student, teacher)
        check_positive("temperature", temperature)
        check_positive("confidence_temperature", confidence_temperature)
        if warmup < 0:
            raise ValueError(f"warmup must be 0 or more epochs, not {warmup}")
        self.temperature, self.confidence_temperature, self.warmup = temperature, confidence_temperature, warmup

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        z_s, z_t, ramp = student.logits, teacher.logits, batch.ramp(self.warmup)
        return {
            "scd": ramp * confidence_loss(z_s, z_t, batch.targets, self.confidence_temperature),
            "mcd": ramp * below_target_loss(z_s, z_t, batch.targets, self.temperature),
        }


def confidence_loss(z_s: Tensor, z_t: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return L_scd for logits (B, classes) and class numbers (B,)."""
    log_p_s, own = (z_s / temperature).log_softmax(1), targets[:, None]
    others = log_p_s.scatter(1, own, -torch.inf).logsumexp(1, keepdim=True)
    log_b_s = torch.cat([log_p_s.gather(1, own), others], dim=1)
    p_t = (z_t / temperature).softmax(1)
    largest, surest = p_t.max(1, keepdim=True)
    b_t = torch.cat([largest, p_t.scatter(1, surest, 0.0).sum(1, keepdim=True)], dim=1)
    return F.kl_div(log_b_s, b_t, reduction="batchmean") * temperature**2


def below_target_loss(z_s: Tensor, z_t: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return L_mcd for logits (B, classes) and class numbers (B,)."""
    left_out = z_t >= z_t.gather(1, targets[:, None])
    # A finite number: a row of nothing else is then uniform in both models, with neither loss nor gradient.
    lowest = torch.finfo(z_s.dtype).min
    log_q_s, log_q_t = ((z / temperature).masked_fill(left_out, lowest).log_softmax(1) for z in (z_s, z_t))
    return F.kl_div(log_q_s, log_q_t, reduction="batchmean", log_target=True) * temperature**2

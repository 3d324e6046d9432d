"""PKT: probabilistic knowledge transfer."""

from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Distiller, Outputs
from methods.unit_vectors import unit

EPS = 1e-7  # the authors' guard; part of the published numbers


class PKT(Distiller):
    """Probabilistic knowledge transfer: Passalis, Tefas 2018, "Learning Deep Representations with Probabilistic
    Knowledge Transfer", arXiv:1803.10837, equations 3-6 with the cosine kernel.

        k(x)_ij = ( 1 + cos(x_i, x_j) ) / 2,   p(x)_ij = k_ij / sum_j k_ij        x (B, D): pooled features
        L_pkt   = mean_ij  p(t)_ij log( p(t)_ij / p(s)_ij )

    The mean over pairs and the weight 30000 are those of CRD's comparison (Tian et al. 2020, arXiv:1910.10699). A row
    of zeros has cosine 0 with every other row and gets no gradient. All images of the global batch are compared with
    each other (with ``accumulate``, those of a micro-batch).
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "transfer": 30000.0}

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        p_s, p_t = similarity_rows(student.embedding), similarity_rows(teacher.embedding)
        return {"transfer": (p_t * ((p_t + EPS) / (p_s + EPS)).log()).mean()}


def similarity_rows(x: Tensor) -> Tensor:
    """Return p (B, B) of x (B, D)."""
    direction = unit(x, eps=EPS)
    kernel = (1 + direction @ direction.T) / 2
    return kernel / kernel.sum(1, keepdim=True)

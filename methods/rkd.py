"""RKD: relational distillation of distances and angles between the images of a batch."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Distiller, Outputs
from methods.unit_vectors import unit

NO_DIRECTION = 1e-4  # share of the mean distance: closer pairs would have unbounded gradients


class RKD(Distiller):
    """Relational distillation: Park et al. 2019, "Relational Knowledge Distillation", arXiv:1904.05068, equations 5-10.

        r_ij  = x_i - x_j                                   x (B, D): pooled features of student or teacher
        psi_D = |r_ij| / mean of |r_ij| over pairs          L_distance = mean_ij  huber( psi_D(s), psi_D(t) )
        psi_A = cos(angle between r_ij and r_ik)            L_angle    = mean_ijk huber( psi_A(s), psi_A(t) )

    Both means include tuples with equal indices. The Huber loss is quadratic up to 1. Weights 25 and 50 are those of
    CRD's comparison (Tian et al. 2020, arXiv:1910.10699). For a pair closer than 1e-4 mean distances the cosines of its
    angles are 0, without gradient. All images of the global batch are compared with each other (with ``accumulate``,
    those of a micro-batch).
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "distance": 25.0, "angle": 50.0}

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        distance_s, angle_s = relations(student.embedding)
        distance_t, angle_t = relations(teacher.embedding)
        return {"distance": F.smooth_l1_loss(distance_s, distance_t), "angle": F.smooth_l1_loss(angle_s, angle_t)}


def relations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return psi_D (B, B) and psi_A (B, B, B) of x (B, D)."""
    difference = x[:, None] - x[None]  # (B, B, D); inner products would lose precision for close pairs
    distance = torch.linalg.vector_norm(difference, dim=2)
    mean = distance.sum() / (distance > 0).sum().clamp(min=1)
    scale = torch.where(mean > 0, mean, 1.0)
    direction = unit(difference, dim=2, least=NO_DIRECTION * scale.detach())
    return distance / scale, direction @ direction.transpose(1, 2)

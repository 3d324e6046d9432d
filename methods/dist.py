"""DIST: distillation of correlations between classes and between images."""

from typing import ClassVar

import torch
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec, check_positive

EPS = 1e-8  # the authors' guard where a row or a column is constant


class DIST(Distiller):
    """Distillation of correlations: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher",
    arXiv:2205.10536, equations 7-10.

        L_inter = T^2 mean_b [ 1 - pearson( p_s[b, :], p_t[b, :] ) ]         p = softmax(z / T), (B, classes)
        L_intra = T^2 mean_c [ 1 - pearson( p_s[:, c], p_t[:, c] ) ]

    Weights 1, 2, 2 and T = 4 are the paper's for CIFAR-100 (T = 1 for ImageNet). A constant row or column counts as
    uncorrelated. Columns run over the global batch.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "inter": 2.0, "intra": 2.0}
    logits_only: ClassVar[bool] = True

    def __init__(self, student: TapSpec, teacher: TapSpec, *, temperature: float = 4.0):
        super().__init__(student, teacher)
        check_positive("temperature", temperature)
        self.temperature = temperature

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        p_s, p_t = ((x.logits / self.temperature).softmax(1) for x in (student, teacher))
        return {
            "inter": self.temperature**2 * (1 - pearson(p_s, p_t, dim=1)).mean(),
            "intra": self.temperature**2 * (1 - pearson(p_s, p_t, dim=0)).mean(),
        }


def pearson(x: Tensor, y: Tensor, dim: int = 1) -> Tensor:
    """Return the correlation along ``dim`` of matrices x and y, a number for each index of the other dimension."""
    x, y = (z - z.mean(dim, keepdim=True) for z in (x, y))
    norms = torch.linalg.vector_norm(x, dim=dim) * torch.linalg.vector_norm(y, dim=dim)
    return (x * y).sum(dim) / (norms + EPS)

"""CC: correlation congruence, in the form that benchmarks compare."""

from typing import ClassVar

from torch import Tensor, nn

from methods.base import Batch, Distiller, Outputs, TapSpec, check_at_least_1


class CC(Distiller):
    """Correlation congruence: Peng et al. 2019, "Correlation Congruence for Knowledge Distillation", arXiv:1904.01802,
    in the form of CRD's comparison (Tian et al. 2020, arXiv:1910.10699).

        d_i  = | e_s,i - e_t,i |                                    (feat_dim), elementwise
        L_cc = 1/(B-1) sum_i d_i . d_(i+1)                          over neighbours in the batch

    e = linear(pooled feature), with a trained layer for each model. The paper instead compares the two models' matrices
    of Gaussian kernels between all images. Published tables that follow CRD's hold this form; its weight 0.02 and
    feat_dim 128 are the defaults. The loss depends on the order of the batch, and is 0 for a batch of one image.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "correlation": 0.02}

    def __init__(self, student: TapSpec, teacher: TapSpec, *, feat_dim: int = 128):
        super().__init__(student, teacher)
        check_at_least_1("feat_dim", feat_dim)
        self.embed_s = nn.Linear(student.embedding_dim, feat_dim)
        self.embed_t = nn.Linear(teacher.embedding_dim, feat_dim)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"correlation": correlation_loss(self.embed_s(student.embedding), self.embed_t(teacher.embedding))}


def correlation_loss(e_s: Tensor, e_t: Tensor) -> Tensor:
    """Return L_cc for embeddings (B, feat_dim), a scalar."""
    delta = (e_s - e_t).abs()
    return (delta[:-1] * delta[1:]).sum() / max(1, len(delta) - 1)

"""KDSVD: distillation of singular vectors and their change from stage to stage."""

from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from methods.alignment import to_common_grid
from methods.base import Batch, Outputs, TapSpec, check_at_least_1, check_choice
from methods.tap_pairs import ANY_SHAPE, TapPairs, total
from methods.unit_vectors import unit

SPARE = 3  # the student's singular vectors beyond the teacher's k, to choose from
RESOLUTION = 1e-6  # values below this share of the largest singular value (for gaps: of its square) count as 0


class KDSVD(TapPairs):
    """Distillation of singular vectors: Lee, Kim, Song 2018, "Self-supervised Knowledge Distillation Using Singular
    Value Decomposition", arXiv:1807.06819, equations 1-6.

        M = U diag(s) V^T                   M (H W, C), one per image: a map; V (C, k), its first right vectors
        s^ = s_t / |s_t|,  v_t = V_t s^,  v_s = (the k of the student's k + 3 most like V_t, with V_t's signs) s^
        R_i[c, d, j] = exp( -(v_i[c, j] - v_(i+1)[d, j])^2 / 8 )            between consecutive taps i, i + 1
        L_svd = sum_i sum_(c, d, j) ( R_i(v_s) - R_i(v_t) )^2,  mean over the batch

    ``matrix``: ``channels`` is the paper's M, above, for models of equal widths. ``columns`` is mdistiller's, (C H, W),
    after averaging the larger map onto the smaller one's grid. All stages, k = 1 and weight 1 are mdistiller's too.

    The loss depends on the signs of the teacher's vectors, which an SVD leaves open. Here v gets the sign for which
    positive projections of M's rows have more energy, sum_i (M_i . v) |M_i . v| >= 0; after a ReLU they have all of it.
    Singular vectors of equal singular values have no derivative: 1/gap becomes gap / (gap^2 + (1e-6 s_1^2)^2), and
    vectors with a singular value below 1e-6 s_1 are 0. Computed in float64, because singular values are squared.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "svd": 1.0}

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        taps: str = "stages",
        k: int = 1,
        matrix: Literal["channels", "columns"] = "channels",
    ):
        super().__init__(student, teacher, taps)
        check_at_least_1("k", k)
        check_choice("matrix", matrix, "channels", "columns")
        if len(self.names) < 2:
            raise ValueError("KDSVD compares consecutive taps: name at least two")
        self.k, self.matrix = k, matrix
        for (s, t), (c_s, c_t) in zip(self.names, self.widths, strict=True):
            (h_s, w_s), (h_t, w_t) = student.sizes[s], teacher.sizes[t]
            if matrix == "channels" and c_s != c_t:
                raise ValueError(
                    f"matrix 'channels' needs equal widths, not {c_s} at the student's {s!r} and {c_t} at the "
                    f"teacher's {t!r}: name other taps or take matrix 'columns'; {ANY_SHAPE}"
                )
            if matrix == "channels":
                rank = min(h_s * w_s, h_t * w_t, c_s)
            else:
                rank = min(w_s, w_t, min(c_s, c_t) * min(h_s, h_t))
            if rank < k + SPARE:
                raise ValueError(
                    f"the maps at {s!r} and {t!r}, {c_s}x{h_s}x{w_s} and {c_t}x{h_t}x{w_t}, are too small for "
                    f"k + {SPARE} = {k + SPARE} vectors; {ANY_SHAPE}"
                )

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        vectors = [self._vectors(f_s, f_t) for f_s, f_t in self.maps(student, teacher)]
        losses = [relation_loss(earlier, later) for earlier, later in pairwise(vectors)]
        return {"svd": total(losses).to(student.logits)}

    def _vectors(self, f_s: Tensor, f_t: Tensor) -> tuple[Tensor, Tensor]:
        """Return v_s and v_t (B, C, k) of one tap."""
        m_s, m_t = self.matrices(f_s, f_t)
        v_t, s_t = right_vectors(m_t, self.k)
        v_t = self.orient(v_t, m_t)
        v_s = align(right_vectors(m_s, self.k + SPARE)[0], v_t)
        scale = unit(s_t)[:, None]
        return v_s * scale, v_t * scale

    def matrices(self, f_s: Tensor, f_t: Tensor) -> tuple[Tensor, Tensor]:
        """Return M of the student's and of the teacher's map."""
        f_s, f_t = f_s.double(), f_t.double()
        if self.matrix == "channels":
            return f_s.flatten(2).transpose(1, 2), f_t.flatten(2).transpose(1, 2)
        f_s, f_t = to_common_grid(f_s, f_t)
        return f_s.flatten(1, 2), f_t.flatten(1, 2)

    def orient(self, v: Tensor, m: Tensor) -> Tensor:
        """Return v (B, C, k) with the signs that m (B, N, C) determines."""
        projection = m @ v
        energy = (projection * projection.abs()).sum(1, keepdim=True)
        return torch.where(energy < 0, -v, v)


def relation_loss(earlier: tuple[Tensor, Tensor], later: tuple[Tensor, Tensor]) -> Tensor:
    """Return the term of two consecutive taps, each given as (v_s, v_t); a scalar."""
    difference = kernel(earlier[0], later[0]) - kernel(earlier[1], later[1])
    return difference.square().sum() / len(difference)


def right_vectors(m: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the first right singular vectors (B, C, count), signs arbitrary, and singular values (B, count) of m.

    m is (B, N, C). Only the vectors carry gradient.
    """
    tall = m.shape[1] >= m.shape[2]
    gram = m.transpose(1, 2) @ m if tall else m @ m.transpose(1, 2)
    square, vectors = TopEigenvectors.apply(gram, count)
    values = square.clamp(min=0).sqrt()
    limit = RESOLUTION * values[:, :1]
    if tall:
        return torch.where((values > limit)[:, None], vectors, 0.0), values
    return unit(m.transpose(1, 2) @ vectors, least=limit[:, None]), values


def align(v_s: Tensor, v_t: Tensor) -> Tensor:
    """Return, for each of v_t (B, C, k), the most parallel of v_s (B, C, k'), with the same direction; (B, C, k)."""
    cosine = v_s.transpose(1, 2) @ v_t
    best = cosine.detach().abs().argmax(1, keepdim=True)
    return v_s.gather(2, best.expand(-1, v_s.shape[1], -1)) * cosine.detach().gather(1, best).sign()


def kernel(v: Tensor, w: Tensor) -> Tensor:
    """Return R (B, C, D, k) of v (B, C, k) and w (B, D, k)."""
    return (-(v[:, :, None] - w[:, None]).square() / 8).exp()


class TopEigenvectors(torch.autograd.Function):
    """The largest eigenvalues (B, count), without gradient, and their eigenvectors (B, D, count).

    They are those of symmetric matrices G (B, D, D). The eigenvectors' derivative is
    dv_j = sum_i v_i (v_i . dG v_j) / (l_j - l_i), damped where l_j is near l_i.
    """

    @staticmethod
    def forward(ctx: Any, gram: Tensor, count: int) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(gram)
        top = values[:, -count:].flip(1)
        ctx.save_for_backward(values, vectors)
        ctx.mark_non_differentiable(top)
        return top, vectors[:, :, -count:].flip(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        grad = grads[1]
        count = grad.shape[2]
        gap = values[:, -count:].flip(1)[:, None] - values[:, :, None]  # (B, D, count), l_j - l_i
        blur = RESOLUTION * values[:, -1:, None].clamp(min=torch.finfo(gap.dtype).tiny ** 0.25)
        coefficient = (vectors.transpose(1, 2) @ grad) * gap / (gap.square() + blur.square())
        grad_gram = vectors @ coefficient @ vectors[:, :, -count:].flip(2).transpose(1, 2)
        return (grad_gram + grad_gram.transpose(1, 2)) / 2, None

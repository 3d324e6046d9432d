"""WKD-L: transport between the softened classes of teacher and student."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec, check_at_least_1, check_choice, check_decay, check_positive
from methods.class_similarity import ClassSimilarity

EPS = 1e-8  # the authors' guard of divisions and of the cost; part of the published numbers


class WKDL(Distiller):
    """Wasserstein distance of logits: Lv, Yang, Li 2024, arXiv:2412.08139; github.com/JiamingLv/WKD @214cf88.

        L_target    = - mean over rows of p_t(y) log p_s(y)                                       softmaxes at 1
        L_transport = mean over rows of sum_ij u_i K_ij v_j c_ij,   K = exp(-c / regularisation)
                      v = q / (K' u + 1e-8),  u = p / (K v + 1e-8),  ``iterations`` times from u = 1 / (C - 1)
        c           = relu(1 - exp(-sharpen (1 - similarity))) + 1e-8                             (C, C)

    for logits (B, C): p of the student and q of the teacher (B, C - 1) are softmaxes at ``temperature`` over the
    classes other than the target y. There is no T^2, and gradients run through all iterations. L_transport is weighted
    by half a cosine from epoch ``decay_start`` to ``decay_end``. With ``sharpen`` 0, c is relu(1 - similarity) + 1e-8.

    The similarity of two classes is the cosine of the teacher's classifier's rows (``fc``), or the linear CKA of the
    teacher's last maps of their training images (``cka``), which takes a pass of the teacher over these before
    training: see ``ClassSimilarity``, also for what it costs. ``images_per_class`` 0 means all, as far as 4 GiB hold
    their maps: all of CIFAR-100's, of ImageNet's 42 a class for ResNet-34 and 10 for ResNet-50.

    A target has no mass here, so that all rows share one K: a step takes two products of (B, C) by (C, C) an iteration
    and no memory of (B, C, C), as the authors' does. Defaults are theirs for CIFAR-100, resnet32x4 -> resnet8x4; the
    loss weights are 1 CE + 1 target + 600 transport.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "target": 1.0, "transport": 600.0}
    used_with: ClassVar[dict[str, tuple[str, str]]] = {"images_per_class": ("cost", "cka")}

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        temperature: float = 8.0,
        cost: Literal["cka", "fc"] = "cka",
        images_per_class: int = 0,
        sharpen: float = 1.0,
        regularisation: float = 0.05,
        iterations: int = 10,
        decay_start: int = 150,
        decay_end: int = 240,
    ):
        super().__init__(student, teacher)
        check_decay(decay_start, decay_end)
        check_choice("cost", cost, "cka", "fc")
        check_positive("temperature", temperature)
        check_positive("regularisation", regularisation)
        check_at_least_1("iterations", iterations)
        if sharpen < 0 or images_per_class < 0:
            raise ValueError(f"sharpen and images_per_class must be 0 or more, not {sharpen} and {images_per_class}")
        self.temperature, self.sharpen = temperature, sharpen
        self.regularisation, self.iterations = regularisation, iterations
        self.decay_start, self.decay_end = decay_start, decay_end
        similarity = torch.eye(teacher.num_classes)  # until the teacher's pass is made
        if cost == "cka":
            self.teacher_pass = ClassSimilarity.of(teacher, images_per_class)
        elif teacher.head is None:
            raise ValueError(
                "cost fc needs a teacher whose logits are linear in its last map's mean or class token; take cost cka"
            )
        else:
            rows = F.normalize(teacher.head.weight.detach())
            similarity = rows @ rows.T
        self.register_buffer("distance", self._distance(similarity))
        self.distance: Tensor

    def use_teacher_pass(self, measured: Tensor) -> None:
        self.distance.copy_(self._distance(measured))

    def _distance(self, similarity: Tensor) -> Tensor:
        distance = 1 - similarity
        return 1 - (-self.sharpen * distance).exp() if self.sharpen else distance

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        others = other_classes(batch.targets, student.logits.shape[1])
        p, q = (softmax_of_others(x.logits / self.temperature, others) for x in (student, teacher))
        start = torch.zeros_like(p).scatter(1, others, 1 / max(others.shape[1], 1))
        costs = transport_costs(p, q, start, self.distance.relu() + EPS, self.regularisation, self.iterations)
        decay = batch.cosine_decay(self.decay_start, self.decay_end)
        return {
            "target": target_loss(student.logits, teacher.logits, batch.targets),
            "transport": decay * costs.mean(),
        }


def target_loss(z_s: Tensor, z_t: Tensor, targets: Tensor) -> Tensor:
    """Return L_target for logits (B, C) and class numbers (B,)."""
    column = targets[:, None]
    return -(z_t.softmax(1).gather(1, column) * z_s.log_softmax(1).gather(1, column)).mean()


def other_classes(targets: Tensor, classes: int) -> Tensor:
    """Return the classes (B, C - 1) other than each target."""
    column = torch.arange(classes - 1, device=targets.device)
    return column + (column >= targets[:, None])


def softmax_of_others(z: Tensor, others: Tensor) -> Tensor:
    """Return the softmax of scaled logits (B, C) over the classes ``others`` (B, C - 1), with 0 for the target."""
    return torch.zeros_like(z).scatter(1, others, z.gather(1, others).softmax(1))


def transport_costs(p: Tensor, q: Tensor, u: Tensor, cost: Tensor, regularisation: float, iterations: int) -> Tensor:
    """Return the transport costs (B,) of Sinkhorn's flows from p to q, both (B, C), from u (B, C), at a cost (C, C).

    All is finite, in float32 too: u and v stay below 1e8, and the flows' sums below 1. A class that has no mass in
    p, q and u takes no part.
    """
    kernel = (-cost / regularisation).exp()
    for _ in range(iterations):
        v = q / (u @ kernel + EPS)
        u = p / (v @ kernel.T + EPS)
    return (u @ (kernel * cost) * v).sum(1)

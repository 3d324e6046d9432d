"""SimKD: the student reuses the teacher's classifier."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from methods.alignment import shrink, to_common_grid
from methods.base import Batch, Distiller, Outputs, TapSpec


class SimKD(Distiller):
    """Reused teacher classifier: Chen et al. 2022, "Knowledge Distillation with the Reused Teacher Classifier",
    arXiv:2203.14001, equation 5.

        L_feature = || f_t - P(f_s) ||^2,  mean over batch, channels and positions

    f_t (B, C_t, H, W) is the map whose mean over positions the teacher's classifier reads; f_s (B, C_s, H, W) is the
    student's map at ``tap``. The larger map is averaged onto the smaller one's grid. P is the paper's bottleneck of
    convolutions 1x1, 3x3, 1x1 with C_t / ``factor`` inner channels, each with batch norm and ReLU.

    The trained model consists of the student up to ``tap``, P and the teacher's unchanged classifier. It is evaluated
    and saved as such. The student's own classifier stays untrained. ``evaluated_parameters`` of the record counts this
    model, which is larger than the student. The loss uses no labels; ``ce`` of the trained model is only logged.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 0.0, "feature": 1.0}
    part_of_model: ClassVar[bool] = True

    def __init__(self, student: TapSpec, teacher: TapSpec, *, tap: str = "last", factor: int = 2):
        super().__init__(student, teacher)
        if teacher.head is None:
            raise ValueError(
                "no classifier to reuse: this teacher's logits are not linear in its last map's mean or class token"
            )
        head, self.student_tap = teacher.head, student.resolve(tap, "the student")
        channels = head.weight.shape[1]
        if factor < 1 or channels % factor:
            raise ValueError(f"factor {factor} does not divide the {channels} channels that the classifier reads")
        self.classifier_weight = nn.Parameter(head.weight.clone(), requires_grad=False)
        self.classifier_bias = nn.Parameter(head.bias.clone(), requires_grad=False)
        self.head = head
        self.student_taps, self.teacher_taps = (self.student_tap,), (head.tap,)
        sizes = zip(student.sizes[self.student_tap], teacher.sizes[head.tap], strict=True)
        self.height, self.width = (min(pair) for pair in sizes)
        inner = channels // factor
        self.project = nn.Sequential(
            *conv_bn_relu(student.channels[self.student_tap], inner, 1),
            *conv_bn_relu(inner, inner, 3),
            *conv_bn_relu(inner, channels, 1),
        )

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        f_s, f_t = to_common_grid(student.features[self.student_tap], self.head.read(teacher.features))
        projected = self.project(f_s)
        ce = F.cross_entropy(self._classify(projected), batch.targets)
        return {"ce": ce, "feature": F.mse_loss(projected, f_t)}

    def predict(self, student: Outputs) -> Tensor:
        return self._classify(self.project(shrink(student.features[self.student_tap], (self.height, self.width))))

    def _classify(self, projected: Tensor) -> Tensor:
        return F.linear(projected.mean((2, 3)), self.classifier_weight, self.classifier_bias)


def conv_bn_relu(channels_in: int, channels_out: int, kernel: int) -> tuple[nn.Module, ...]:
    """Return a convolution that keeps the map's size, a batch norm and a ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)

"""ICKD: correlations between the channels of an image's map."""

from typing import ClassVar

from torch import Tensor, nn

from methods.base import Batch, Distiller, Outputs, TapSpec, check_positive, resolve_both
from methods.kd import soft_target_loss
from methods.unit_vectors import plain_unit


class ICKD(Distiller):
    """Inter-channel correlation: Liu et al. 2021, "Exploring Inter-Channel Correlation for Diversity-preserved
    Knowledge Distillation", arXiv:2202.03680, without the grids of its version for segmentation.

        G = F F^T, each row divided by its length
        L_correlation = || G_s - G_t ||^2 / C_t,  mean over the batch

    F (C_t, H W) is one image's map at ``tap``, flattened: the teacher's as it is, the student's after a 1x1 convolution
    and a batch norm to the teacher's width, trained with the student. G is (C_t, C_t) for maps of any two sizes. The
    authors' tap is the last map before pooling; in a wide ResNet before the final batch norm and ReLU, as ``last``.

    Defaults and code: ADLab-AutoDrive/ICKD @403b8d3, Cifar100/distiller_zoo/ICKD.py. Weights 1 CE + 2.5 without KD are
    those of its train_student.sh and of the first of its README's two commands. The second adds ``kd`` with weight 1 at
    T = 4, as in the paper's full method. Its second convolution and batch norm, for the teacher, is never used and only
    decays in the optimiser: left out. A row of zeros, as of a dead channel, stays 0 and has no gradient.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "correlation": 2.5, "kd": 0.0}

    def __init__(self, student: TapSpec, teacher: TapSpec, *, tap: str = "last", temperature: float = 4.0):
        super().__init__(student, teacher)
        check_positive("temperature", temperature)
        self.temperature = temperature
        self.student_tap, self.teacher_tap = resolve_both(student, teacher, tap)
        self.student_taps, self.teacher_taps = (self.student_tap,), (self.teacher_tap,)
        channels = teacher.channels[self.teacher_tap]
        conv = nn.Conv2d(student.channels[self.student_tap], channels, 1, bias=False)
        self.embed = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        g_s = correlations(self.embed(student.features[self.student_tap]))
        g_t = correlations(teacher.features[self.teacher_tap])
        return {
            "correlation": (g_s - g_t).square().sum(2).mean(),
            "kd": soft_target_loss(student.logits, teacher.logits, self.temperature),
        }


def correlations(maps: Tensor) -> Tensor:
    """Return the products of each image's channels, (B, C, C), for maps (B, C, H, W), each row of length 1."""
    f = maps.flatten(2)
    return plain_unit(f @ f.mT, 2)

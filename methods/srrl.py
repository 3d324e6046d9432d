"""SRRL: the teacher's classifier reads the student's features."""

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Batch, Distiller, Outputs, TapSpec, check_choice, check_positive, map_read_by_head
from methods.kd import soft_target_loss


class SRRL(Distiller):
    """Softmax regression representation: Yang et al. 2021, "Knowledge Distillation via Softmax Regression
    Representation Learning", ICLR 2021.

        s = mean over positions of r(f_s),  t = mean over positions of f_t
        L_feature = (s - t)^2,              mean over batch and channels
        L_regression = (W s - W t)^2,       mean over batch and classes

    f_s (B, C_s, H_s, W_s) and f_t (B, C_t, H_t, W_t) are the last maps: those whose mean the classifier reads, or the
    student's deepest tap if its classifier reads none. W is the teacher's frozen classifier, whose bias cancels. r,
    trained with the student, is a 1x1 convolution, a batch norm and a ReLU.

    Defaults and code: jingyang2017/KD_SRRL @d2e802f, distiller_zoo/AIN.py and train_imagenet_distillation.py; it has
    no KD term. ``connector: pooled`` applies r to the mean instead, so that its batch norm sees B values of a channel
    and not B H W: another loss, which the CIFAR-100 tables of SimKD and CTKD ran (zhengli97/CTKD @7d52522,
    models/util.py), with 1 CE + 1 KD + 1 + 1 and 0.1 CE + 0.9 KD + 1 + 1. Its input is the student's embedding. The
    weight of ``regression`` for CIFAR-100 in yzd-v/cls_KD is 5.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "feature": 1.0, "regression": 1.0, "kd": 0.0}

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        connector: Literal["map", "pooled"] = "map",
        temperature: float = 4.0,
    ):
        super().__init__(student, teacher)
        check_choice("connector", connector, "map", "pooled")
        check_positive("temperature", temperature)
        if teacher.head is None:
            raise ValueError(
                "no classifier to read: this teacher's logits are not linear in its last map's mean or class token"
            )
        self.temperature, self.head = temperature, teacher.head
        self.register_buffer("classifier_weight", teacher.head.weight.clone())
        self.classifier_weight: Tensor
        self.teacher_taps = (teacher.head.tap,)
        self.student_tap = ""
        width = student.embedding_dim
        if connector == "map":
            self.student_tap = student.head.tap if student.head else deepest_tap(student)
            self.student_taps = (self.student_tap,)
            width = student.channels[self.student_tap]
        self.connect = connector_to(self.classifier_weight.shape[1], width)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        if self.student_tap:
            s = self.connect(map_read_by_head(student.features, self.student_tap)).mean((2, 3))
        else:
            s = self.connect(student.embedding[:, :, None, None]).flatten(1)
        difference = s - self.head.read(teacher.features).mean((2, 3))
        return {
            "feature": difference.square().mean(),
            "regression": F.linear(difference, self.classifier_weight).square().mean(),
            "kd": soft_target_loss(student.logits, teacher.logits, self.temperature),
        }


def deepest_tap(student: TapSpec) -> str:
    """Return the tap ``last`` of a student.

    Raises:
        ValueError: it has none.
    """
    try:
        return student.resolve("last", "the student")
    except ValueError as e:
        raise ValueError(f"{e}; connector pooled needs none, it reads the embedding") from None


def connector_to(channels: int, channels_in: int) -> nn.Sequential:
    """Return r, with the authors' initialisation: normal weights of variance 2 / ``channels``."""
    conv = nn.Conv2d(channels_in, channels, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())

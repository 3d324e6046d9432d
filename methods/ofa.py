"""OFA-KD: the teacher's logits for every stage of a student, whatever the two architectures."""

import math
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Batch, Distiller, Outputs, TapSpec, check_choice, check_positive
from methods.stage_heads import TokenHead, map_head
from methods.tap_pairs import expand_taps, total


class OFA(Distiller):
    """One for all: Hao et al. 2023, "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge
    Distillation", arXiv:2310.19444, equations 3-4.

        L(z) = - sum_c w(c) log p(c),  mean over the batch                 p = softmax(z / T), z (B, classes)
        reading code:   w(target) = (1 + p_t(target))^g - 1,  w(c) = p_t(c)^g          g = ``exponent``
        reading paper:  w(target) = (1 + p_t(target))^g,      w(c) = p_t(c)
        L_logits = L(z_s),   L_stages = sum over taps of L( head(f_s) )            f_s: the student's maps

    With g = 1 the code's L is the cross-entropy with the teacher's soft targets: it is not 0 where the models agree.
    For another g the weights do not sum to 1. The paper's L includes the cross-entropy with the label, so there set
    ``ce: 0``. There is no T^2. The target of mixed images is the class of the larger share, as in the authors' code.

    The heads are trained with the student (methods/stage_heads.py). A stage of maps gets a separable block with stride
    2 for each later stage, the last stage a 1x1 convolution; then mean and linear layer. A stage of tokens (in a model
    that has the tap ``tokens``) gets a transformer block for each later stage, at least one, on tokens merged to a grid
    of 7 to 13. Width is the larger of both models' embeddings for maps, the student's for tokens. Unlike the authors',
    heads of models with a class token read the mean of the patches.

    Weights, g = 1 (1.5 in the ImageNet example of its README) and T = 1 are those of github.com/Hao840/OFAKD @f7bb896
    (distillers/ofa.py). ``stage_exponents``, a text of one number per tap, replaces g for the heads; empty: it is g.
    Log-softmax replaces the authors' log of a softmax, which is infinite where a probability rounds to 0.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "logits": 1.0, "stages": 1.0}
    logits_only: ClassVar[bool] = True

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        taps: str = "stages",
        exponent: float = 1.0,
        stage_exponents: str = "",
        temperature: float = 1.0,
        reading: Literal["code", "paper"] = "code",
    ):
        super().__init__(student, teacher)
        check_positive("exponent", exponent)
        check_positive("temperature", temperature)
        check_choice("reading", reading, "code", "paper")
        self.exponent, self.temperature, self.reading = exponent, temperature, reading
        self.student_taps = expand_taps(student, taps, "the student")
        self.stage_exponents = numbers(stage_exponents) or [exponent] * len(self.student_taps)
        if len(self.stage_exponents) != len(self.student_taps):
            raise ValueError(
                f"stage_exponents must be empty or one number per tap: {len(self.student_taps)}, "
                f"not {len(self.stage_exponents)}"
            )
        width = max(student.embedding_dim, teacher.embedding_dim)
        self.heads = nn.ModuleList(head(student, tap, width) for tap in self.student_taps)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        p_t = (teacher.logits / self.temperature).softmax(1)
        exponents = dict.fromkeys([self.exponent, *self.stage_exponents])
        weights = {g: class_weights(p_t, batch.targets, g, self.reading) for g in exponents}

        def loss(z: Tensor, g: float) -> Tensor:
            return F.cross_entropy(z / self.temperature, weights[g])

        logits = [head(student.features[tap]) for tap, head in zip(self.student_taps, self.heads, strict=True)]
        return {
            "logits": loss(student.logits, self.exponent),
            "stages": total(loss(z, g) for z, g in zip(logits, self.stage_exponents, strict=True)),
        }


def class_weights(p_t: Tensor, targets: Tensor, exponent: float, reading: str) -> Tensor:
    """Return w, (B, classes), for the teacher's probabilities (B, classes) and class numbers (B,)."""
    target = targets[:, None]
    grown = exponent * p_t.gather(1, target).log1p()  # log (1 + p_t(target))^g
    if reading == "paper":
        return p_t.scatter(1, target, grown.exp())
    return p_t.pow(exponent).scatter(1, target, grown.expm1())


def head(student: TapSpec, tap: str, width: int) -> nn.Module:
    """Return the head of a student's tap, of a model of maps or of tokens."""
    channels, size, classes = student.channels[tap], student.sizes[tap], student.num_classes
    later = stages_after(student, tap)
    if "tokens" in student.channels:
        return TokenHead(channels, size, max(later, 1), student.embedding_dim, classes)
    return map_head(channels, later, width, classes)


def stages_after(spec: TapSpec, tap: str) -> int:
    """Return how many of a model's stages end behind the one that a tap belongs to."""
    behind = spec.names[spec.names.index(tap.removesuffix(".preact")) + 1 :]
    return sum(name.startswith("stage") and "." not in name for name in behind)


def numbers(text: str) -> list[float]:
    """Return the positive numbers of a text, separated by commas.

    Raises:
        ValueError: a part is no positive number.
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    try:
        values = [float(part) for part in parts]
        if not all(map(math.isfinite, values)):
            raise ValueError
    except ValueError:
        raise ValueError(f"stage_exponents must be numbers separated by commas, not {text!r}") from None
    for value in values:
        check_positive("stage_exponents", value)
    return values

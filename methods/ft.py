"""FT: factor transfer."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.alignment import to_common_grid
from methods.base import Batch, Distiller, FirstStage, Outputs, TapSpec, check_positive, resolve_both
from methods.unit_vectors import unit


class FT(Distiller):
    """Factor transfer: Kim, Park, Kwak 2018, "Paraphrasing Complex Network: Network Compression via Factor Transfer",
    NeurIPS 2018, arXiv:1802.04977.

        first stage:  L_reconstruction = mean ( decode(encode(f_t)) - f_t )^2    encode, decode: the paraphraser
        main stage:   L_factor = mean | a(translate(f_s)) - a(encode(f_t)) |^p2  over batch and positions
                      a(x) = mean_c x_c^p1 as a vector (H W) of length 1

    f_s (B, C_s, H_s, W_s) and f_t (B, C_t, H_t, W_t) are the maps at ``tap``. Encoder and translator are three 3x3
    convolutions to k C_t channels, the translator's with batch norm; the decoder is the encoder's mirror image. The
    first stage trains the paraphraser without running the student; afterwards the paraphraser is fixed. The larger
    factor is averaged onto the smaller one's grid; a(x) of a factor of zeros is 0. The paper compares the factors
    themselves. Comparing a(x) is the form of CRD's comparison (Tian et al. 2020, arXiv:1910.10699), as are the
    defaults: the last map, k 0.5, p1 2, p2 1, weight 200 and 30 epochs at a learning rate of 0.01 (for most students).
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "factor": 200.0}

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        tap: str = "last",
        k: float = 0.5,
        p1: int = 2,
        p2: int = 1,
        first_epochs: int = 30,
        first_lr: float = 0.01,
    ):
        super().__init__(student, teacher)
        check_positive("k", k)
        if p1 < 1 or p2 < 1:
            raise ValueError(f"p1 and p2 must be at least 1, not {p1} and {p2}")
        self.student_tap, self.teacher_tap = resolve_both(student, teacher, tap)
        self.student_taps, self.teacher_taps = (self.student_tap,), (self.teacher_tap,)
        self.first_stage = FirstStage(first_epochs, teacher_taps=self.teacher_taps, lr=first_lr)
        self.p1, self.p2 = p1, p2
        c_s, c_t = student.channels[self.student_tap], teacher.channels[self.teacher_tap]
        c_f = max(1, int(k * c_t))
        self.encoder = layers(conv(c_t, c_t), conv(c_t, c_f), conv(c_f, c_f))
        self.decoder = layers(deconv(c_f, c_f), deconv(c_f, c_t), deconv(c_t, c_t))
        self.translator = layers(conv(c_s, c_s), conv(c_s, c_f), conv(c_f, c_f), norm=True)

    def first_terms(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        f_t = teacher.features[self.teacher_tap]
        return {"reconstruction": F.mse_loss(self.decoder(self.encoder(f_t)), f_t)}

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        with torch.no_grad():
            factor_t = self.encoder(teacher.features[self.teacher_tap])
        factor_s = self.translator(student.features[self.student_tap])
        return {"factor": factor_loss(factor_s, factor_t, self.p1, self.p2)}


def factor_loss(factor_s: Tensor, factor_t: Tensor, p1: int, p2: int) -> Tensor:
    """Return L_factor for factors (B, C, H, W), a scalar."""
    a_s, a_t = (unit(x.pow(p1).mean(1).flatten(1)) for x in to_common_grid(factor_s, factor_t))
    return (a_s - a_t).abs().pow(p2).mean()


def layers(*convs: nn.Conv2d | nn.ConvTranspose2d, norm: bool = False) -> nn.Sequential:
    """Return the convolutions, each followed by a batch norm if ``norm`` is set, and a leaky ReLU."""
    modules: list[nn.Module] = []
    for layer in convs:
        modules += [layer, nn.BatchNorm2d(layer.out_channels)] if norm else [layer]
        modules.append(nn.LeakyReLU(0.1, inplace=True))
    return nn.Sequential(*modules)


def conv(c_in: int, c_out: int) -> nn.Conv2d:
    """Return a convolution (B, c_in, H, W) -> (B, c_out, H, W)."""
    return nn.Conv2d(c_in, c_out, 3, padding=1)


def deconv(c_in: int, c_out: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution (B, c_in, H, W) -> (B, c_out, H, W)."""
    return nn.ConvTranspose2d(c_in, c_out, 3, padding=1)

"""WKD-F: transport between Gaussians of the channels of maps."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from methods.alignment import to_common_grid
from methods.base import (
    Batch,
    Distiller,
    Outputs,
    TapSpec,
    check_at_least_1,
    check_choice,
    check_decay,
    check_positive,
    resolve_both,
)
from methods.fitnets import ConvRegressor


class WKDF(Distiller):
    """Wasserstein distance of features: Lv, Yang, Li 2024, arXiv:2412.08139; github.com/JiamingLv/WKD @214cf88.

        L_mean      = sum over channels of (m_s - m_t)^2,                          mean over batch and cells
        L_deviation = sum over channels of (d_s - d_t)^2,   d = sqrt(var + eps),  likewise

    the squared Wasserstein distance between Gaussians with diagonal covariances. m and var, (B, C_t, ``grid``,
    ``grid``), are the mean and variance over each cell of a map's positions: of the teacher's f_t (B, C_t, H_t, W_t) at
    ``tap``, and of the student's after a convolution with bias, batch norm and ReLU, see ``ConvRegressor``. Cells are
    those of adaptive pooling: they overlap where the grid does not divide a map. Maps of different sizes are averaged
    onto a common grid first, where the connector does not make them equal.

    ``reading``: the variance divides by n - 1 (``code``) or, as in the paper's estimate of the covariance, by n
    (``paper``). In a cell of one position, where the code's variance is 0/0 = NaN, it is 0. Both terms are weighted by
    half a cosine from epoch ``decay_start`` to ``decay_end``. Defaults are the authors' for CIFAR-100, resnet32x4 ->
    resnet8x4; the loss weights are 1 CE + 0.08 (4 mean + 1 deviation).
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "mean": 0.32, "deviation": 0.08}

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        tap: str = "last",
        grid: int = 1,
        eps: float = 1e-5,
        decay_start: int = 150,
        decay_end: int = 240,
        reading: Literal["code", "paper"] = "code",
    ):
        super().__init__(student, teacher)
        check_decay(decay_start, decay_end)
        check_at_least_1("grid", grid)
        check_positive("eps", eps)
        check_choice("reading", reading, "code", "paper")
        self.student_tap, self.teacher_tap = resolve_both(student, teacher, tap)
        self.student_taps, self.teacher_taps = (self.student_tap,), (self.teacher_tap,)
        self.grid, self.eps, self.correction = grid, eps, int(reading == "code")
        self.decay_start, self.decay_end = decay_start, decay_end
        self.connector = ConvRegressor(
            student.channels[self.student_tap],
            teacher.channels[self.teacher_tap],
            student.sizes[self.student_tap],
            teacher.sizes[self.teacher_tap],
        )

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        connected = self.connector(student.features[self.student_tap])
        maps = to_common_grid(connected, teacher.features[self.teacher_tap])
        (m_s, d_s), (m_t, d_t) = (moments(x, self.grid, self.correction, self.eps) for x in maps)
        decay = batch.cosine_decay(self.decay_start, self.decay_end)
        return {
            "mean": decay * (m_s - m_t).square().sum(1).mean(),
            "deviation": decay * (d_s - d_t).square().sum(1).mean(),
        }


def moments(x: Tensor, grid: int, correction: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return means and deviations (B, C, grid, grid) of a map (B, C, H, W); variances divide by n - correction."""
    if x.shape[2] % grid == 0 and x.shape[3] % grid == 0:
        cells = x.unflatten(3, (grid, -1)).unflatten(2, (grid, -1))  # (B, C, grid, h, grid, w)
        alone = cells.shape[3] * cells.shape[5] == 1
        var, mean = torch.var_mean(cells, (3, 5), correction=0 if alone else correction)
        return mean, (var + eps).sqrt()
    rows, in_rows = cell_positions(x.shape[2], grid, x)
    columns, in_columns = cell_positions(x.shape[3], grid, x)
    inside = in_rows[:, :, None, None] * in_columns  # (grid, h, grid, w)
    count = inside.sum((1, 3))
    cells = x[:, :, rows[:, :, None, None], columns]
    mean = (cells * inside).sum((3, 5)) / count
    squares = ((cells - mean[:, :, :, None, :, None]) * inside).square().sum((3, 5))
    return mean, (squares / (count - correction).clamp_min(1) + eps).sqrt()


def cell_positions(size: int, grid: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions (grid, most) of adaptive pooling's cells along one side, and 1 where a cell has them."""
    cell = torch.arange(grid, device=like.device)
    start, stop = cell * size // grid, -((cell + 1) * -size // grid)
    position = start[:, None] + torch.arange(size // grid + 2, device=like.device)
    return position.clamp_max(size - 1), (position < stop[:, None]).to(like)

"""ReKD: relaxed distillation, the student selects targets from a distribution around the teacher's feature."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Batch, Outputs, SampleRandom, TapSpec, check_at_least_1, check_choice
from methods.tap_pairs import TapPairs

COLLAPSED_R2 = 0.1  # R^2 of the reconstruction; a posterior that preserves the teacher's map has about 0.9


class ReKD(TapPairs):
    """A reconstruction of "Relaxed Knowledge Distillation", IJCV 134(3):101, 2026, from its abstract: no code, loss or
    hyper-parameter of the paper is public. Each choice is marked stated (in the abstract), inferred, or chosen by us.

    t: the teacher's map at ``tap``, each channel normalised to mean 0 and variance 1 over the training set (inferred).
    h = r(f_s): the student's map, averaged onto t's grid, then r, a 1x1 convolution and a batch norm without scale and
    shift (chosen). h has t's mean 0 and variance 1: otherwise h and mu follow each other, grow and diverge. sg:
    stop-gradient.
    t, h, mu, sigma and z_k are (B, C, H, W), with the teacher's C, H, W; d runs over all of these axes.

        q(z|t)   = N(mu(t), diag sigma(t)^2)             stated: teacher features as latents, Gaussian posterior
        z_k      = mu + sigma eps_k,  k = 1..samples     inferred
        p(z|f_s) = N(sg h, prior_std^2 I)                stated: the student is the prior that regularises in reverse

        select      = mean over positions and groups g of group_size channels of
                      -tau/group_size log( 1/K sum_k exp( -||h_g - sg z_kg||^2 / tau ) )
                      stated: the student selects among targets; inferred: the form, and groups instead of whole vectors
        reconstruct = mean_d (t - g(z_1))^2              inferred: without it the latent loses the teacher
        kl          = mean_d KL( q(z|t) || p(z|f_s) )    stated, closed form

    CE and ``select`` train the student and r; ``reconstruct`` and ``kl`` train the encoder (mu, sigma) and decoder g.
    mu(t) = t + m(t), g(z) = z + d(z) and log sigma^2 = log(min_std max_std) + v(t), clamped to the two bounds, with
    1x1 convolutions m, d, v that start at 0 (chosen: weight decay then pulls towards FitNets, not sigma towards 1).
    All terms are means per latent dimension, so that their weights suit any C, H, W. tau is the best of a tuning of
    version 1 on held-out images (docs/methods/rekd.md), the weights that of a study on digits; samples and group_size
    are chosen, not tuned.

    ``tap`` may name several taps, separated by commas, such as a detector's ``p3, p4, p5, p6``: each has its own
    distribution, and terms and diagnostics are means over taps (chosen).

    ``selection``: ``soft`` is the term above. The others replace it: ``sample`` by (h - sg z_1)^2, ``likelihood`` by
    -log q(h|t), ``mean`` by (h - sg mu)^2, the one-to-one control. They use neither ``tau`` nor ``samples``.
    ``prior``: ``standard`` replaces h by 0 in ``kl``, which removes the reverse regularisation.

    Diagnostics: mean ``sigma``; ``kl_per_dim``; ``r2`` of the reconstruction; ``distance``, the rms of mu - h;
    ``selection_entropy``, 0 if one sample decides and 1 if all have equal weight. A collapsed posterior has r2 near 0,
    or sigma at min_std or max_std; ``warnings`` reports both.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "select": 10.0, "reconstruct": 0.5, "kl": 0.1}
    defined_for: ClassVar[tuple[str, ...]] = ("classification", "detection")
    diagnostics: ClassVar[tuple[str, ...]] = ("sigma", "kl_per_dim", "r2", "distance", "selection_entropy")
    used_with: ClassVar[dict[str, tuple[str, str]]] = {
        "samples": ("selection", "soft"),
        "tau": ("selection", "soft"),
        "group_size": ("selection", "soft"),
    }
    version: ClassVar[int] = 2  # 1 had no batch norm in r; its weights were select 10, reconstruct 5, kl 1

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        tap: str = "last",
        samples: int = 4,
        tau: float = 1.0,
        group_size: int = 4,
        prior_std: float = 1.0,
        min_std: float = 0.05,
        max_std: float = 2.0,
        selection: Literal["soft", "sample", "likelihood", "mean"] = "soft",
        prior: Literal["student", "standard"] = "student",
    ):
        super().__init__(student, teacher, tap)
        check_at_least_1("samples", samples)
        if tau <= 0 or prior_std <= 0:
            raise ValueError(f"tau and prior_std must be positive, not {tau} and {prior_std}")
        if not 0 < min_std < max_std:
            raise ValueError(f"0 < min_std < max_std is needed, not {min_std} and {max_std}")
        for _, channels in self.widths:
            if group_size < 1 or channels % group_size:
                raise ValueError(
                    f"group_size {group_size} does not divide the teacher's {channels} channels at {tap!r}"
                )
        check_choice("selection", selection, "soft", "sample", "likelihood", "mean")
        check_choice("prior", prior, "student", "standard")
        samples = samples if selection == "soft" else 1
        self.log_var_range = (2 * math.log(min_std), 2 * math.log(max_std))
        settings = Settings(samples, tau, group_size, prior_std, self.log_var_range, selection, prior)
        self.regions = nn.ModuleList(Region(*channels, settings) for channels in self.widths)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        regions = zip(self.regions, self.maps(student, teacher), strict=True)
        terms_of_taps = [region(f_s, f_t, batch.random) for region, (f_s, f_t) in regions]
        return {name: torch.stack([terms[name] for terms in terms_of_taps]).mean() for name in terms_of_taps[0]}

    def warnings(self, means: dict[str, float]) -> list[str]:
        warnings = []
        if means["r2"] < COLLAPSED_R2:
            warnings.append(
                f"the posterior has collapsed: the latents tell less than {COLLAPSED_R2:.0%} of the teacher's map"
            )
        low, high = (math.exp(bound / 2) for bound in self.log_var_range)
        if not 1.05 * low < means["sigma"] < 0.95 * high:
            warnings.append("sigma is at its clamp: the region's width is not learned")
        return warnings


@dataclass(frozen=True)
class Settings:
    """The hyper-parameters of ReKD that a region uses."""

    samples: int
    tau: float
    group_size: int
    prior_std: float
    log_var_range: tuple[float, float]
    selection: str
    prior: str


class Region(nn.Module):
    """The distribution around the teacher's map at one tap, and the student's selection from it."""

    def __init__(self, student_channels: int, channels: int, settings: Settings):
        super().__init__()
        self.settings = settings
        self.log_var_start = sum(settings.log_var_range) / 2
        self.standardise = Standardise(channels)
        self.project = nn.Sequential(
            nn.Conv2d(student_channels, channels, 1, bias=False), nn.BatchNorm2d(channels, affine=False)
        )
        self.mu_shift, self.log_var_shift, self.decode_shift = (zero_conv(channels) for _ in range(3))

    def forward(self, f_s: Tensor, f_t: Tensor, random: SampleRandom) -> dict[str, Tensor]:
        """Return terms and diagnostics for maps (B, C_s, H_s, W_s) and (B, C, H, W)."""
        settings = self.settings
        t = self.standardise(f_t)
        h = self.project(F.adaptive_avg_pool2d(f_s, t.shape[2:]))
        mu, log_var = t + self.mu_shift(t), (self.log_var_start + self.log_var_shift(t)).clamp(*settings.log_var_range)
        eps = random.normal(settings.samples, *t.shape[1:]).to(t)
        z = mu[:, None] + (log_var / 2).exp()[:, None] * eps  # (B, K, C, H, W)

        select, entropy = self.select(h, z.detach(), mu.detach(), log_var.detach())
        reconstruct = F.mse_loss(z[:, 0] + self.decode_shift(z[:, 0]), t)
        prior_mean = h.detach() if settings.prior == "student" else torch.zeros_like(h)
        kl = gaussian_kl(mu, log_var, prior_mean, settings.prior_std)
        with torch.no_grad():
            spread = (t - t.mean((0, 2, 3), keepdim=True)).square().mean()
            diagnostics = {
                "sigma": (log_var / 2).exp().mean(),
                "kl_per_dim": kl.detach(),
                "r2": 1 - reconstruct.detach() / spread.clamp(min=1e-12),
                "distance": (mu - h).square().mean().sqrt(),
                "selection_entropy": entropy,
            }
        return {"select": select, "reconstruct": reconstruct, "kl": kl} | diagnostics

    def select(self, h: Tensor, z: Tensor, mu: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
        """Return the select term and the selection's entropy, which is 0 for a single target."""
        selection = self.settings.selection
        if selection == "soft":
            return soft_selection(h, z, self.settings.tau, self.settings.group_size)
        no_entropy = h.new_zeros(())
        if selection == "sample":
            return F.mse_loss(h, z[:, 0]), no_entropy
        if selection == "mean":
            return F.mse_loss(h, mu), no_entropy
        return 0.5 * ((h - mu).square() / log_var.exp() + log_var + math.log(2 * math.pi)).mean(), no_entropy


def soft_selection(h: Tensor, z: Tensor, tau: float, group_size: int) -> tuple[Tensor, Tensor]:
    """Return the select term for h (B, C, H, W) and samples z (B, K, C, H, W), and the entropy in units of log K."""
    count = z.shape[1]
    squared = (h[:, None] - z).square().unflatten(2, (-1, group_size)).sum(3)  # (B, K, groups, H, W)
    score = -squared / tau
    loss = -tau * (score.logsumexp(1) - math.log(count)).mean() / group_size
    if count == 1:
        return loss, h.new_zeros(())
    with torch.no_grad():
        log_p = score.log_softmax(1)
        return loss, -(log_p.exp() * log_p).sum(1).mean() / math.log(count)


def gaussian_kl(mu: Tensor, log_var: Tensor, prior_mean: Tensor, prior_std: float) -> Tensor:
    """Return KL( N(mu, exp log_var) || N(prior_mean, prior_std^2) ), the mean over all dimensions."""
    log_ratio = log_var - 2 * math.log(prior_std)
    return 0.5 * (log_ratio.exp() + ((mu - prior_mean) / prior_std).square() - 1 - log_ratio).mean()


def zero_conv(channels: int) -> nn.Conv2d:
    """Return a 1x1 convolution with weights and bias 0, which is also where weight decay leads."""
    conv = nn.Conv2d(channels, channels, 1)
    conv.load_state_dict({name: torch.zeros_like(value) for name, value in conv.state_dict().items()})
    return conv


class Standardise(nn.Module):
    """Normalisation of channels to mean 0 and variance 1, by moments averaged over all batches so far.

    Unlike with batch norm, the result for an image stops depending on the other images once the moments have converged.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("square", torch.zeros(channels))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.mean: Tensor
        self.square: Tensor
        self.batches: Tensor

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        mean, square = x.mean((0, 2, 3)), x.square().mean((0, 2, 3))
        self.batches += 1
        self.mean += (mean - self.mean) / self.batches
        self.square += (square - self.square) / self.batches
        return F.batch_norm(x, self.mean, (self.square - self.mean.square()).clamp(min=0))

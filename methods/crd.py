"""CRD: contrastive representation distillation."""

import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from methods.base import Batch, Distiller, Outputs, TapSpec, check_choice, check_positive

EPS = 1e-7  # the authors' guard inside the logarithms; part of the published numbers
DENSE_UP_TO = 16  # bank rows per negative up to which one matrix product is faster than gathering rows


class CRD(Distiller):
    """Contrastive representation distillation: Tian, Krishnan, Isola 2020, arXiv:1910.10699, equations 10-19.

    v_s, v_t (B, feat_dim) are the penultimate features after a linear layer and L2 normalisation. A bank (N, feat_dim)
    per model stores every training image's embedding. For an anchor with positive row p and negative rows n_1..n_K

        h(v, m)  = exp(v . m / temperature) / Z                         Z fixed from the first batch, per bank
        D(v, m)  = h / (h + K / N)
        L_crd    = mean over the batch of
                   - [ log D(v_s, m_t[p]) + sum_k log(1 - D(v_s, m_t[n_k])) ]  + the same with s and t exchanged

    No gradient flows through the banks m or Z. After the loss each image's row becomes
    normalise(momentum * old + (1 - momentum) * new).

    ``mode``: the positive is the image itself (``exact``) or any image of its class (``relax``). Negatives are images
    of other classes, all different if there are enough, else drawn with replacement; see ``contrast_rows``. Defaults
    are the authors' for CIFAR-100.

    On several processes the banks and Z follow the global batch and are bit-equal on all ranks.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "crd": 0.8}
    per_image: ClassVar[bool] = True

    # set by setup(), as N is unknown before
    bank_s: Tensor
    bank_t: Tensor
    by_class: Tensor
    class_start: Tensor
    class_size: Tensor
    class_runs: Tensor
    run_start: Tensor
    run_length: Tensor

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        feat_dim: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        mode: Literal["exact", "relax"] = "exact",
    ):
        super().__init__(student, teacher)
        if feat_dim < 1 or negatives < 1:
            raise ValueError(f"feat_dim and negatives must be at least 1, not {feat_dim} and {negatives}")
        check_positive("temperature", temperature)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        check_choice("mode", mode, "exact", "relax")
        self.negatives, self.temperature, self.momentum, self.mode = negatives, temperature, momentum, mode
        self.embed_s = Embed(student.embedding_dim, feat_dim)
        self.embed_t = Embed(teacher.embedding_dim, feat_dim)
        self.register_buffer("log_z", torch.full((2,), math.nan))  # student, teacher; NaN until the first batch
        self.log_z: Tensor

    def setup(self, train_targets: Tensor) -> None:
        weight = self.embed_s.linear.weight
        n, dim = len(train_targets), weight.shape[0]
        spread = math.sqrt(3 / dim)  # uniform rows of about unit length
        for name in ("bank_s", "bank_t"):
            self.register_buffer(name, (torch.rand(n, dim) * 2 - 1).mul(spread).to(weight))
        targets = train_targets.to(weight.device)
        size = torch.bincount(targets)
        if int(size.max()) == n:
            raise ValueError("CRD needs training images of at least two classes")
        sizes, runs = size.unique(return_inverse=True)
        edges = torch.stack([run_edges(n - int(m), self.negatives) for m in sizes])
        # These follow from the labels, so they are not part of a checkpoint.
        derived = {
            "by_class": targets.argsort(stable=True),  # bank rows sorted by class
            "class_start": (size.cumsum(0) - size).int(),  # where in by_class a class lies
            "class_size": size.int(),
            "class_runs": runs,  # a class's row in the two tables below
            "run_start": edges[:, :, 0].int(),
            "run_length": edges[:, :, 1].int(),
        }
        for name, value in derived.items():
            self.register_buffer(name, value.to(weight.device), persistent=False)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        v_s, v_t = self.embed_s(student.embedding), self.embed_t(teacher.embedding)
        loss_s, loss_t = self.contrast(v_s, v_t, self.contrast_rows(batch), batch.indices)
        return {"crd": loss_s + loss_t}

    def contrast(self, v_s: Tensor, v_t: Tensor, rows: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return v_s's and v_t's part of L_crd, then store both in the images' rows of the banks."""
        logits_s = self.score(v_s, self.bank_t, rows, indices)
        logits_t = self.score(v_t, self.bank_s, rows, indices)
        mean_exp = torch.cat([self._mean_exp(logits_s), self._mean_exp(logits_t)], dim=1)

        n = len(self.bank_s)
        log_z = mean_exp.mean(0).log() + 1 / self.temperature + math.log(n)
        self.log_z.copy_(torch.where(self.log_z.isnan(), log_z, self.log_z))  # unlike `if`, does not wait for a GPU
        losses = nce_loss(logits_s - self.log_z[0], n), nce_loss(logits_t - self.log_z[1], n)

        self.remember(self.bank_s, indices, v_s.detach())
        self.remember(self.bank_t, indices, v_t.detach())
        return losses

    def score(self, v: Tensor, bank: Tensor, rows: Tensor, indices: Tensor) -> Tensor:
        """Return v . m / temperature, (B, 1 + negatives). Then only the bank's rows ``indices`` may change."""
        return row_scores(v, bank, rows, indices) / self.temperature

    def contrast_rows(self, batch: Batch) -> Tensor:
        """Return the bank rows (B, 1 + negatives) that each anchor is compared with: its positive, then its negatives.

        The rows of other classes, sorted by class and rotated by a random amount, are cut into as many runs as there
        are negatives, and one row is drawn from each run. All rows are then equally likely, none is drawn twice, and
        the expected loss is that of the authors' draw without replacement, at a fraction of its cost.
        """
        target = batch.targets.to(self.by_class.device)
        size, start, runs = (x[target][:, None] for x in (self.class_size, self.class_start, self.class_runs))
        others = len(self.by_class) - size
        turn, choice = batch.random.uniform(2, dtype=torch.float64).to(size.device).split(1, dim=1)
        within = batch.random.uniform(self.negatives).to(size.device)

        place = (within * self.run_length[runs[:, 0]]).int() + self.run_start[runs[:, 0]]
        place += (turn * others).int()
        place = torch.where(place >= others, place - others, place)
        place = torch.where(place >= start, place + size, place)  # step over the anchor's own class
        negative = self.by_class[place]

        if self.mode == "exact":
            positive = batch.indices.to(size.device)[:, None]
        else:
            positive = self.by_class[start + (choice * size).int()]
        return torch.cat([positive, negative], dim=1)

    def _mean_exp(self, logits: Tensor) -> Tensor:
        """Return exp(logits) averaged over each anchor's rows, (B, 1), in units of its largest possible value."""
        return (logits.detach() - 1 / self.temperature).exp().mean(1, keepdim=True)

    @torch.no_grad()
    def remember(self, bank: Tensor, indices: Tensor, new: Tensor) -> None:
        """Move the images' rows of a bank towards their new embeddings (B, feat_dim)."""
        # For an image that is in the batch more than once, every device stores its last embedding.
        same = indices[:, None] == indices
        last = (same * torch.arange(len(indices), device=indices.device)).amax(1)
        row = self.momentum * bank[indices] + (1 - self.momentum) * new[last]
        bank.index_copy_(0, indices, F.normalize(row, dim=1))


def run_edges(rows: int, count: int) -> Tensor:
    """Return start and length (count, 2) of runs that divide 0..rows-1 evenly; each is all rows if rows < count."""
    if rows < count:
        return torch.tensor([0, rows]).expand(count, 2)
    edges = torch.arange(count + 1) * rows // count
    return torch.stack([edges[:-1], edges.diff()], dim=1)


class Embed(nn.Module):
    """A linear embedding (B, D) -> (B, feat_dim), normalised to length 1."""

    def __init__(self, dim: int, feat_dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, feat_dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.linear(x), dim=1)


def row_scores(v: Tensor, bank: Tensor, rows: Tensor, changing: Tensor) -> Tensor:
    """Return v[b] . bank[rows[b, k]], (B, K), for v (B, D), bank (N, D), rows (B, K).

    The rows ``changing`` of the bank, and no others, may change before the backward pass.
    """
    if len(bank) <= DENSE_UP_TO * rows.shape[1]:
        scores: Tensor = DenseScores.apply(v, bank, rows, changing)
        return scores
    return torch.bmm(bank[rows], v[:, :, None])[:, :, 0]


class DenseScores(torch.autograd.Function):
    """Row scores by one matrix product with the bank.

    The backward pass needs the bank as it was in the forward pass. It puts the changed rows back for its own product,
    because a copy of the whole bank takes as long as the product.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, bank: Tensor, rows: Tensor, changing: Tensor) -> Tensor:
        ctx.bank = bank  # save_for_backward would refuse its change
        ctx.save_for_backward(rows, changing, bank[changing])
        return (v @ bank.T).gather(1, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        rows, changing, before = ctx.saved_tensors
        of_scores = gradient.new_zeros(len(gradient), len(ctx.bank)).scatter_add_(1, rows, gradient)
        after = ctx.bank[changing]
        ctx.bank.index_copy_(0, changing, before)
        of_v = of_scores @ ctx.bank
        ctx.bank.index_copy_(0, changing, after)
        return of_v, None, None, None


def nce_loss(log_h: Tensor, n: int) -> Tensor:
    """Return one bank's part of L_crd from log h (B, 1 + K), the positive first, for a bank of n rows."""
    noise = (log_h.shape[1] - 1) / n
    h = log_h.exp()
    positive = log_h[:, 0] - (h[:, 0] + noise + EPS).log()
    negative = -((h[:, 1:] + EPS) / noise).log1p().sum(1)
    return -(positive + negative).mean()

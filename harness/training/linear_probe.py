"""Linear probe: multinomial logistic regression on the features of a frozen network, by L-BFGS in float64.

    min over W, b   mean over images of CE(W z + b, target)  +  l2 / 2 * |W|^2,      z = (x - mean) / std

The features x (N, D) are standardised by the images that are fitted on. The bias is not penalised. The problem is
convex, so that the result depends neither on an order of images nor on random numbers.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.load.arrays import rank_in_class
from harness.errors import UserError

L2_WEIGHTS = tuple(10 ** (-step / 2) for step in range(13))  # 1 to 1e-6: each fit starts from a stronger one's result
HELD_OUT = 10  # of each class, every tenth training image chooses among them
GRADIENT = 1e-6  # largest derivative of a fit that has converged
ITERATIONS = 2000
_HISTORY = 20


class LabelledFeatures(NamedTuple):
    """Features (N, D) of images, and their classes (N,) int64."""

    features: Tensor
    targets: Tensor

    def part(self, mask: Tensor) -> "LabelledFeatures":
        """Return those that ``mask`` (N,) chooses."""
        return LabelledFeatures(self.features[mask], self.targets[mask])


@dataclass(frozen=True)
class LinearClassifier:
    """A linear layer on standardised features."""

    mean: Tensor  # (D,) float64
    std: Tensor  # (D,)
    weight: Tensor  # (D + 1, classes); the last row is the bias
    converged: bool

    def logits(self, features: Tensor) -> Tensor:
        """Return logits (N, classes) of features (N, D)."""
        standardised = (features.double() - self.mean) / self.std
        return torch.addmm(self.weight[-1], standardised, self.weight[:-1])

    def top1(self, images: LabelledFeatures) -> float:
        """Return the accuracy in %."""
        return 100 * float((self.logits(images.features).argmax(1) == images.targets).double().mean())


class ProbeResult(NamedTuple):
    """The linear probe of one network; accuracies are in %."""

    l2: float
    held_out_top1: float  # of the classifier that chose l2
    train_top1: float
    top1: float  # of the test images
    converged: bool


def probe(train: LabelledFeatures, test: LabelledFeatures, classes: int) -> ProbeResult:
    """Choose the L2 weight on held-out training images, fit on all of them, and measure the test images.

    Of L2 weights with equal accuracy the strongest is chosen.

    Raises:
        UserError: no class has two training images, so that none can be held out.
    """
    mask = held_out_mask(train.targets)
    if not mask.any():
        raise UserError("no class has two training images: none can be held out to choose the L2 weight")
    fitted, held_out = train.part(~mask), train.part(mask)
    scores, start = list[float](), None
    for l2 in L2_WEIGHTS:
        classifier = fit(fitted, classes, l2, start)
        scores.append(classifier.top1(held_out))
        start = classifier.weight
    best = scores.index(max(scores))
    chosen = fit(train, classes, L2_WEIGHTS[best], start)
    return ProbeResult(L2_WEIGHTS[best], scores[best], chosen.top1(train), chosen.top1(test), chosen.converged)


def held_out_mask(targets: Tensor) -> Tensor:
    """Return which images are held out: every tenth of a class in file order, or the last of fewer, but never all."""
    rank, size = (torch.from_numpy(values) for values in rank_in_class(targets.cpu().numpy()))
    mask: Tensor = (rank % HELD_OUT == size.clamp(max=HELD_OUT) - 1) & (size > 1)
    return mask.to(targets.device)


def fit(train: LabelledFeatures, classes: int, l2: float, start: Tensor | None = None) -> LinearClassifier:
    """Fit a linear classifier. ``start`` (D + 1, classes): the weight to start from, else zeros."""
    features = train.features.double()
    mean, std = features.mean(0), features.std(0, correction=0)
    std = torch.where(std > 0, std, 1.0)  # a feature that is always the same says nothing
    inputs = F.pad((features - mean) / std, (0, 1), value=1.0)
    empty = inputs.new_zeros(inputs.shape[1], classes)
    weight = (empty if start is None else start.clone()).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight], max_iter=ITERATIONS, max_eval=2 * ITERATIONS, tolerance_grad=GRADIENT, tolerance_change=0.0,
        history_size=_HISTORY, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        return F.cross_entropy(inputs @ weight, train.targets) + l2 / 2 * weight[:-1].square().sum()

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    (gradient,) = torch.autograd.grad(loss(), weight)
    return LinearClassifier(mean, std, weight.detach(), bool(gradient.abs().max() <= GRADIENT))

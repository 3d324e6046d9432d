"""Accuracy of a model on a whole set of images."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from harness.data.load.loader import EvalSet
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.precision import autocast


@dataclass(frozen=True)
class Metrics:
    """Over every image once: top-1 and top-5 accuracy in %, mean cross-entropy in nats."""

    top1: float
    top5: float
    loss: float


def evaluate_classifier(model: nn.Module, on: EvalSet, precision: str = "float32", ranks: Ranks = ONE_RANK) -> Metrics:
    """Runs a model that returns ``Outputs`` in eval mode, and leaves it in the mode it was in; the processes share the
    images out."""
    was_training = model.training
    model.eval()
    totals = torch.zeros(3, dtype=torch.float64, device=on.targets.device)
    with torch.no_grad():
        mine = ranks.rows(len(on.targets))
        for images, targets in on.batches(mine):
            with autocast(images.device, precision):
                logits = model(images).logits
            logits = logits.float()
            top = logits.topk(min(5, logits.shape[1]), dim=1).indices == targets[:, None]
            loss = F.cross_entropy(logits, targets, reduction="sum")
            totals += torch.stack([top[:, 0].sum(), top.sum(), loss]).double()
    model.train(was_training)
    ranks.all_reduce_sum([totals])
    top1, top5, loss_sum = totals.tolist()
    n = len(on.targets)
    return Metrics(100 * top1 / n, 100 * top5 / n, loss_sum / n)

"""A small network, trained with every exchange between ranks: batch norms, gathered outputs and summed gradients."""

import torch
from torch import Tensor, nn

from harness.training.distributed.ranks import Ranks
from harness.training.distributed.sync_batchnorm import sync_batch_norms

COUNT = 7  # images; two ranks have unequal numbers of them


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
    ).double()


def images() -> Tensor:
    return torch.randn(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def train(ranks: Ranks, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Take three steps of SGD on a loss that couples all rows of a batch."""
    model = network().to(device).train()
    if ranks.store is not None:
        sync_batch_norms(model, ranks)
    for _ in range(3):
        out = ranks.all_gather(model(images()[ranks.rows(COUNT)].to(device)).mean((2, 3)), COUNT)
        loss = (out @ out.T).softmax(1).diagonal().log().sum()
        model.zero_grad()
        loss.backward()
        ranks.all_reduce_sum(p.grad for p in model.parameters() if p.grad is not None)
        with torch.no_grad():
            for p in model.parameters():
                assert p.grad is not None
                p -= 0.1 * p.grad
    return model.state_dict()

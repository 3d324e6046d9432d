"""Synchronised batch norm: statistics over the whole batch when its images are spread over several ranks."""

from typing import Any

import torch
from torch import Tensor, nn

from harness.training.distributed.ranks import Ranks


def sync_batch_norms(model: nn.Module, ranks: Ranks) -> None:
    """Replace a model's batch norms, in place, by ones that normalise by the statistics of all ranks' images.

    torch's own ``SyncBatchNorm`` does not run on a CPU. Parameters and buffers keep their names.

    Raises:
        ValueError: a subclass of batch norm, whose computation this would silently change.
    """
    for name, module in model.named_modules():
        if type(module) is nn.BatchNorm2d:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, SyncBatchNorm(module, ranks))
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, SyncBatchNorm):
            raise ValueError(f"{name} is a {type(module).__name__}, which cannot be spread over several processes")


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm with the mean and variance of all ranks' images. It shares the tensors of ``norm``."""

    def __init__(self, norm: nn.BatchNorm2d, ranks: Ranks):
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._parameters, self._buffers, self.training = norm._parameters, norm._buffers, norm.training
        self._ranks = ranks

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = values.new_full((1,), values.numel() // values.shape[1])
        mean = values.mean((0, 2, 3))
        square = (values - mean[:, None, None]).square().sum((0, 2, 3))
        statistics: Tensor = _Stack.apply(torch.cat([count, mean, square]), self._ranks)
        counts, means, squares = statistics.split([1, len(mean), len(mean)], dim=1)
        # Chan et al. 1979: the variance of a union from the variances of its parts.
        n = counts.sum()
        mean = (counts * means).sum(0) / n
        variance = (squares + counts * (means - mean).square()).sum(0) / n
        self._update_running_statistics(mean.detach(), variance.detach() * n / (n - 1))
        scale = (variance + self.eps).rsqrt()
        scale = scale if self.weight is None else self.weight * scale  # None of both: affine=False
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


class _Stack(torch.autograd.Function):
    """Each rank's vector (K,) stacked as (ranks, K). Every rank uses all of them, so gradients are summed."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.all_gather(mine[None], ranks.world_size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        ctx.ranks.all_reduce_sum([total])
        return total[ctx.ranks.rank], None

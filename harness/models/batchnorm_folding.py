"""Batch norms of a frozen network, folded into the weights of the convolutions before them."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from harness.models.frozen_norm import FrozenBatchNorm


def fold_batch_norms(model: nn.Module) -> int:
    """Replace batch norms by ``nn.Identity`` where the convolution before can do their work; return how many.

    They are those that follow a convolution in an ``nn.Sequential``, and those a module names in its ``folds``, pairs
    such as ``("conv1", "bn1")``: nothing but that batch norm may read that convolution's output. For a model that is
    only ever evaluated; its outputs change by rounding. A model that is not ``foldable`` is left as it is.
    """
    if not getattr(model, "foldable", True):
        return 0
    folded = 0
    for parent in model.modules():
        children = dict(parent.named_children())
        pairs = list(getattr(parent, "folds", ()))
        if isinstance(parent, nn.Sequential):
            pairs += zip(children, list(children)[1:], strict=False)
        for conv_name, norm_name in pairs:
            conv, norm = children[conv_name], children[norm_name]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm):
                assert norm.running_mean is not None and norm.running_var is not None
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                setattr(parent, norm_name, nn.Identity())
                folded += 1
    return folded

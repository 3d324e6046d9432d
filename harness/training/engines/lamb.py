"""LAMB: Adam whose step is as long as each parameter's norm says."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.training.engines.base import Parameters, Rate
from harness.training.engines.optimizer import WithMoments


class LAMB(WithMoments):
    """Layer-wise adapted steps (arXiv:1904.00962), as ``timm.optim.Lamb`` 1.0.31 takes them, to rounding.

    Each parameter counts its own steps; timm counts those of its group. timm also clips all gradients to a norm of 1
    unless it is told not to; here the recipe's ``clip_norm`` decides.
    """

    def _change(self, indices: list[int], lr: Rate, weight_decay: float) -> None:
        if indices:
            parameters = [self._parameters[i] for i in indices]
            lamb(
                parameters, self._gradients(indices), *self._states(indices), lr=lr, betas=self._recipe.betas,
                eps=self._recipe.eps, weight_decay=weight_decay,
            )  # fmt: skip


def lamb(
    parameters: Sequence[Tensor], gradients: list[Tensor], means: list[Tensor], squares: list[Tensor],
    steps: list[Tensor], *, lr: Rate, betas: tuple[float, float], eps: float, weight_decay: float,
) -> None:  # fmt: skip
    """Change parameters and their state in place. Without weight decay the step is Adam's, as timm has it.

    With m and v the bias-corrected means of gradients and their squares, u = m / (sqrt(v) + eps) + weight_decay * p;
    p changes by -lr * |p| / |u| * u, or by -lr * u if one of the norms is 0.
    """
    parameters = list(parameters)
    torch._foreach_add_(steps, 1)
    torch._foreach_lerp_(means, gradients, 1 - betas[0])
    torch._foreach_mul_(squares, betas[1])
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - betas[1])
    count = torch.stack(steps).double()  # in float32, 1 - 0.999 is off by 1e-5 of itself
    updates = torch._foreach_div(means, (1 - betas[0] ** count).unbind())
    roots = torch._foreach_div(torch._foreach_sqrt(squares), (1 - betas[1] ** count).sqrt().unbind())
    torch._foreach_add_(roots, eps)
    torch._foreach_div_(updates, roots)
    if weight_decay:
        torch._foreach_add_(updates, parameters, alpha=weight_decay)
        of_parameters, of_updates = (torch.stack(torch._foreach_norm(x)) for x in (parameters, updates))
        both = (of_parameters > 0) & (of_updates > 0)
        torch._foreach_mul_(updates, torch.where(both, of_parameters / of_updates, 1.0).unbind())
    torch._foreach_mul_(updates, lr)
    torch._foreach_sub_(parameters, updates)


class TorchLAMB(torch.optim.Optimizer):
    """LAMB as an optimiser of torch's kind, for DeepSpeed. All its parameters have a gradient in each step."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change all parameters."""
        for group in self.param_groups:
            parameters: Parameters = group["params"]
            states = [[self.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq", "step")]
            settings = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")}
            lamb(parameters, [p.grad for p in parameters if p.grad is not None], *states, **settings)

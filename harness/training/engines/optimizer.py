"""Optimisers, by torch's fused and multi-tensor kernels.

torch 2.14.1's own classes import torch's compiler when they take their first step (more than a CPU second), and their
fused kernels fail for a parameter that gets its first gradient after others had theirs.
"""

from typing import ClassVar

import torch
from torch import Tensor

from harness.spec.schema import Recipe
from harness.training.engines.base import Groups, Parameters, Rate, State


class Optimizer:
    """An optimiser whose state of each parameter begins with the parameter's first gradient.

    ``grad`` holds a parameter's gradient. ``second`` holds, by index, that of a second loss, which only DOT has.
    """

    state_names: ClassVar[tuple[str, ...]]  # in checkpoints

    def __init__(self, parameters: Parameters, recipe: Recipe, groups: Groups):
        self.state: State = {name: {} for name in self.state_names}
        self._parameters, self._recipe, self._groups = parameters, recipe, groups
        self.second: list[Tensor | None] = [None] * len(parameters)

    @torch.no_grad()
    def step(self, lr: Rate) -> None:
        """Change the parameters that have a gradient, and drop the gradients."""
        for group in self._groups:
            trained = [i for i in group.indices if self._parameters[i].grad is not None or self.second[i] is not None]
            self._change(trained, lr * group.lr_scale, group.weight_decay)
        self.drop_gradients()

    def exchange_gradients(self) -> None:
        """Put the second loss's gradients in the place of the first's, and these in theirs."""
        for i, p in enumerate(self._parameters):
            p.grad, self.second[i] = self.second[i], p.grad

    def drop_gradients(self) -> None:
        """Drop the gradients of all losses."""
        for i, p in enumerate(self._parameters):
            p.grad = self.second[i] = None

    def _change(self, indices: list[int], lr: Rate, weight_decay: float) -> None:
        raise NotImplementedError

    def _gradients(self, indices: list[int]) -> list[Tensor]:
        return [p.grad for i in indices if (p := self._parameters[i]).grad is not None]


class WithMoments(Optimizer):
    """An optimiser that keeps running means of gradients and their squares, and counts the steps of each parameter.

    The counts are tensors on the parameters' device: a captured step must count too.
    """

    state_names = ("exp_avg", "exp_avg_sq", "steps")

    def _states(self, indices: list[int]) -> list[list[Tensor]]:
        """Return each state of these parameters, in the order of its names; of new ones it is zero."""
        for i in indices:
            if i not in self.state["steps"]:
                p = self._parameters[i]
                new = (torch.zeros_like(p), torch.zeros_like(p), torch.zeros((), device=p.device))
                for name, tensor in zip(self.state_names, new, strict=True):
                    self.state[name][i] = tensor
        return [[self.state[name][i] for i in indices] for name in self.state_names]

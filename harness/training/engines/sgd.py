"""Stochastic gradient descent, by torch's fused kernels."""

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from harness.spec.schema import Recipe
from harness.training.engines.base import Parameters


class SGD:
    """The recipe's optimiser. It gives what ``torch.optim.SGD`` gives, bit for bit.

    torch 2.14.1's own class imports torch's compiler when it takes its first step (more than a CPU second), and its
    fused kernels fail for a parameter that gets its first gradient after others had theirs.
    """

    def __init__(self, parameters: Parameters, recipe: Recipe):
        self.momenta: dict[int, Tensor] = {}  # by the parameter's index; of those that had a gradient
        self._parameters, self._recipe = parameters, recipe

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Change the parameters that have a gradient, and drop the gradients."""
        trained = [i for i, p in enumerate(self._parameters) if p.grad is not None]
        self._change([i for i in trained if i in self.momenta], lr)
        self._change([i for i in trained if i not in self.momenta], lr)
        for p in self._parameters:
            p.grad = None

    def _change(self, indices: list[int], lr: float) -> None:
        """Change parameters of which all have a momentum or none has."""
        parameters = [self._parameters[i] for i in indices]
        gradients = [p.grad for p in parameters if p.grad is not None]
        momenta = [self.momenta.get(i) for i in indices]
        sgd(
            parameters,  # type: ignore[arg-type]
            gradients,
            momenta,
            fused=True,
            lr=lr,
            momentum=self._recipe.momentum,
            weight_decay=self._recipe.weight_decay,
            nesterov=self._recipe.nesterov,
            dampening=0.0,
            maximize=False,
        )
        self.momenta |= {i: m for i, m in zip(indices, momenta, strict=True) if m is not None}

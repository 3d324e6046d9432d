"""The native engine: torch's own backward pass, kernels and all-reduce."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.spec.schema import Recipe
from harness.training.distributed.ranks import Ranks
from harness.training.engines.adamw import AdamW
from harness.training.engines.base import Groups, Parameters, Rate, State, one_group
from harness.training.engines.dot import DOT
from harness.training.engines.lamb import LAMB
from harness.training.engines.optimizer import Optimizer
from harness.training.engines.sgd import SGD

OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "dot": DOT, "adamw": AdamW, "lamb": LAMB}


class NativeEngine:
    """An engine that needs nothing but torch."""

    def __init__(self, parameters: Parameters, recipe: Recipe, ranks: Ranks, groups: Groups | None = None):
        self._parameters, self._ranks, self._clip_norm = parameters, ranks, recipe.clip_norm
        self._optimizer = OPTIMIZERS[recipe.optimizer](parameters, recipe, groups or one_group(parameters, recipe))

    def backward(self, losses: Sequence[Tensor], last: bool) -> None:
        if len(losses) == 1:
            losses[0].backward()
            return
        first, second = losses
        first.backward(retain_graph=True)
        self._optimizer.exchange_gradients()
        if second.requires_grad:  # not of terms that are constant in some epochs
            second.backward()
        self._optimizer.exchange_gradients()

    def step(self, lr: Rate) -> None:
        gradients = (*(p.grad for p in self._parameters), *self._optimizer.second)
        self._ranks.all_reduce_sum(g for g in gradients if g is not None)
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self._optimizer.step(lr)

    def drop_gradients(self) -> None:
        self._optimizer.drop_gradients()

    def state(self) -> State:
        return {name: dict(tensors) for name, tensors in self._optimizer.state.items()}

    def restore(self, state: State) -> None:
        for name, tensors in state.items():
            for i, tensor in tensors.items():
                p = self._parameters[i]
                # With the parameter's layout in memory, which a count of steps has not.
                alike = torch.empty_like(p if tensor.shape == p.shape else tensor, device=p.device)
                self._optimizer.state[name][i] = alike.copy_(tensor)

    def restart(self) -> None:
        for tensors in self._optimizer.state.values():
            tensors.clear()

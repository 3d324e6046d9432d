"""An average of a student's weights over the steps of its training, which is what is evaluated and kept."""

import copy

import torch
from torch import Tensor, nn


class EMA:
    """Exponential moving average: after each step, average = decay x average + (1 - decay) x weights, batch norms'
    statistics included. It begins as the weights are (Polyak and Juditsky 1992; Tarvainen and Valpola 2017,
    arXiv:1703.01780)."""

    def __init__(self, student: nn.Module, decay: float):
        self.model: nn.Module = copy.deepcopy(student).requires_grad_(False).eval()
        self._student, self._decay = student, decay

    @torch.no_grad()
    def update(self) -> None:
        """After a step of the optimiser."""
        torch._foreach_lerp_(_numbers(self.model), _numbers(self._student), 1 - self._decay)

    @torch.no_grad()
    def restart(self) -> None:
        """Begins anew from the weights as they are."""
        torch._foreach_copy_(_numbers(self.model), _numbers(self._student))


def _numbers(model: nn.Module) -> list[Tensor]:
    """Asked for at each step: an engine may move weights elsewhere."""
    return [t.detach() for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]

"""EMA: the moving average of a student's weights over its steps. It is evaluated and saved instead of the student."""

import copy

import torch
from torch import Tensor, nn


class EMA:
    """Exponential moving average: after each step, average = decay * average + (1 - decay) * weights.

    It starts from the weights and includes the statistics of batch norms (Polyak and Juditsky 1992; Tarvainen and
    Valpola 2017, arXiv:1703.01780).
    """

    def __init__(self, student: nn.Module, decay: float):
        self.model: nn.Module = copy.deepcopy(student).requires_grad_(False).eval()
        self._student, self._decay = student, decay

    @torch.no_grad()
    def update(self) -> None:
        """Average in the weights after a step of the optimiser."""
        torch._foreach_lerp_(_float_tensors(self.model), _float_tensors(self._student), 1 - self._decay)

    @torch.no_grad()
    def restart(self) -> None:
        """Start again from the current weights."""
        torch._foreach_copy_(_float_tensors(self.model), _float_tensors(self._student))


def _float_tensors(model: nn.Module) -> list[Tensor]:
    # Collected at each step: an engine may move weights to other tensors.
    return [t.detach() for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]

"""Stochastic gradient descent, by torch's fused kernels."""

from collections.abc import Mapping

from torch import Tensor
from torch.optim.sgd import sgd

from harness.training.engines.base import Parameters, Rate
from harness.training.engines.optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent with momentum. It gives what ``torch.optim.SGD`` gives, bit for bit."""

    state_names = ("momentum",)

    def _change(self, indices: list[int], lr: Rate, weight_decay: float) -> None:
        gradients = dict(zip(indices, self._gradients(indices), strict=True))
        momentum, nesterov = self._recipe.momentum, self._recipe.nesterov
        descend(
            self._parameters, gradients, self.state["momentum"], lr=lr, momentum=momentum, weight_decay=weight_decay,
            nesterov=nesterov,
        )  # fmt: skip


def descend(
    parameters: Parameters, gradients: Mapping[int, Tensor], momenta: dict[int, Tensor], *, lr: Rate, momentum: float,
    weight_decay: float, nesterov: bool = False,
) -> None:  # fmt: skip
    """Change the parameters that have a gradient, and their momenta, which begin as the first gradient with its decay.

    All mappings are by the parameters' indices.
    """
    for has_momentum in (True, False):  # the kernels take only parameters of which all have one or none has
        indices = [i for i in gradients if (i in momenta) == has_momentum]
        if not indices:
            continue
        held = [momenta.get(i) for i in indices]
        sgd(
            [parameters[i] for i in indices],
            [gradients[i] for i in indices],
            held,
            fused=True,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
            dampening=0.0,
            maximize=False,
        )
        momenta |= {i: m for i, m in zip(indices, held, strict=True) if m is not None}

"""Stochastic gradient descent, by torch's fused kernels."""

from torch.optim.sgd import sgd

from harness.training.engines.base import Rate
from harness.training.engines.optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent with momentum. It gives what ``torch.optim.SGD`` gives, bit for bit."""

    state_names = ("momentum",)

    def _change(self, indices: list[int], lr: Rate, weight_decay: float) -> None:
        momenta = self.state["momentum"]
        self._change_alike([i for i in indices if i in momenta], lr, weight_decay)
        self._change_alike([i for i in indices if i not in momenta], lr, weight_decay)

    def _change_alike(self, indices: list[int], lr: Rate, weight_decay: float) -> None:
        """Change parameters of which all have a momentum or none has."""
        momenta = [self.state["momentum"].get(i) for i in indices]
        sgd(
            [self._parameters[i] for i in indices],
            self._gradients(indices),
            momenta,
            fused=True,
            lr=lr,
            momentum=self._recipe.momentum,
            weight_decay=weight_decay,
            nesterov=self._recipe.nesterov,
            dampening=0.0,
            maximize=False,
        )
        self.state["momentum"] |= {i: m for i, m in zip(indices, momenta, strict=True) if m is not None}

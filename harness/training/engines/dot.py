"""DOT: stochastic gradient descent with a momentum of each loss."""

from torch import Tensor

from harness.training.engines.base import Rate
from harness.training.engines.optimizer import Optimizer
from harness.training.engines.sgd import descend


class DOT(Optimizer):
    """Distillation-Oriented Trainer (Zhao et al., ICCV 2023): the distillation's gradient has more momentum.

    With m the momentum, d its delta, g_ce and g_kd the gradients of the labels' loss and of the distillation's:
    v_ce = (m - d) v_ce + g_ce + weight_decay * p;  v_kd = (m + d) v_kd + g_kd;  p changes by -lr * (v_ce + v_kd).

    As in the authors' code (megvii-research/mdistiller @a08d46f, mdistiller/engine/dot.py), v_ce and v_kd begin as what
    is added to them. A parameter that one loss alone reaches in a step has the momentum m. If that loss is the
    distillation's, v_kd has the weight decay, but not when it begins.
    """

    state_names = ("momentum_ce", "momentum_kd")

    def _change(self, indices: list[int], lr: Rate, weight_decay: float) -> None:
        m, d = self._recipe.momentum, self._recipe.momentum_delta
        ce = {i: g for i in indices if (g := self._parameters[i].grad) is not None}
        kd = {i: g for i in indices if (g := self.second[i]) is not None}
        ce_alone, kd_alone = _without(ce, kd), _without(kd, ce)
        ce_momenta, kd_momenta = (self.state[name] for name in self.state_names)
        fresh = _without(kd_alone, kd_momenta)
        for gradients, momenta, momentum, decay in (
            (_without(ce, ce_alone), ce_momenta, m - d, weight_decay),  # first: the decay is of what p was
            (_without(kd, kd_alone), kd_momenta, m + d, 0.0),
            (ce_alone, ce_momenta, m, weight_decay),
            (_without(kd_alone, fresh), kd_momenta, m, weight_decay),
            (fresh, kd_momenta, m, 0.0),
        ):
            descend(self._parameters, gradients, momenta, lr=lr, momentum=momentum, weight_decay=decay)


def _without(gradients: dict[int, Tensor], others: dict[int, Tensor]) -> dict[int, Tensor]:
    """Return the gradients of parameters that are not among the others."""
    return {i: g for i, g in gradients.items() if i not in others}

"""Adam with decoupled weight decay, by torch's fused kernels."""

from torch.optim.adamw import adamw

from harness.training.engines.base import Rate
from harness.training.engines.optimizer import WithMoments


class AdamW(WithMoments):
    """Adam with decoupled weight decay (arXiv:1711.05101). It gives what ``torch.optim.AdamW`` gives, bit for bit."""

    def _change(self, indices: list[int], lr: Rate, weight_decay: float) -> None:
        means, squares, steps = self._states(indices)
        beta1, beta2 = self._recipe.betas
        adamw(
            [self._parameters[i] for i in indices],
            self._gradients(indices),
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=lr,
            weight_decay=weight_decay,
            eps=self._recipe.eps,
            maximize=False,
        )

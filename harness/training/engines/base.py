"""The interface of engines, which turn gradients into steps of the optimiser.

The engine is no part of a run's science: all give the same training, to rounding, and resume each other's checkpoints.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from harness.spec.schema import Recipe
from harness.training.distributed.ranks import Ranks

Parameters = list[nn.Parameter]


class Engine(Protocol):
    """The optimiser of one run. It sums gradients over the ranks and changes only parameters that a loss reaches."""

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the loss's gradients to the step's; ``last``: no further loss follows in this step."""

    def step(self, lr: float) -> None:
        """Clip the gradients, step the optimiser and drop the gradients."""

    def momenta(self) -> dict[int, Tensor]:
        """Return the momenta by their parameter's index, each of its whole shape. All ranks must call it together."""

    def restore(self, momenta: dict[int, Tensor]) -> None:
        """Continue with what ``momenta`` returned."""

    def restart(self) -> None:
        """Begin another stage without momenta; its losses may reach other parameters."""


MakeEngine = Callable[[Parameters, Recipe, Ranks], Engine]

"""The interface of engines, which turn gradients into steps of the optimiser.

The engine is no part of a run's science: all give the same training, to rounding, and resume each other's checkpoints.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from harness.spec.schema import Recipe
from harness.training.distributed.ranks import Ranks

Parameters = list[nn.Parameter]
State = dict[str, dict[int, Tensor]]  # of an optimiser: by its name in checkpoints, then by the parameter's index
STATE_NAMES = ("momentum", "momentum_ce", "momentum_kd", "exp_avg", "exp_avg_sq", "steps")  # of all optimisers
Rate = float | Tensor  # a tensor lies on the parameters' device, where a captured step reads it


class ParameterGroup(NamedTuple):
    """Parameters, by their indices, with one factor of the learning rate and one weight decay."""

    indices: tuple[int, ...]
    lr_scale: float
    weight_decay: float


Groups = tuple[ParameterGroup, ...]


def one_group(parameters: Parameters, recipe: Recipe) -> Groups:
    """Return all parameters as one group, at the recipe's learning rate and weight decay."""
    return (ParameterGroup(tuple(range(len(parameters))), 1.0, recipe.weight_decay),)


class Engine(Protocol):
    """The optimiser of one run. It sums gradients over the ranks and changes only parameters that a loss reaches."""

    def backward(self, losses: Sequence[Tensor], last: bool) -> None:
        """Add the gradients of a micro-batch's loss to the step's; ``last``: no further one follows in this step.

        ``losses``: one loss, or those of the labels and of the distillation, whose gradients the optimiser keeps apart.
        """

    def step(self, lr: Rate) -> None:
        """Clip the gradients, step the optimiser and drop the gradients."""

    def drop_gradients(self) -> None:
        """Drop the gradients of an unfinished step."""

    def state(self) -> State:
        """Return the optimiser's state, each tensor of its whole shape. All ranks must call it together."""

    def restore(self, state: State) -> None:
        """Continue with what ``state`` returned."""

    def restart(self) -> None:
        """Begin another stage without a state; its losses may reach other parameters."""


MakeEngine = Callable[[Parameters, Recipe, Ranks, Groups], Engine]

"""Past runs and their times. Imports no numpy, so that a plan for an empty store does not wait for it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.spec.science import Science

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PastRun:
    """Finished runs that differ only in their seeds, on one kind of machine. Every array is (runs,), in seconds."""

    science: Science  # of one of them
    seeds: frozenset[int]
    hardware: str
    threads: int
    processes: int
    evaluated_parameters: int
    method_parameters: int
    own: "Floats"  # per training image: what the run did for itself, student and method
    data: "Floats"  # per training image: the data pass of its whole pack
    teacher: "Floats"  # per training image: the teacher's forward for its whole pack
    evaluation: "Floats"  # per image evaluated on
    first_stage: "Floats"  # all of it
    overhead: "Floats"  # the rest of its job, from the start of the process on; NaN where unknown


def image_counts(science: Science) -> tuple[int, int]:
    """Return how many images a run trains on and evaluates on, each counted as often as it is seen."""
    dataset, recipe = science.dataset, science.recipe
    evaluations = -(-recipe.last_epoch // recipe.eval_every)
    of_epoch = recipe.epoch_steps * recipe.batch_size if recipe.epoch_steps else science.images_per_pass
    return of_epoch * recipe.last_epoch, evaluations * (dataset.validation or dataset.info.test_size)

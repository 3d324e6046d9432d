"""What is known of past runs. Without numpy: a plan for an empty store does not wait for it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.spec.science import Science

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PastRun:
    """Finished runs that differ in their seeds alone, on one kind of machine. Every array is (runs,), in seconds."""

    science: Science  # of one of them
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
    around: "Floats"  # of its job: all but the training, from the start of the process on; NaN where it is not known


def image_counts(science: Science) -> tuple[int, int]:
    """Images that a run trains on, each as often as it is seen, and those it evaluates on, likewise."""
    dataset, recipe = science.dataset, science.recipe
    evaluations = -(-recipe.epochs // recipe.eval_every)
    of_epoch = recipe.epoch_steps * recipe.batch_size if recipe.epoch_steps else dataset.train_images
    return of_epoch * recipe.epochs, evaluations * (dataset.validation or dataset.info.test_size)

"""Learning rate schedules: pure functions of the epoch or step, so that nothing needs to be restored."""

import math

from harness.spec.schema import Recipe

WARMUP_START = 0.001  # detectron2's WARMUP_FACTOR


def warmup(recipe: Recipe, step: int) -> float:
    """Return the factor of the learning rate in a step, counted from 0 over all epochs."""
    if not 0 <= step < recipe.warmup_steps:
        return 1.0
    return WARMUP_START + (1 - WARMUP_START) * step / recipe.warmup_steps


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0.

    ``step``: lr x gamma for each milestone reached (150 decays from the 151st epoch on).
    """
    if epoch < recipe.warmup_epochs:
        return recipe.lr * (epoch + 1) / (recipe.warmup_epochs + 1)
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
    return recipe.lr * recipe.gamma ** sum(epoch >= m for m in recipe.milestones)

"""Learning rate schedules: pure functions of the epoch and step, so that nothing needs to be restored."""

import math

from harness.spec.schema import Recipe

WARMUP_START = 0.001  # detectron2's WARMUP_FACTOR


def warmup(recipe: Recipe, step: int) -> float:
    """Return the factor of the learning rate in a step, counted from 0 over all epochs."""
    if not 0 <= step < recipe.warmup_steps:
        return 1.0
    return WARMUP_START + (1 - WARMUP_START) * step / recipe.warmup_steps


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate of an epoch, counted from 0; between whole numbers, of a step within it.

    ``step``: lr x gamma for each milestone reached (150 decays from the 151st epoch on). ``cosine``: from lr to min_lr
    over all epochs, the warm-up's included (arXiv:1608.03983). The warm-up by step starts at warmup_lr, and that by
    epoch one step of its ramp above 0.
    """
    if epoch < recipe.warmup_epochs:
        if recipe.schedule_by == "step":
            return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * epoch / recipe.warmup_epochs
        return recipe.lr * (epoch + 1) / (recipe.warmup_epochs + 1)
    if recipe.schedule == "cosine":
        return recipe.min_lr + (recipe.lr - recipe.min_lr) * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
    return recipe.lr * recipe.gamma ** sum(epoch >= m for m in recipe.milestones)

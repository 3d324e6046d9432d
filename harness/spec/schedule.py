"""The learning rate of an epoch: a pure function, so that nothing needs to be restored."""

import math

from harness.spec.schema import Recipe


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """For the 0-based epoch. ``step``: lr x gamma for each milestone reached (150 decays from the 151st epoch on)."""
    if epoch < recipe.warmup_epochs:
        return recipe.lr * (epoch + 1) / (recipe.warmup_epochs + 1)
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
    return recipe.lr * recipe.gamma ** sum(epoch >= m for m in recipe.milestones)

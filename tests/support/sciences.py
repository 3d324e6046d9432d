"""Sciences of runs that no sweep has planned."""

from collections.abc import Mapping
from typing import Any

from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice, Given, MethodSettings, Science
from harness.spec.tasks import DATASETS


def make_science(
    student: str,
    use: str = "student",
    params: Mapping[str, Any] | None = None,
    weights: Mapping[str, float] | None = None,
    teacher: str | None = None,
    seed: int = 0,
    **recipe: Any,
) -> Science:
    """Return the science of a run on digits, with the recipe's defaults except ``recipe``."""
    return Science(
        dataset=DatasetChoice.of_info(DATASETS["digits"]),
        teacher=Given(teacher, "ab" * 32) if teacher else None,
        student=student,
        method=MethodSettings(use, 1, dict(params or {}), dict(weights or {"ce": 1.0})),
        recipe=Recipe.model_validate({"epochs": 1, "lr": 0.1} | recipe),
        seed=seed,
    )

"""The guard of the tables' columns: lines of different protocols share one only on request.

A whole sweep has one dataset, one evaluation set and one metric, and a pair has one teacher; recipes may differ.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from harness.errors import UserError
from harness.phrases import some
from harness.spec.identity import canonical
from harness.spec.lines import Line, LinePart
from harness.spec.recipe import PER_METHOD
from harness.spec.schema import Recipe
from harness.spec.science import CLOSED
from harness.spec.sweep_plan import Cell, Plan

_PER_METHOD = {name for name, field in Recipe.model_fields.items() if PER_METHOD in field.metadata}


@dataclass(frozen=True)
class RecipeChange(LinePart):
    """A line of a table that was trained with another recipe than most of its lines."""

    __pydantic_config__ = CLOSED
    change: str  # "lr 0.01, epochs 5"
    unlike: bool  # it makes another protocol

    def __str__(self) -> str:
        return f"{self.line}: {self.change}"


def recipe_changes(plan: Plan) -> tuple[RecipeChange, ...]:
    """Return the lines whose recipe is not the one that most lines have, with the keys that differ."""
    first = {cell.line: cell.run_id for cell in plan.cells}
    recipes = {line: plan.runs[run_id].science.recipe.model_dump(mode="json") for line, run_id in first.items()}
    texts = {line: canonical(recipe) for line, recipe in recipes.items()}
    usual = json.loads(Counter(texts.values()).most_common(1)[0][0])
    changes = []
    for line, recipe in recipes.items():
        if other := {key: value for key, value in recipe.items() if value != usual[key]}:
            change = ", ".join(f"{key} {value}" for key, value in other.items())
            changes.append(RecipeChange(*line, change, not set(other) <= _PER_METHOD))
    return tuple(changes)


def refuse_mixed(name: str, cells: Iterable[Cell], changes: Iterable[RecipeChange], mix: bool) -> None:
    """Refuse a table whose columns would mix protocols.

    Raises:
        UserError: a pair is listed twice with different teachers or settings; or lines are of different protocols and
            ``mix`` is not set.
    """
    runs: dict[tuple[Line, int], str] = {}
    for cell in cells:
        if runs.setdefault((cell.line, cell.seed), cell.run_id) != cell.run_id:
            raise UserError(
                f"{name}: the pair {cell.pair} is listed twice, with different teachers or settings, "
                "but a table has one line per pair. Put them into separate sweeps"
            )
    if mix:
        return
    if unlike := [str(change) for change in changes if change.unlike]:
        raise UserError(
            f"{name}: a column would mix numbers of different protocols, which are not comparable: "
            f"{some(unlike, separator='; ')}, unlike most lines. Put them into separate sweeps, or pass "
            "--mix-protocols to print them with marks"
        )

"""Recipes in one form: what can be written in several ways has one, so that equal runs have one identity."""

from typing import Any

from harness.spec.schema import Recipe
from harness.spec.tasks import DatasetInfo
from harness.spec.tasks.classification import ViewKeys, view_recipes


def canonical_recipe(recipe: Recipe, info: DatasetInfo) -> Recipe:
    """Return a recipe of a dataset without the values that mean the same as none.

    Keys of the first results are left as they are: their runs keep their ids.
    """
    changes: dict[str, Any] = {}
    if recipe.stop_epoch == recipe.epochs:
        changes["stop_epoch"] = None
    if info.image_shape is not None:
        changes["image_size"] = _image_size(recipe, info.image_shape)
    recipe = recipe.model_copy(update=changes)
    views = {name: _view(recipe, name, view) for name, view in (recipe.views or {}).items()}
    return recipe.model_copy(update={"views": views or None})


def _image_size(recipe: Recipe, shape: tuple[int, int, int]) -> Any:
    size = recipe.image_size
    if isinstance(size, tuple) and len(size) == 1:
        size = size[0][1]
    return None if shape[1:] == (size, size) else size


def _view(recipe: Recipe, name: str, view: ViewKeys) -> ViewKeys:
    """Return a view without the keys that it states as the recipe does."""
    for key in view.stated:
        fewer = ViewKeys(**{k: value for k, value in view.stated.items() if k != key})
        made = [view_recipes(recipe.model_copy(update={"views": {name: v}}))[name] for v in (view, fewer)]
        if made[0].model_copy(update={"views": None}) == made[1].model_copy(update={"views": None}):
            view = fewer
    return view

"""The tasks: what each measures, its datasets, its models and its keys of a recipe. Imports no torch, so that planning
can use it.

A task is registered here: among the modules, and with its keys where it has some.
"""

import difflib
from typing import Any

from harness.errors import UserError, shorten
from harness.spec import library_models, models, own_models
from harness.spec.model_reference import ModelReference
from harness.spec.tasks import classification, detection
from harness.spec.tasks.base import CHANNELS, DatasetInfo, Images, TaskInfo, import_object

__all__ = ["CATALOG", "CHANNELS", "DATASETS", "KINDS", "METRICS", "DatasetInfo", "Images", "RecipeKeys", "StatedScores",
           "TaskInfo", "check_task", "import_object", "resolve_model", "shown"]  # fmt: skip

_MODULES = (classification, detection)
CATALOG: dict[str, TaskInfo] = {module.TASK.name: module.TASK for module in _MODULES}
DATASETS: dict[str, DatasetInfo] = {info.name: info for module in _MODULES for info in module.DATASETS}


class RecipeKeys(detection.RecipeKeys, classification.RecipeKeys):
    """The keys that tasks have in a recipe."""


class StatedScores(detection.StatedScore, classification.StatedScore):
    """The scores that a sweep file may state for a teacher's weights."""


METRICS = tuple(dict.fromkeys(metric for task in CATALOG.values() for metric in task.metrics))
KINDS = {kind: None for task in CATALOG.values() for kinds in task.models.values() for kind in kinds}.keys()


def shown(metric: str) -> str:
    """Return what a person reads for a metric."""
    return next((task.labels[metric] for task in CATALOG.values() if metric in task.labels), metric)


def resolve_model(name: str) -> str:
    """Return the name a model goes by here, with its arguments in their normal form where it has some.

    ``timm:NAME``, ``torchvision:NAME`` and a user's own ``package.module:Name`` stay as they are.

    Raises:
        ValueError: there is no such model, or no such argument; the message gives the nearest names.
    """
    stated = ModelReference.parse(name)
    if library_models.is_library_model(stated.name):
        library_models.check_library_model(stated.name)
        params = library_models.checked_params(stated.name, stated.params)
    elif own_models.is_own_model(stated.name):
        params = _own_params(stated)
    else:
        stated = ModelReference(_known_model(stated.name), stated.params)
        params = models.checked_params(stated.name, stated.params)
    return ModelReference(stated.name, params).text


def _own_params(stated: ModelReference) -> dict[str, Any]:
    try:
        signature = own_models.describe(stated.name)
    except UserError as e:
        library, _, model = stated.name.partition(":")
        near = difflib.get_close_matches(library.casefold(), library_models.LIBRARIES, n=1, cutoff=0.75)
        raise ValueError(f"{e}; did you mean {near[0]}:{model}?" if near else str(e)) from None
    return signature.normal_form(stated.name, stated.params)


def _known_model(name: str) -> str:
    name = models.ALIASES.get(name, name)
    known = {model: None for task in CATALOG.values() for model in task.models}
    if name not in known:
        near = [*library_models.library_models_called(name)]
        near += difflib.get_close_matches(name[:200], [*known, *models.ALIASES])
        examples = ", ".join(example for task in CATALOG.values() for example in task.examples)
        hint = (
            f"nearest: {', '.join(near)}"
            if near
            else f"expected such as {examples}; `python -m harness.list models` has all"
        )
        module, dot, last = name.rpartition(".")
        is_dotted = dot and all(part.isidentifier() for part in name.split("."))
        own = f"; is it your own? write {module}:{last}" if is_dotted else ""
        raise ValueError(f"no model named {shorten(name)}; {hint}{own}")
    return name


def check_task(model: str, info: DatasetInfo) -> None:
    """Check that a model is for a dataset's task.

    Raises:
        ValueError: it is not; the message names some that are.
    """
    if not info.task.kinds(model):
        tasks = " and ".join(task.name for task in CATALOG.values() if task.kinds(model))
        raise ValueError(
            f"{model} is for {tasks}, dataset {info.name} for {info.task.name}: expected such as "
            f"{', '.join(info.task.examples)}"
        )

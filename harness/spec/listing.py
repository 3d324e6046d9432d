"""Listings of what a sweep file can name: methods, models, datasets and recipes. Imports no torch."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError, unknown
from harness.spec import library_models, methods, models, sweep_file, yamlfile
from harness.spec.tasks import CATALOG, DATASETS, DatasetInfo


@dataclass(frozen=True)
class Entry:
    """A thing that a sweep file can name, in one line, and what else is known of it."""

    name: str
    summary: str
    details: dict[str, Any] = field(default_factory=dict)


def listed_methods() -> Iterator[Entry]:
    for name in methods.builtin_names():
        info = methods.describe_method(name)
        params = {key: hyper.default for key, hyper in info.hyper.items()}
        for_tasks = [task.name for task in CATALOG.values() if _serves(info.defined_for, task.models)]
        yield Entry(name, info.summary, {"for": for_tasks, "weights": info.weights, "params": params})


def _serves(kinds: tuple[str, ...], models_of_task: Any) -> bool:
    return any(set(kinds) & set(known_as) for known_as in models_of_task.values())


def listed_models() -> Iterator[Entry]:
    for task in CATALOG.values():
        for name in task.models:
            facts = models.model_facts(name)
            summary = f"{task.name}, {_short(facts.params)} parameters, {_short(facts.macs)} multiply-adds"
            taps = {tap: "x".join(map(str, shape)) for tap, shape in facts.taps.items()}
            yield Entry(name, summary, {"also": [a for a, n in models.ALIASES.items() if n == name], "taps": taps})


def _short(number: float) -> str:
    """Return a number with three digits and its unit: k, M or G."""
    size, unit = (1e9, "G") if number >= 1e9 else (1e6, "M") if number >= 1e6 else (1e3, "k")
    value = number / size
    return f"{value:.{2 - (value >= 10) - (value >= 100)}f} {unit}"


def library_entries() -> Iterator[Entry]:
    """Yield the classifiers of the installed libraries."""
    for library in library_models.LIBRARIES:
        with suppress(ValueError):  # it is not installed
            for name in sorted(library_models.library_model_names(library)):
                yield Entry(f"{library}:{name}", f"classification, of {library}")


def listed_datasets() -> Iterator[Entry]:
    for name, info in DATASETS.items():
        yield Entry(name, f"{info.task.name}, {_content(info)}", {"folder": _place(info)})


def _content(info: DatasetInfo) -> str:
    if info.preparation or not info.classes:
        return "images of any size and classes of its own"
    shape = "x".join(map(str, info.image_shape or ()))
    return f"{info.classes} classes, {info.train_size:,} training and {info.test_size:,} test images of {shape}"


def _place(info: DatasetInfo) -> str:
    if info.embedded:
        return "comes with an installed package"
    prepared = f", as `python -m harness.prepare {info.name}` writes it" if info.preparation else ""
    return f"{info.folder or info.name}/ below --data{prepared}"


def listed_recipes() -> Iterator[Entry]:
    for path in sorted(sweep_file.SHIPPED_RECIPES.glob("*.yaml")):
        yield Entry(path.stem, _first_sentence(path), yamlfile.read_yaml(path).data)


def _first_sentence(path: Path) -> str:
    """Return the first sentence of the comment that a recipe's file begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")])
    return f"{re.split(r'(?<!al)[.] (?=[A-Z])', comment)[0].rstrip('.')}."


LISTINGS: dict[str, Callable[[], Iterator[Entry]]] = {
    "methods": listed_methods,
    "models": listed_models,
    "datasets": listed_datasets,
    "recipes": listed_recipes,
}


def entries(kind: str, search: str | None = None) -> tuple[Entry, ...]:
    """Return the entries of a kind. ``search``: the one of this name, or those whose names contain it.

    Raises:
        UserError: there is no such kind, or nothing of that name in it.
    """
    if kind not in LISTINGS:
        raise UserError(unknown("listing", kind, LISTINGS))
    all_entries = tuple(LISTINGS[kind]())
    if search is None:
        return all_entries
    if kind == "models":
        all_entries += tuple(library_entries())
    exact = tuple(e for e in all_entries if search in (e.name, *e.details.get("also", ())))
    similar = exact or tuple(e for e in all_entries if search.casefold() in e.name.casefold())
    if not similar:
        raise UserError(unknown(kind.removesuffix("s"), search, (e.name for e in all_entries)))
    return similar

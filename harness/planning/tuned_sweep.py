"""The sweep file with the settings that a tuning chose, which ``harness.sweep`` runs like any other."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.planning.plan import Planned
from harness.planning.tuning_plan import teaching_methods
from harness.spec.search_space import Setting, Settings
from harness.store import files

_HEAD = "# {file} with the settings that `python -m harness.tune` chose.\n"
# Keys of a pair that hold weights, or a list of them.
_GIVEN = ("teacher_weights", "teacher_backbone", "student_backbone", "student_weights", "teacher_init")


def write_tuned_sweep(final: Planned, winners: Mapping[str, Settings]) -> Path:
    """Write the file into the store, and the recipes beside it that lie beside the original; return its path.

    Its runs are those of the final plan. Where runs teach others, it also has what --only leaves out.
    """
    path, source = final.store.tuned_sweep(final.name), Path(final.document.source)
    data = copy.deepcopy(final.document.data)
    data.pop("tune", None)
    name = final.name[-64:].lstrip("_.+-")  # with overrides it may be longer than a file may state
    data |= {"name": name, "methods": _methods(data["methods"], winners)}
    if not teaching_methods(final.plan.sweep):
        _keep_selected(data, final)
    for weights in _given_files(data["pairs"]):
        weights["file"] = _reachable(weights["file"], final)
    _copy_recipes(set(_recipe_names(data)), source.parent / "recipes", path.parent / "recipes")
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    files.replace_text(path, _HEAD.format(file=source.name) + text)
    return path


def _methods(stated: Any, winners: Mapping[str, Settings]) -> dict[str, Any]:
    """Return the entries of ``methods`` without searches, and with what has won."""
    entries = dict.fromkeys(stated) if isinstance(stated, list) else stated
    methods: dict[str, Any] = {}
    for name, entry in entries.items():
        methods[name] = {key: value for key, value in (entry or {}).items() if key != "search"}
        for part, key, value in ((*Setting.of(key), value) for key, value in winners.get(name, {}).items()):
            methods[name][part] = {**(methods[name].get(part) or {}), key: value}
    return methods


def _keep_selected(data: dict[str, Any], final: Planned) -> None:
    """Leave out the methods, pairs and seeds without a cell."""
    sweep, cells = final.plan.sweep, final.plan.cells
    methods, pairs, seeds = ({getattr(cell, key) for cell in cells} for key in ("method", "pair", "seed"))
    data["methods"] = {name: entry for name, entry in data["methods"].items() if name in methods}
    stated = zip(data["pairs"], sweep.pairs, strict=True)
    data["pairs"] = [entry for entry, pair in stated if (pair.teacher_text, pair.student) in pairs]
    for pair in data["pairs"]:
        if pair.get("methods"):
            pair["methods"] = {name: change for name, change in pair["methods"].items() if name in methods}
    if not seeds.issuperset(sweep.seeds):
        data["seeds"] = [seed for seed in sweep.seeds if seed in seeds]


def _given_files(pairs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the mappings of pairs that name a file with weights."""
    for value in (pair.get(key) for pair in pairs for key in _GIVEN):
        for weights in value if isinstance(value, list) else [value]:
            if weights and weights.get("file"):
                yield weights


def _reachable(file: str, final: Planned) -> str:
    """Return a path that leads to the same file from the store: one beside the sweep file becomes absolute."""
    below_root = final.data_root is not None and (final.data_root / file).is_file()
    beside = Path(final.document.source).resolve().parent / file
    return str(beside.resolve()) if not below_root and beside.is_file() else file


def _recipe_names(value: Any) -> Iterator[str]:
    """Yield what names a recipe in a sweep file's data, and perhaps other texts."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if isinstance(part, str) and key in ("recipe", "base"):
                yield part
            yield from _recipe_names(part)
    elif isinstance(value, list):
        for part in value:
            yield from _recipe_names(part)


def _copy_recipes(names: set[str], source: Path, folder: Path) -> None:
    """Copy the recipes of these names that lie beside the sweep file, and no others."""
    for path in files.entries(folder, "*.yaml"):
        path.unlink()
    for path in files.entries(source, "*.yaml"):
        if path.stem in names:
            files.replace_text(folder / path.name, path.read_text(encoding="utf-8"))

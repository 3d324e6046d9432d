"""Sweep files, read and validated: every mistake becomes one message that names file, line and key."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import UserError, collected, one_line, raise_mistakes, shorten, unknown
from harness.spec import method_settings, yamlfile
from harness.spec.schema import NAME_PATTERN, Method, Recipe, Sweep
from harness.spec.validation import validate_model
from harness.spec.yamlfile import Document, KeyPath

SHIPPED_RECIPES = Path(__file__).resolve().parents[2] / "benchmarks" / "recipes"


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> tuple[Sweep, Document]:
    """Load the sweep in a file, with ``key.path=value`` overrides applied before validation.

    Raises:
        UserError: any mistake in the file or the overrides.
    """
    document = replace(yamlfile.read_yaml(path), sets=tuple(overrides))
    for override in overrides:
        _override(document, override)
    try:
        sweep = validate_model(Sweep, document.data, document)
    except UserError as e:
        raise_mistakes([*e.parts, *_further_mistakes(document)])
        raise
    if sweep.name is None:
        sweep = sweep.model_copy(update={"name": _name_of(path)})
    return sweep, document


def _further_mistakes(document: Document) -> list[UserError]:
    """Return the mistakes in recipe and methods of a sweep that is no valid one."""
    mistakes: list[UserError] = []
    recipe, entries = document.data.get("recipe"), document.data.get("methods")
    keys = None
    if isinstance(recipe, str | dict):
        with collected(mistakes):
            keys = load_recipe(recipe, document, ("recipe",))
    if isinstance(entries, list):
        entries = {name: {} for name in entries if isinstance(name, str)}
    for name, settings in entries.items() if isinstance(entries, dict) else ():
        with suppress(ValidationError):  # which has been told
            entry = Method.model_validate(settings or {})
            if re.match(NAME_PATTERN, name):
                with collected(mistakes):
                    method_settings.resolve(name, {("methods", name): entry}, document)
            if keys is not None:
                with collected(mistakes):
                    changed_recipe(keys, [(("methods", name, "recipe"), entry.recipe)], document, ("recipe",))
    return mistakes


def _name_of(path: Path) -> str:
    """Return the name of a sweep that states none: its file's."""
    name = "".join(c if c.isalnum() or c in "_.+-" else "_" for c in path.stem)[:64].lstrip("_.+-")
    return name or "sweep"


def load_recipe(ref: str | dict[str, Any], document: Document, at: KeyPath) -> dict[str, Any]:
    """Return the keys of a recipe that is stated by name or as a mapping, validated.

    Raises:
        UserError: unknown recipe, unknown key or wrong value.
    """
    if isinstance(ref, str):
        data = _recipe_file(ref, document, at)
    else:
        data = {k: v for k, v in ref.items() if k != "base"}
        for key in data.keys() - Recipe.model_fields.keys() if "base" not in ref else ():
            if (name := data[key] if key == "name" else key) in _recipe_files(document):
                text = f"unknown key {key!r}; to start from a recipe, write base: {name}"
                raise document.mistake((*at, key), text)
        if "base" in ref:
            data = {**_recipe_file(ref["base"], document, (*at, "base")), **data}
    validate_model(Recipe, data, document, at)
    return data


def changed_recipe(
    base: dict[str, Any], layers: Iterable[tuple[KeyPath, dict[str, Any]]], document: Document, at: KeyPath
) -> Recipe:
    """Return a recipe with changes: later layers win, and each comes with its place in the sweep file.

    A layer with ``base: NAME`` starts again from that recipe.

    Raises:
        UserError: unknown key or wrong value; the message names its place.
    """
    data = dict(base)
    owners: dict[str, KeyPath] = {}
    for path, changes in layers:
        if "base" in changes:
            data = _recipe_file(changes["base"], document, (*path, "base"))
            changes = {key: value for key, value in changes.items() if key != "base"}
        data = {**data, **changes}
        owners |= dict.fromkeys(changes, path)
        at = path if changes else at
    return validate_model(Recipe, data, document, at, owners)


def _recipe_files(document: Document) -> dict[str, Path]:
    folders = [Path(document.source).parent / "recipes", SHIPPED_RECIPES]
    return {p.stem: p for folder in reversed(folders) if folder.is_dir() for p in sorted(folder.glob("*.yaml"))}


def _recipe_file(name: Any, document: Document, at: KeyPath) -> dict[str, Any]:
    files = _recipe_files(document)
    if not isinstance(name, str) or name not in files:
        raise document.mistake(at, unknown("recipe", name, files))
    recipe = yamlfile.read_yaml(files[name])
    validate_model(Recipe, recipe.data, recipe)  # a mistake in the recipe's own file is reported with its line there
    return recipe.data


def _override(document: Document, text: str) -> None:
    """Apply one ``--set key.path=value``; short forms (``recipe: NAME``) become mappings as needed."""
    key, sep, raw = text.partition("=")
    if not sep or not all(key.strip().split(".")):
        raise UserError(f"--set {shorten(text)}: expected key.path=value, e.g. recipe.epochs=10")
    parsed = yamlfile.parse_yaml(f"value: {raw}", f"--set {one_line(key.strip(), 80)}", hidden=1).data
    if set(parsed) != {"value"}:
        raise UserError(f"--set {shorten(text)}: expected one value")
    value = parsed["value"]
    path = key.strip().split(".")
    if path[0] == "methods" and path[2:3] == ["search"]:
        path[3:5] = [".".join(path[3:5])]  # a key of a search has a dot itself: params.temperature
    container: Any = document.data
    for i, part in enumerate(path):
        last = i == len(path) - 1
        if isinstance(container, list):
            if not part.isdecimal() or len(part) > 9 or int(part) >= len(container):
                raise UserError(
                    f"--set {key}: {part!r} is not a position in {'.'.join(path[:i])} (0 to {len(container) - 1})"
                )
            index: Any = int(part)
        elif isinstance(container, dict):
            index = part
        else:
            raise UserError(f"--set {key}: {'.'.join(path[:i])} holds {shorten(container)}, which has no keys")
        if last:
            container[index] = value
        else:
            child = container.get(index) if isinstance(container, dict) else container[index]
            container[index] = child = _expanded(index, child)
            container = child


def _expanded(key: Any, value: Any) -> Any:
    """Return the mapping that a short form stands for."""
    if value is None:
        return {}
    if isinstance(value, str) and key in ("recipe", "dataset"):
        return {"base" if key == "recipe" else "name": value}
    if isinstance(value, list) and key == "methods" and len(set(map(str, value))) == len(value):
        return {str(name): {} for name in value}
    return value

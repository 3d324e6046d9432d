"""Sweep files, read and validated: every mistake becomes one message that names file, line and key."""

import types
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.errors import UserError, shorten, unknown
from harness.phrases import plural
from harness.spec import yamlfile
from harness.spec.schema import Method, Recipe, Sweep
from harness.spec.yamlfile import Document, KeyPath

M = typing.TypeVar("M", bound=BaseModel)
# What pydantic's errors of wrong types expect, in the words of YAML: "int_type", "int_parsing", "int_from_float", ...
WRONG_TYPE = ("_type", "_parsing", "_from_float")
EXPECTED = {
    "tuple": "a list", "list": "a list", "dict": "a mapping of keys to values", "model": "a mapping of keys to values",
    "int": "an integer", "float": "a number", "bool": "true or false", "string": "text",
}  # fmt: skip
SHIPPED_RECIPES = Path(__file__).resolve().parents[2] / "benchmarks" / "recipes"


def load_sweep(path: Path, overrides: typing.Sequence[str] = ()) -> tuple[Sweep, Document]:
    """Load the sweep in a file, with ``key.path=value`` overrides applied before validation.

    Raises:
        UserError: any mistake in the file or the overrides.
    """
    document = replace(yamlfile.read_yaml(path), sets=tuple(overrides))
    for override in overrides:
        _override(document, override)
    sweep = validate_model(Sweep, document.data, document)
    if sweep.name is None:
        sweep = sweep.model_copy(update={"name": _name_of(path)})
    return sweep, document


def _name_of(path: Path) -> str:
    """Return the name of a sweep that states none: its file's."""
    name = "".join(c if c.isalnum() or c in "_.+-" else "_" for c in path.stem)[:64].lstrip("_.+-")
    return name or "sweep"


def validate_model(
    model: type[M], data: Any, document: Document, at: KeyPath = (), owners: dict[str, KeyPath] | None = None
) -> M:
    """Validate data against a model. ``owners``: the places of keys that do not stand at ``at``.

    Raises:
        UserError: the first mistake.
    """
    try:
        return model.model_validate(data)
    except ValidationError as e:
        errors = e.errors(include_url=False)
        first = errors[0]
        if first["type"] == "missing":  # a misspelt key is also a missing one; the misspelling helps more
            first = next((error for error in errors if error["type"] == "extra_forbidden"), first)
        loc = tuple(p for p in first["loc"] if p != "[key]")
        message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        if first["type"] == "extra_forbidden":
            owner = _model_at(model, loc[:-1])
            message = unknown("key", loc[-1], owner.model_fields if owner else ())
            if owner is Sweep and loc[-1] in Recipe.model_fields:
                message = f"unknown key {loc[-1]!r}; it is a key of recipe: recipe.{loc[-1]}"
            elif owner is Method:
                message += "; hyper-parameters go under params"
        elif first["type"] == "missing":
            message = "is required and missing"
        elif (kind := first["type"].split("_")[0]) in EXPECTED and first["type"].endswith(WRONG_TYPE):
            message = f"expected {EXPECTED[kind]}, found {shorten(first['input'])}"
        elif first["type"] != "value_error":
            message = message.replace("Input should be", "must be")
            message = f"{message[0].lower()}{message[1:]}, found {shorten(first['input'])}"
        more = f" (and {plural(len(errors) - 1, 'more mistake')})" if len(errors) > 1 else ""
        if loc and owners:
            at = owners.get(str(loc[0]), at)
        raise document.mistake((*at, *loc), f"{message}{more}") from None


def load_recipe(ref: str | dict[str, Any], document: Document, at: KeyPath) -> dict[str, Any]:
    """Return the keys of a recipe that is stated by name or as a mapping, validated.

    Raises:
        UserError: unknown recipe, unknown key or wrong value.
    """
    if isinstance(ref, str):
        data = _recipe_file(ref, document, at)
    else:
        data = {k: v for k, v in ref.items() if k != "base"}
        if "base" in ref:
            data = {**_recipe_file(ref["base"], document, (*at, "base")), **data}
    validate_model(Recipe, data, document, at)
    return data


def changed_recipe(
    base: dict[str, Any], layers: typing.Iterable[tuple[KeyPath, dict[str, Any]]], document: Document, at: KeyPath
) -> Recipe:
    """Return a recipe with changes: later layers win, and each comes with its place in the sweep file.

    Raises:
        UserError: unknown key or wrong value; the message names its place.
    """
    data = dict(base)
    owners: dict[str, KeyPath] = {}
    for path, changes in layers:
        data |= changes
        owners |= {key: path for key in changes}
        at = path if changes else at
    return validate_model(Recipe, data, document, at, owners)


def _recipe_file(name: Any, document: Document, at: KeyPath) -> dict[str, Any]:
    folders = [Path(document.source).parent / "recipes", SHIPPED_RECIPES]
    files = {p.stem: p for folder in reversed(folders) if folder.is_dir() for p in sorted(folder.glob("*.yaml"))}
    if not isinstance(name, str) or name not in files:
        raise document.mistake(at, unknown("recipe", name, files))
    recipe = yamlfile.read_yaml(files[name])
    validate_model(Recipe, recipe.data, recipe)  # a mistake in the recipe's own file is reported with its line there
    return recipe.data


def _model_at(model: type[BaseModel], loc: KeyPath) -> type[BaseModel] | None:
    """Return the model whose keys stand at ``loc``, following the fields' annotations."""
    annotation: Any = model
    for part in loc:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else None
        else:
            args = typing.get_args(annotation)
            annotation = args[-1 if typing.get_origin(annotation) is dict else 0] if args else None
        if typing.get_origin(annotation) in (typing.Union, types.UnionType):
            annotation = next(
                (a for a in typing.get_args(annotation) if isinstance(a, type) and issubclass(a, BaseModel)), None
            )
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _override(document: Document, text: str) -> None:
    """Apply one ``--set key.path=value``; short forms (``recipe: NAME``) become mappings as needed."""
    key, sep, raw = text.partition("=")
    if not sep or not key.strip():
        raise UserError(f"--set {shorten(text)}: expected key.path=value, e.g. recipe.epochs=10")
    parsed = yamlfile.parse_yaml(f"value: {raw}", f"--set {shorten(key)}").data
    if set(parsed) != {"value"}:
        raise UserError(f"--set {shorten(text)}: expected one value")
    value = parsed["value"]
    path = key.strip().split(".")
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

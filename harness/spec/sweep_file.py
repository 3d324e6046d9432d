"""A sweep file, read and validated; every mistake becomes one message that names file, line and key."""

import types
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.errors import UserError, shorten, unknown
from harness.spec import yamlfile
from harness.spec.schema import Recipe, Sweep
from harness.spec.yamlfile import Document, KeyPath

M = typing.TypeVar("M", bound=BaseModel)
SHIPPED_RECIPES = Path(__file__).resolve().parents[2] / "benchmarks" / "recipes"


def load_sweep(path: Path, overrides: typing.Sequence[str] = ()) -> tuple[Sweep, Document]:
    """The sweep in a file, with ``key.path=value`` overrides applied before validation.

    Raises:
        UserError: any mistake in the file or the overrides.
    """
    document = replace(yamlfile.read_yaml(path), sets=tuple(overrides))
    for override in overrides:
        _override(document, override)
    sweep = validate_sweep(Sweep, document.data, document)
    if sweep.name is None:
        sweep = sweep.model_copy(update={"name": _name_of(path)})
    return sweep, document


def _name_of(path: Path) -> str:
    """A sweep without a name takes its file's."""
    name = "".join(c if c.isalnum() or c in "_.+-" else "_" for c in path.stem)[:64].lstrip("_.+-")
    return name or "sweep"


def validate_sweep(
    model: type[M], data: Any, document: Document, at: KeyPath = (), owners: dict[str, KeyPath] | None = None
) -> M:
    """Data as the model, or the first mistake as a UserError. ``owners``: where keys stand that are not at ``at``."""
    try:
        return model.model_validate(data)
    except ValidationError as e:
        errors = e.errors(include_url=False)
        first = errors[0]
        loc = tuple(p for p in first["loc"] if p != "[key]")
        message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        if first["type"] == "extra_forbidden":
            owner = _model_at(model, loc[:-1])
            message = unknown("key", loc[-1], owner.model_fields if owner else ())
        elif first["type"] == "missing":
            message = "is required and missing"
        elif first["type"] != "value_error":
            message = f"{message[0].lower()}{message[1:]}, found {shorten(first['input'])}"
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        if loc and owners:
            at = owners.get(str(loc[0]), at)
        raise UserError(f"{document.where((*at, *loc))}: {message}{more}") from None


def load_recipe(ref: str | dict[str, Any], document: Document, at: KeyPath) -> dict[str, Any]:
    """The keys of a recipe given by name or as a mapping, validated.

    Raises:
        UserError: unknown recipe, unknown key or wrong value.
    """
    if isinstance(ref, str):
        data = _recipe_file(ref, document, at)
    else:
        data = {k: v for k, v in ref.items() if k != "base"}
        if "base" in ref:
            data = {**_recipe_file(ref["base"], document, (*at, "base")), **data}
    validate_sweep(Recipe, data, document, at)
    return data


def changed_recipe(
    base: dict[str, Any], layers: typing.Iterable[tuple[KeyPath, dict[str, Any]]], document: Document, at: KeyPath
) -> Recipe:
    """A recipe with changes over it, later layers winning; each comes with the place it stands at.

    Raises:
        UserError: unknown key or wrong value, named where it stands.
    """
    data = dict(base)
    owners: dict[str, KeyPath] = {}
    for path, changes in layers:
        data |= changes
        owners |= {key: path for key in changes}
        at = path if changes else at
    return validate_sweep(Recipe, data, document, at, owners)


def _recipe_file(name: Any, document: Document, at: KeyPath) -> dict[str, Any]:
    folders = [Path(document.source).parent / "recipes", SHIPPED_RECIPES]
    files = {p.stem: p for folder in reversed(folders) if folder.is_dir() for p in sorted(folder.glob("*.yaml"))}
    if not isinstance(name, str) or name not in files:
        raise UserError(f"{document.where(at)}: {unknown('recipe', name, files)}")
    found = yamlfile.read_yaml(files[name])
    validate_sweep(Recipe, found.data, found)  # so that a mistake in the recipe's own file is told with its own line
    return found.data


def _model_at(model: type[BaseModel], loc: KeyPath) -> type[BaseModel] | None:
    """The model whose keys stand at ``loc``, following the fields' annotations."""
    here: Any = model
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = field.annotation if field else None
        else:
            here = (
                typing.get_args(here)[-1 if typing.get_origin(here) is dict else 0] if typing.get_args(here) else None
            )
        if typing.get_origin(here) in (typing.Union, types.UnionType):
            here = next((a for a in typing.get_args(here) if isinstance(a, type) and issubclass(a, BaseModel)), None)
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _override(document: Document, text: str) -> None:
    """Applies one ``--set key.path=value``; short forms (``recipe: NAME``) are opened as needed."""
    key, sep, raw = text.partition("=")
    if not sep or not key.strip():
        raise UserError(f"--set {shorten(text)}: expected key.path=value, e.g. recipe.epochs=10")
    parsed = yamlfile.parse_yaml(f"value: {raw}", f"--set {shorten(key)}").data
    if set(parsed) != {"value"}:
        raise UserError(f"--set {shorten(text)}: expected one value")
    value = parsed["value"]
    path = key.strip().split(".")
    here: Any = document.data
    for i, part in enumerate(path):
        last = i == len(path) - 1
        if isinstance(here, list):
            if not part.isdecimal() or len(part) > 9 or int(part) >= len(here):
                raise UserError(
                    f"--set {key}: {part!r} is not a position in {'.'.join(path[:i])} (0 to {len(here) - 1})"
                )
            index: Any = int(part)
        elif isinstance(here, dict):
            index = part
        else:
            raise UserError(f"--set {key}: {'.'.join(path[:i])} holds {shorten(here)}, which has no keys")
        if last:
            here[index] = value
        else:
            child = here.get(index) if isinstance(here, dict) else here[index]
            here[index] = child = _opened(index, child)
            here = child


def _opened(key: Any, value: Any) -> Any:
    """A short form as the mapping it stands for."""
    if value is None:
        return {}
    if isinstance(value, str) and key in ("recipe", "dataset"):
        return {"base" if key == "recipe" else "name": value}
    if isinstance(value, list) and key == "methods" and len(set(map(str, value))) == len(value):
        return {str(name): {} for name in value}
    return value

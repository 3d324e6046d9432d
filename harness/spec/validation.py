"""Validation of data from files: every mistake becomes a message that names file, line and key."""

import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harness.errors import expected, raise_mistakes, requirement, shorten, unknown
from harness.phrases import plural
from harness.spec.recipe import Closed
from harness.spec.schema import NAME_PATTERN, Method, Recipe
from harness.spec.yamlfile import Document, KeyPath

M = typing.TypeVar("M", bound=BaseModel)
# What pydantic's errors of wrong types expect, in the words of YAML: "int_type", "int_parsing", "int_from_float", ...
WRONG_TYPE = ("_type", "_parsing", "_from_float")
EXPECTED = {
    "tuple": "a list", "list": "a list", "dict": "a mapping of keys to values", "model": "a mapping of keys to values",
    "int": "an integer", "float": "a number", "bool": "true or false", "string": "text",
}  # fmt: skip
# What pydantic puts between the keys of a place.
LABELS = ("int", "float", "bool", "str", "tuple[", "list[", "Range", "function-after[", "[key]")


def validate_model(
    model: type[M], data: Any, document: Document, at: KeyPath = (), owners: dict[str, KeyPath] | None = None
) -> M:
    """Validate data against a model. ``owners``: the places of keys that do not stand at ``at``.

    Raises:
        UserError: there are mistakes; it names all.
    """
    try:
        return model.model_validate(data)
    except ValidationError as e:
        by_place: dict[KeyPath, list[ErrorDetails]] = {}
        for error in e.errors(include_url=False):
            by_place.setdefault(_place(error, data), []).append(error)
    mistakes = []
    for place, errors in by_place.items():
        deeper = any(len(other) > len(place) and other[: len(place)] == place for other in by_place)
        if deeper and all(_is_told_deeper(error) for error in errors):
            continue
        root = (owners or {}).get(str(place[0]), at) if place else at
        is_missing = errors[0]["type"] == "missing"
        mistakes.append(document.mistake((*root, *place), message(model, place, errors), is_missing))
    raise_mistakes(mistakes)
    raise AssertionError("pydantic refuses without a reason")


def _place(error: ErrorDetails, data: Any) -> KeyPath:
    """Return an error's keys and positions in the file."""
    place: list[str | int] = []
    for position, part in enumerate(error["loc"], 1):
        has_key = isinstance(data, dict) and part in data
        is_unknown_key = error["type"] == "extra_forbidden" and position == len(error["loc"])
        if isinstance(part, str) and not has_key and part.startswith(LABELS) and not is_unknown_key:
            continue
        place.append(part)
        is_inside = has_key or (isinstance(data, list) and isinstance(part, int) and part < len(data))
        data = data[part] if is_inside else None
    if error["type"] == "missing" and isinstance(place[-1], int):  # a position of a list
        place.pop()
    return tuple(place)


def _is_told_deeper(error: ErrorDetails) -> bool:
    """Return whether an error follows from one inside the value: it is no other alternative, or seems to be empty."""
    return error["type"].endswith(WRONG_TYPE) or error["type"] == "too_short"


def message(model: type[BaseModel], place: KeyPath, errors: list[ErrorDetails]) -> str:
    """Return what is wrong at a place, in a person's words; ``errors`` are pydantic's for it."""
    kinds = [error["type"].split("_")[0] for error in errors]
    # Of what is one of several forms, a value in one of them has the mistake that its form's own check tells.
    error = next((error for error in errors if error["type"] == "value_error"), errors[0])
    value = error["input"]
    if error["type"] == "extra_forbidden":
        return _unknown_key(model, place)
    if error["type"] == "missing":
        if isinstance(error["loc"][-1], int):
            return f"expected at least {error['loc'][-1] + 1} values, found {shorten(value)}"
        return "is required and missing"
    if all(kind in EXPECTED and e["type"].endswith(WRONG_TYPE) for kind, e in zip(kinds, errors, strict=True)):
        words = " or ".join(dict.fromkeys(EXPECTED[kind] for kind in kinds))
        quote = kinds == ["string"] and isinstance(value, int | float)
        return expected(words, value) + ("; put it in quotes" if quote else "")
    if error["type"] == "string_too_short":
        return expected("text", value)
    if error["type"] in ("too_short", "too_long"):
        least, most = error["ctx"].get("min_length", 0), error["ctx"].get("max_length", 0)
        bound = (
            f"at least {plural(least, 'entry', 'entries')}" if least else f"at most {plural(most, 'entry', 'entries')}"
        )
        return f"expected {bound}, found {error['ctx']['actual_length'] or 'none'}"
    if error["type"] == "string_pattern_mismatch" and error["ctx"]["pattern"] == NAME_PATTERN:
        return (
            f"expected a name of at most 64 letters, digits and any of _.+- (not as the first), found {shorten(value)}"
        )
    if error["type"] == "string_pattern_mismatch":  # the one other pattern is a sha256's
        return expected("64 digits of 0-9 and a-f", value)
    text = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if error["type"] == "value_error":
        return text
    text = requirement(text)
    return f"{text[0].lower()}{text[1:]}, found {shorten(value)}"


def _unknown_key(model: type[BaseModel], place: KeyPath) -> str:
    key, owner = str(place[-1]), _model_at(model, place[:-1])
    fields = owner.model_fields if owner else {}
    if "recipe" in fields and key in Recipe.model_fields:
        return f"unknown key {key!r}; it is a key of recipe: recipe.{key}"
    if owner is not None and (instead := owner.owner_of(key)):
        return f"unknown key {shorten(key)}; {instead}"
    name, colon, _ = key.partition(":")
    if colon and name in fields:
        return f"unknown key {shorten(key)}; a space is missing after the colon of {name!r}"
    text = unknown("key", key, fields)
    return f"{text}; hyper-parameters go under params" if owner is Method else text


def _model_at(model: type[BaseModel], loc: KeyPath) -> type[Closed] | None:
    """Return the model whose keys stand at ``loc``, following the fields' annotations."""
    annotation: Any = model
    for part in loc:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if isinstance(part, int):  # of a list, where one may be written without it
                continue
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else None
        else:
            args = typing.get_args(annotation)
            annotation = args[-1 if typing.get_origin(annotation) is dict else 0] if args else None
        if typing.get_origin(annotation) in (typing.Union, types.UnionType):
            annotation = next(filter(_has_keys, typing.get_args(annotation)), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, Closed) else None


def _has_keys(annotation: Any) -> bool:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return is_model or typing.get_origin(annotation) is dict

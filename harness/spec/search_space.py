"""Searches of a sweep's methods: the settings of an entry that ``python -m harness.tune`` tries other values of."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log10
from typing import Any, NamedTuple

from pydantic import ValidationError

from harness.errors import UserError, collected, expected, shorten, unknown
from harness.spec import validation
from harness.spec.methods import Hyper, MethodInfo, describe_method
from harness.spec.recipe import PER_METHOD, types_of
from harness.spec.schema import Method, Pair, Recipe, Sweep
from harness.spec.tuning_keys import Range
from harness.spec.yamlfile import Document, KeyPath

PARTS = ("params", "weights", "recipe")
Settings = dict[str, Any]  # key of an entry, such as "weights.kd" -> value
_WEIGHT = Hyper("float", (), None)
_LENGTH = ("epochs", "stop_epoch", "epoch_steps", "repeats")  # keys of a recipe that a trial's images depend on
_LEAST_RECIPE = {"epochs": 100_000, "lr": 1e100, "batch_size": 2}  # contradicts no other key


class Setting(NamedTuple):
    """The place of a setting in an entry."""

    part: str  # of PARTS
    name: str

    @classmethod
    def of(cls, key: str) -> "Setting":
        """Return the place that a key of a search names.

        Raises:
            ValueError: it names none.
        """
        part, _, name = key.partition(".")
        if part not in PARTS:
            raise ValueError(
                f"{unknown('part of an entry', part, PARTS)}; write such as params.temperature, weights.ce"
            )
        return cls(part, name)


@dataclass(frozen=True)
class Dimension:
    """The values that a search may try of one setting: those of a list, or the numbers of a range."""

    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_integer: bool = False

    def rounded(self, number: float) -> float | int:
        """Return a number of the range with few digits, which a person can write into a file."""
        if self.is_integer:
            return round(number)
        # Three, and as many more as the range's ends have in common: 0.9912 between 0.99 and 0.999.
        shared = int(log10(max(abs(self.low), abs(self.high)) / (self.high - self.low)))
        return min(max(float(f"{number:.{3 + max(0, shared)}g}"), self.low), self.high)

    def holds(self, value: Any) -> bool:
        """Return whether a value is one that the search may try."""
        if self.values:
            return value in self.values
        return isinstance(value, int | float) and self.low <= value <= self.high


def search_space(name: str, entry: Method) -> dict[str, Dimension]:
    """Return what an entry's search may try, by key. The search has no mistakes."""
    source = describe_method(entry.use or name)
    return {key: _dimension(key, values, source, entry.use or name) for key, values in entry.search.items()}


def changed_entry(name: str, entry: Method, settings: Settings) -> Method:
    """Return an entry of ``methods`` that has these settings, no search, and states which method it is."""
    parts = {part: dict(getattr(entry, part)) for part in PARTS}
    for key, value in settings.items():
        setting = Setting.of(key)
        parts[setting.part][setting.name] = value
    return entry.model_copy(update={"use": entry.use or name, **parts, "search": {}})


def search_mistakes(
    search: Mapping[str, list[Any] | Range], source: MethodInfo, use: str, document: Document, at: KeyPath
) -> list[UserError]:
    """Return the mistakes in a search that stands at ``at``: names and values that the method does not take."""
    mistakes: list[UserError] = []
    if search and at[0] == "pairs":
        mistakes.append(document.mistake(at, "is for an entry of the sweep's `methods`: a search is for all pairs"))
        return mistakes
    for key, values in search.items():
        with collected(mistakes), document.place((*at, key)):
            _dimension(key, values, source, use)
    return mistakes


def overridden_settings(sweep: Sweep, document: Document) -> list[UserError]:
    """Return the mistakes of pairs that state a setting which a search would change."""
    return [
        document.mistake(at, f"methods.{method} searches {part}.{name}, to no effect here: remove one of them")
        for method, entry in sweep.methods.items()
        for part, name in map(Setting.of, entry.search)
        for i, pair in enumerate(sweep.pairs)
        for at in _places(pair, i, method, part, name)
    ]


def _places(pair: Pair, i: int, method: str, part: str, name: str) -> list[KeyPath]:
    """Return where a pair states a setting of a method, or starts again from a recipe that does."""
    stated: dict[KeyPath, dict[str, Any]]
    stated = {("pairs", i, "methods", method, part): getattr(pair.methods.get(method, Method()), part)}
    keys = [name]
    if part == "recipe":
        stated["pairs", i, "recipe"] = pair.recipe
        keys.append("base")
    return [(*at, key) for at, values in stated.items() for key in keys if key in values]


def _dimension(key: str, values: list[Any] | Range, source: MethodInfo, use: str) -> Dimension:
    """Return what may be tried of one setting.

    Raises:
        ValueError: there is no such setting, or it does not take these values.
    """
    part, name = Setting.of(key)
    if part == "params" and name not in source.hyper:
        raise ValueError(unknown(f"hyper-parameter of {use}", name, source.hyper))
    if part == "weights" and name not in source.weights:
        raise ValueError(unknown(f"loss term of {use}", name, source.weights))
    if part == "recipe":
        _check_recipe_key(name)
    hyper = {"params": source.hyper, "weights": dict.fromkeys(source.weights, _WEIGHT)}.get(part, {}).get(name)
    if isinstance(values, Range):
        return _of_range(values, hyper.kind if hyper else _kind_of_recipe_key(name), name, hyper)
    if not values:
        raise ValueError("expected at least one value, found an empty list")
    checked = tuple(hyper.check(value) if hyper else _checked_by_recipe(name, value) for value in values)
    if twice := [value for i, value in enumerate(checked) if value in checked[:i]]:
        raise ValueError(f"{shorten(twice[0])} is listed twice")
    return Dimension(checked)


def _of_range(ends: Range, kind: str, name: str, hyper: Hyper | None) -> Dimension:
    if kind not in ("int", "float"):
        raise ValueError("takes no number: expected a list of values, found a range")
    for end in (ends.low, ends.high):
        if kind == "int" and end != int(end):
            raise ValueError(expected("integers as lowest and highest", end))
        if hyper is None:
            _checked_by_recipe(name, int(end) if kind == "int" else end)
    return Dimension((), ends.low, ends.high, ends.log is not None, kind == "int")


def _check_recipe_key(name: str) -> None:
    """Check that a search may change a key of a recipe."""
    searchable = [key for key, field in Recipe.model_fields.items() if PER_METHOD in field.metadata]
    if name not in Recipe.model_fields:
        raise ValueError(unknown("key of recipe", name, searchable))
    if name in _LENGTH:
        raise ValueError("decides how many images a trial trains on, and all trials train on as many")
    if name not in searchable:
        raise ValueError(
            f"with another {name} than the others a method is not comparable with them; searched can be: "
            f"{', '.join(searchable)}"
        )


def _kind_of_recipe_key(name: str) -> str:
    """Return ``int`` or ``float``, or ``other`` for a key of a recipe that takes no number."""
    kinds = types_of(Recipe.model_fields[name].annotation) - {type(None)}
    return {int: "int", float: "float"}.get(kinds.pop(), "other") if len(kinds) == 1 else "other"


def _checked_by_recipe(name: str, value: Any) -> Any:
    """Return a value of a recipe's key.

    Raises:
        ValueError: the key does not take it, whatever the others are.
    """
    try:
        Recipe.model_validate({**_LEAST_RECIPE, name: value})
    except ValidationError as e:
        errors = [error for error in e.errors(include_url=False) if error["loc"][:1] == (name,)]
        if errors:
            raise ValueError(validation.message(Recipe, (name,), errors)) from None
    return value

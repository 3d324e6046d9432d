"""References to models: a name, and the arguments of its constructor where a sweep states some, as one text."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from harness.errors import expected, shorten

_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEXT = re.compile(r"(?P<name>[^()]+)\((?P<params>.*)\)", re.DOTALL)
_ARGUMENTS = r'\((?:[^)"]|"(?:[^"\\]|\\.)*")*\)'
_FORM = "a model such as NAME(key=value, other=2), its values as in JSON"
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class ModelReference:
    """A model's name and its constructor's arguments. Its text stands for both wherever a model is named."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Return ``NAME`` or ``NAME(key=value, ...)``, keys in order and values as JSON."""
        params = ", ".join(f"{key}={json.dumps(self.params[key], sort_keys=True)}" for key in sorted(self.params))
        return f"{self.name}({params})" if params else self.name

    @classmethod
    def parse(cls, text: str) -> "ModelReference":
        """Read what ``text`` returns.

        Raises:
            ValueError: it is not of this form.
        """
        if "(" not in text:
            return cls(text)
        if not (match := _TEXT.fullmatch(text.strip())):
            quotes = "; inside {...} it needs quotes, as its commas end a value there" if ")" not in text else ""
            raise ValueError(expected(_FORM, text) + quotes)
        params: dict[str, Any] = {}
        rest = match["params"].strip()
        while rest:
            key, separator, rest = rest.partition("=")
            key = key.strip()
            try:
                if not separator or not _PARAMETER.fullmatch(key) or key in params:
                    raise ValueError
                params[key], end = _DECODER.raw_decode(rest.lstrip())
                _check_value(key, params[key])
            except (ValueError, RecursionError):
                raise ValueError(expected(_FORM, text)) from None
            rest = rest.lstrip()[end:].strip()
            if rest and not rest.startswith(","):
                raise ValueError(expected(_FORM, text))
            rest = rest[1:].strip()
        return cls(match["name"].strip(), params)

    @classmethod
    def of(cls, value: Any) -> "ModelReference":
        """Return the reference that a sweep file states: a text, or ``{name: NAME, params: {key: value}}``.

        Raises:
            ValueError: it is neither.
        """
        if isinstance(value, str):
            return cls.parse(value)
        if not isinstance(value, dict) or "name" not in value or not isinstance(value["name"], str):
            raise ValueError(expected("a model's name, or {name: NAME, params: {key: value}}", value))
        if extra := [key for key in value if key not in ("name", "params")]:
            raise ValueError(f"unknown key {shorten(extra[0])} of a model; it has name and params")
        params = value.get("params") or {}
        if not isinstance(params, dict) or not all(isinstance(k, str) and _PARAMETER.fullmatch(k) for k in params):
            raise ValueError(expected("params: a mapping of arguments to values", params))
        for key, param in params.items():
            _check_value(key, param)
        stated = cls.parse(value["name"])
        if twice := [key for key in params if key in stated.params]:
            raise ValueError(f"argument {twice[0]} is stated twice, in the name and in params")
        return cls(stated.name, {**stated.params, **params})


def split_names(text: str) -> list[str]:
    """Return the names between commas; those between the arguments of a model part nothing."""
    names = [""]
    for token in re.findall(rf"{_ARGUMENTS}|.", text, re.DOTALL):
        if token == ",":
            names.append("")
        else:
            names[-1] += token
    return names


def _check_value(key: str, value: Any) -> None:
    """Check that JSON keeps a value as it is.

    Raises:
        ValueError: it does not: a date, a number that is not finite, a mapping whose keys are no texts.
    """
    try:
        is_kept = json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError, RecursionError):
        is_kept = False
    if not is_kept:
        kinds = "a number, a text, true, false, or a list or mapping of them"
        raise ValueError(f"params {key}: {expected(kinds, value)}")

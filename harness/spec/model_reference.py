"""References to models: a name, and the arguments of its constructor where a sweep states some, as one text."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from harness.errors import expected, shorten

_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEXT = re.compile(r"(?P<name>[^()]+)\((?P<params>.+)\)", re.DOTALL)


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
        if not (match := _TEXT.fullmatch(text.strip())):
            return cls(text)
        params: dict[str, Any] = {}
        rest = match["params"]
        while rest:
            key, separator, rest = rest.partition("=")
            key = key.strip()
            try:
                if not separator or not _PARAMETER.fullmatch(key) or key in params:
                    raise ValueError
                params[key], end = json.JSONDecoder().raw_decode(rest.lstrip())
            except (ValueError, RecursionError):
                raise ValueError(f"{expected('a model such as NAME(key=value, other=2)', text)}") from None
            rest = rest.lstrip()[end:].strip()
            if rest and not rest.startswith(","):
                raise ValueError(f"{expected('a model such as NAME(key=value, other=2)', text)}")
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
        return cls(value["name"], params)

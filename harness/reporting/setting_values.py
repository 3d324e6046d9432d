"""The values of settings as text for people."""

import json
from collections.abc import Mapping
from typing import Any


def values_text(settings: Mapping[str, Any]) -> str:
    """Return settings by name on one line, numbers with four digits: ``temperature 4, weight of kd 0.9``."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in settings.items())


def value_text(value: Any) -> str:
    """Return one value; of a text, the text itself."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)

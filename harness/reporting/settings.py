"""The settings of a comparison's lines: hyper-parameters and loss weights, as their runs had them."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.reporting.comparison import Comparison
from harness.reporting.setting_values import values_text
from harness.spec.lines import Line, grouped
from harness.spec.science import MethodSettings, Science


def line_settings(comparison: Comparison) -> dict[Line, MethodSettings]:
    """Return the method and settings of each line with a record."""
    return {line: Science.from_text(text).method for line, text in comparison.sciences.items()}


def all_settings(method: MethodSettings) -> str:
    """Return all of a method's settings on one line, its own name first where the entry may have another."""
    return values_text({"method": method.use, **_by_name(method)})


def differing_settings(comparison: Comparison) -> dict[Line, str]:
    """Return the settings in which lines of one pair and one method differ from each other."""
    texts: dict[Line, str] = {}
    uses = {line: use for line, text in comparison.sciences.items() if (use := _use(text))}
    for lines in grouped(uses, lambda line: (line.pair, uses[line])).values():
        if len(lines) > 1:  # few: the others need no parsing
            methods = [Science.from_text(comparison.sciences[line]).method for line in lines]
            texts |= _differing(lines, [_by_name(method) for method in methods])
    return texts


def _use(text: str) -> str:
    """Return the method that a science's text names, without parsing the text; "" where it names none."""
    _, key, rest = text.rpartition('"use":"')
    return rest.partition('"')[0] if key else ""


def _differing(lines: Sequence[Line], settings: Sequence[Mapping[str, Any]]) -> dict[Line, str]:
    names = [name for name in settings[0] if any(s.get(name) != settings[0][name] for s in settings)]
    return {line: values_text({n: s[n] for n in names if n in s}) for line, s in zip(lines, settings, strict=True)}


def _by_name(method: MethodSettings) -> dict[str, Any]:
    """Return hyper-parameters and loss weights by name: ``weight of kd``."""
    return {**method.params, **{f"weight of {term}": weight for term, weight in method.weights.items()}}

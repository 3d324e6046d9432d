"""Plain YAML scalars as YAML 1.2 reads them, and why those are refused that other readers take for something else.

PyYAML follows YAML 1.1, where ``no`` is false, ``1:30`` is 90 and ``010`` is 8.
"""

import re
from typing import Any

import yaml

TEXT_TAG = "tag:yaml.org,2002:str"
_PREFIX = TEXT_TAG.removesuffix("str")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
# What a word processor or a PDF puts in the place of ASCII, and characters that nobody sees.
_LOOKALIKES = dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-") | {
    "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u2018": "'", "\u2019": "'", "\u201a": "'", "\uff0c": ",",
    "\uff1a": ":", "\u00a0": " ", "\u2007": " ", "\u202f": " ", "\u3000": " ",
}  # fmt: skip
_UNSEEN = dict.fromkeys("\u00ad\u200b\u2060\ufeff", "")
_TO_ASCII = str.maketrans(_LOOKALIKES | _UNSEEN)
_LONGEST = 40  # characters of a scalar that a message shows the value of


class Loader(yaml.SafeLoader):
    """SafeLoader that reads plain scalars by YAML 1.2, so that ``1e-3`` is a number, and takes no tag but text's."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        tag = getattr(event, "tag", None)
        node = super().compose_node(parent, index)
        if tag is not None and (tag != TEXT_TAG or not isinstance(node, yaml.ScalarNode)):
            shown = tag.replace(_PREFIX, "!!")[:60]
            problem = f"tag {shown} is not supported here; remove it"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        if tag is not None and isinstance(node, yaml.ScalarNode):
            node.style = "'"  # text by its tag is as good as text in quotes
        return node


Loader.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    Loader.add_implicit_resolver(_PREFIX + _kind, re.compile(rf"(?:{_pattern})\Z"), list(_first))


def kind(text: str, loader: type[yaml.SafeLoader] = Loader) -> str:
    """Return what a loader takes a plain scalar for: ``str``, ``int``, ``timestamp`` and so on."""
    resolvers = loader.yaml_implicit_resolvers.get(text[:1], ())
    return next((tag.rpartition(":")[2] for tag, pattern in resolvers if pattern.match(text)), "str")


def misread(text: str, is_key: bool = False) -> str | None:
    """Return why a plain scalar is refused, and how to write what it may mean; None: all readers agree on it.

    A key can mean nothing but text.
    """
    if lookalike := _lookalike(text):
        return lookalike
    other, instead = kind(text, yaml.SafeLoader), ""
    if _LEADING_ZERO.fullmatch(text):
        meaning = "starts with a zero, which YAML 1.1 reads as octal"
        instead = f"{text[:1].strip('0')}{text.lstrip('+-0') or 0} for the number"
    elif other == "str" or kind(text) != "str":
        return None
    elif other == "bool":
        instead = str(yaml.safe_load(text)).lower()
        meaning = f"is {instead} in YAML 1.1 and text in YAML 1.2"
    elif other in ("int", "float") and len(text) <= _LONGEST:
        number = yaml.safe_load(text)
        meaning = f"is the number {number} in YAML 1.1 and text in YAML 1.2"
        instead = f"{number} for the number" if ":" not in text else ""
    else:
        what = {"timestamp": "a date", "value": "a default", "merge": "a merge key"}.get(other, "a number")
        meaning = f"is {what} in YAML 1.1 and text in YAML 1.2"
    instead = f"write {instead}, or " if instead and len(text) <= _LONGEST and not is_key else ""
    return f"{_shown(text)} {meaning}; {instead}quote it for the text: '{_shown(text)}'"


def lookalikes(text: str) -> str:
    """Return the codes of a text's characters that only look like others or like nothing: ``U+2212, U+00A0``."""
    return ", ".join(dict.fromkeys(f"U+{ord(c):04X}" for c in text if c in _LOOKALIKES or c in _UNSEEN))


def _lookalike(text: str) -> str | None:
    """Return why a text is refused that only looks like a number, a quoted text or a name."""
    ascii_text = text.translate(_TO_ASCII)
    if ascii_text == text:
        return None
    unseen = text.strip() != text or any(c in text for c in _UNSEEN)
    no_letters = not any(c.isalpha() for c in ascii_text)
    if not (unseen or no_letters or ascii_text[:1] in "'\"" or kind(ascii_text) != "str"):
        return None
    return (
        f"{_shown(text)} has characters that only look like others or like nothing ({lookalikes(text)}); "
        f"type it again: {ascii_text.strip()[:_LONGEST]}"
    )


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."

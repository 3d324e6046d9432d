"""Errors of a text that is not YAML: their place, and what a person would say to PyYAML's problem."""

import yaml

from harness.errors import UserError
from harness.spec import yaml_scalars

HINTS = {
    "'\\t' that cannot start": "a tab; write spaces",
    "that cannot start": "quote the text",
    "mapping values are not allowed": "is a line indented too far, does a text with a colon need quotes, or is a space "
    "missing after the colon of the line before?",
    "could not find expected ':'": "keys are written `key: value`, with a space after the colon",
    "another document": "a file holds one; remove what follows `---`",
    "undefined alias": "what &NAME marks has to stand before *NAME; quote a text that begins with *",
    "expected alphabetic or numeric character": "quote a text that begins with * or &",
    "<document start>": "is the first line indented more than a later one?",
    "<block end>": "is a line indented more or less than those next to it?",
    "expected ',' or": "is a bracket, brace or quote not closed?",
    "unexpected end of stream": "is a quote not closed?",
}


def place(source: str, line: int, hidden: int) -> str:
    """Return the place of a line for a message; of a text with ``hidden`` outer keys, the source alone."""
    return source if hidden else f"{source}:{line}"


def syntax_error(error: yaml.MarkedYAMLError, text: str, source: str, hidden: int) -> UserError:
    """Return the error for a text that is not YAML, with what may be the cause."""
    # What is no key is noticed a line later.
    is_no_key = error.context == "while scanning a simple key"
    mark = error.context_mark if is_no_key else error.problem_mark
    line = mark.line + 1 if mark else 1
    problem = str(error.problem or error.context).removeprefix("but ")
    if problem.startswith("tag "):
        return UserError(f"{place(source, line, hidden)}: {problem}")
    hints = [hint for part, hint in HINTS.items() if part in problem][:1]
    for number, words in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if words.startswith("<<<<<<< "):
            hints = [f"line {number} begins a conflict that git could not merge"]
        elif line - 2 <= number <= line and (found := yaml_scalars.lookalikes(words.partition(" #")[0])):
            hints.append(f"line {number} has characters that only look like others or like nothing ({found})")
    return UserError(f"{place(source, line, hidden)}: not valid YAML: {'; '.join([problem, *hints])}")

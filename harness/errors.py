"""Errors that the user can mend, the wording of messages, and the exit codes of every command."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

EXIT_OK, EXIT_RUN_FAILED, EXIT_BAD_INPUT = 0, 1, 2
_LINE = re.compile(r"[^\n\t]+")
_COLOUR = re.compile(r"\x1b\[[\d;:]*[mK]")  # and the command that erases the rest of a line, which stands beside it
_JOINERS = "\u200c\u200d"

MOST_MISTAKES = 20  # that one command names


class UserError(Exception):
    """Wrong input. Its text is the whole message: the place, what stands there and what was expected."""

    def __init__(self, text: str, line: int = 0, is_missing: bool = False):
        super().__init__(text)
        self.line, self.is_missing = line, is_missing  # of the mistake in its file, to sort several

    @property
    def parts(self) -> tuple["UserError", ...]:
        """The mistakes that it names, one each."""
        return (self,)


class Unreadable(UserError):
    """A file that cannot be read. Nothing is known of its content, so that nobody is advised to replace it."""


class Mistakes(UserError):
    """Several mistakes of a file, each with its own line of text. A key that is missing may be one misspelt above."""

    def __init__(self, mistakes: Iterable[UserError]):
        by_text = {str(mistake): mistake for mistake in mistakes}
        self.mistakes = sorted(by_text.values(), key=lambda mistake: (mistake.is_missing, mistake.line))
        super().__init__("\n".join(self.lines()), self.mistakes[0].line)

    @property
    def parts(self) -> tuple[UserError, ...]:
        return tuple(self.mistakes)

    def lines(self) -> list[str]:
        """Return the messages, without those that are too many."""
        more = len(self.mistakes) - MOST_MISTAKES
        shown = [one_line(mistake) for mistake in self.mistakes[:MOST_MISTAKES]]
        return [*shown, f"and {more} more mistakes"[: None if more > 1 else -1]] if more > 0 else shown


def raise_mistakes(mistakes: Sequence[UserError]) -> None:
    """Raise what was collected.

    Raises:
        UserError: there is some.
    """
    if len(different := {str(m): m for m in mistakes}) == 1:
        raise next(iter(different.values()))
    if mistakes:
        raise Mistakes(mistakes)


@contextmanager
def collected(mistakes: list[UserError]) -> Iterator[None]:
    """Append the mistakes that the block raises, so that more can be looked for."""
    try:
        yield
    except UserError as e:
        mistakes += e.parts


def system_error(error: OSError) -> str:
    """Return an error of the system as ``PATH: Permission denied``."""
    return f"{one_line(error.filename or 'input or output', 1000)}: {error.strerror or error}"


def error_lines(error: Exception) -> list[str]:
    """Return an error's text as printable lines, one for each mistake."""
    return error.lines() if isinstance(error, Mistakes) else [one_line(error)]


def expected(what: str, value: object) -> str:
    """Return ``expected a number, found '0,05'; a decimal comma? write 0.05``."""
    found = "nothing" if value is None else str(value).lower() if isinstance(value, bool) else shorten(value)
    comma = isinstance(value, str) and "list" not in what and re.fullmatch(r"([-+]?[0-9]+),([0-9]+)", value)
    return f"expected {what}, found {found}" + (f"; {comma_hint(*comma.groups())}" if comma else "")


def requirement(text: str) -> str:
    """Return what pydantic requires of a value as ``must be at least 1``."""
    text = text.replace("Input should be", "must be")
    return text.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")


def comma_hint(before: str, after: str) -> str:
    """Return how to write the number that a comma is in."""
    if len(after) == 3:
        return f"a comma in a number? write {before}{after} or {before}.{after}"
    return f"a decimal comma? write {before}.{after}"


def unknown(kind: str, name: object, valid: Iterable[str]) -> str:
    """Return ``unknown method 'kdd'; did you mean 'kd'? Valid: crd, kd``."""
    valid = sorted(valid)
    cutoff = 0.5 if len(str(name)) < 4 else 0.66  # of two letters, one wrong leaves a half
    by_letters = {_letters(text): text for text in valid}  # CIFAR-100 is near to cifar100
    letters = _letters(str(name))
    near = difflib.get_close_matches(letters, by_letters, n=1, cutoff=cutoff)
    near += [text for text in by_letters if len(letters) > 2 and text.startswith(letters)]  # top1 of "top-1 last"
    if not valid:
        return f"unknown {kind} {shorten(name)}: there are none here"
    hint = f"; did you mean {by_letters[near[0]]!r}?" if near else "."
    shown = ", ".join(valid[:30]) + (f", ... ({len(valid)} in all)" if len(valid) > 30 else "")
    return f"unknown {kind} {shorten(name)}{hint} Valid: {shown}"


def _letters(name: str) -> str:
    """Return a name as it is compared with others: without the differences that nobody remembers."""
    return name[:200].casefold().replace("-", "").replace("_", "") or name


def shorten(value: object, limit: int = 80) -> str:
    """Return a value's repr, cut to ``limit`` characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def one_line(text: object, limit: int = 2000) -> str:
    """Return a message as one printable line: names in it may hold newlines or a terminal's control characters."""
    shown = printable(str(text))
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def printable(text: str) -> str:
    """Return a text with the escapes of what is not visible: ``\\n``, ``\\x1b``, ``\\u202e``.

    Of such characters, some command a terminal, others turn the text around them. Spaces of every width stay, and so
    do the joiners of Persian, Indic scripts and emoji.
    """
    if text.isprintable():
        return text
    return "".join(c if is_visible(text, i) else c.encode("unicode_escape").decode() for i, c in enumerate(text))


def is_visible(text: str, i: int) -> bool:
    """Return whether a text's character at ``i`` commands nothing: all that ``printable`` keeps."""
    if text[i] in _JOINERS:
        return not (text[max(i - 1, 0)].isascii() or text[i + 1 : i + 2].isascii())
    return text[i].isprintable() or unicodedata.category(text[i]) == "Zs"


def printable_lines(text: str) -> str:
    """Return a text of several lines as ``printable`` does, without colours; line ends and tabs stay.

    A carriage return, with which a progress bar writes over itself, ends a line.
    """
    if "\x1b" in text or "\r" in text:
        text = _COLOUR.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _LINE.sub(lambda match: printable(match[0]), text)

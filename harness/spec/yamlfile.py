"""YAML files with the line number of every key, so that an error can name it."""

import codecs
import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UserError, comma_hint, raise_mistakes, shorten
from harness.spec import yaml_scalars, yaml_syntax

MAX_NODES = 200_000  # a file that expands to more through aliases is an attack or an accident
MAX_BYTES = 500_000  # of a file: it takes seconds to read, and names thousands of pairs
MAX_BITS = 64  # of an integer; no key takes more, and Python refuses to print far larger ones
KeyPath = tuple[str | int, ...]
Entries = dict[str, tuple[yaml.Node, yaml.Node]]  # key -> the nodes of key and value
KINDS = {list: "a list", str: "text", bool: "true or false", type(None): "nothing"}


@dataclass(frozen=True)
class Document:
    """A parsed file: plain data, and the line of every key path."""

    source: str
    data: dict[str, Any]
    lines: dict[KeyPath, int]
    sets: tuple[str, ...] = ()  # ``key.path=value``, applied to the data in this order

    def where(self, path: KeyPath) -> str:
        """Return the place for a message, ``file.yaml:12: methods.kd.params``, with the line of the nearest key."""
        key = ".".join(str(p) for p in path)
        for stated in (text.partition("=")[0].strip() for text in self.sets):
            if f"{key}.".startswith(f"{stated}.") or (path not in self.lines and stated.startswith(f"{key}.")):
                return f"--set {key}"
        line = self._line(path)
        place = f"{self.source}:{line}" if line else self.source
        return f"{place}: {key}" if key else place

    def _line(self, path: KeyPath) -> int:
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def mistake(self, path: KeyPath, text: object, is_missing: bool = False) -> UserError:
        """Return the error for a mistake at this place. ``is_missing``: it is a key that is not there."""
        return UserError(f"{self.where(path)}: {text}", self._line(path), is_missing)

    @contextmanager
    def place(self, path: KeyPath) -> Iterator[None]:
        """Say of an error that the block raises that the mistake is at this place.

        Raises:
            UserError: the block raises a ValueError or UserError.
        """
        try:
            yield
        except (ValueError, UserError) as e:
            raise self.mistake(path, e) from None


def read_yaml(path: Path) -> Document:
    """Read the mapping in a YAML file.

    Top-level keys that start with a dot are left out: they hold what others merge.

    Raises:
        UserError: the file is missing, larger than 500 kB, not UTF-8, not YAML, or not a mapping with text keys; or a
            value is one in YAML 1.1 and another in YAML 1.2.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES / 1000:g} kB, the most that is read of a YAML file")
        text = content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{_nearest_file(path)}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, expected a YAML file") from None
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror}") from None
    except UnicodeDecodeError as e:
        utf16 = e.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        hint = "; it is UTF-16: save it as UTF-8" if utf16 else ""
        line = e.object[: e.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8 text (byte {e.start}){hint or '; save it as UTF-8'}") from None
    document = parse_yaml(text, str(path))
    return replace(document, data={key: value for key, value in document.data.items() if not key.startswith(".")})


def _nearest_file(path: Path) -> str:
    """Return a hint at the YAML file with the nearest name in the same folder, or nothing."""
    files = {file.stem: file for file in path.parent.glob("*.yaml")}
    close = difflib.get_close_matches(path.stem, files, n=1)
    return f"; did you mean {files[close[0]]}?" if close else ""


def parse_yaml(text: str, source: str, hidden: int = 0) -> Document:
    """Parse the mapping in a YAML text; ``source`` names it in messages, which leave out ``hidden`` outer keys.

    Raises:
        UserError: as for a file.
    """
    lines: dict[KeyPath, int] = {}
    try:
        loader = yaml_scalars.Loader(text)
        try:
            node = loader.get_single_node()
            reader = _Reader(source, loader, lines, hidden)
            data = reader.value(node, ()) if node is not None else {}
            raise_mistakes(reader.mistakes)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        raise yaml_syntax.syntax_error(e, text, source, hidden) from None
    except yaml.reader.ReaderError as e:
        place = yaml_syntax.place(source, text[: e.position].count("\n") + 1, hidden)
        raise UserError(f"{place}: not valid YAML: the character U+{e.character:04X} is not allowed") from None
    except yaml.YAMLError as e:
        raise UserError(f"{source}: not valid YAML: {str(e).splitlines()[0]}") from None
    except RecursionError:
        raise UserError(f"{source}: nested too deeply, or what &NAME marks holds *NAME") from None
    except (ValueError, OverflowError) as e:  # PyYAML's scanner on "\\UFFFFFFFF", or a version of 5,000 digits
        raise UserError(f"{source}: not valid YAML: {e}") from None
    if not isinstance(data, dict):
        kind = KINDS.get(type(data), "a number")
        hint = "; write `key: value`, not `key = value`" if str(data).partition("=")[0].strip().isidentifier() else ""
        raise UserError(f"{source}: expected a mapping of keys to values, found {kind}{hint}")
    return Document(source, data, lines)


class _Reader:
    def __init__(self, source: str, loader: yaml.SafeLoader, lines: dict[KeyPath, int], hidden: int):
        self.source, self.loader, self.lines, self.hidden = source, loader, lines, hidden
        self.left = MAX_NODES
        self.mistakes: list[UserError] = []

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._count()
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            for i, child in enumerate(node.value):
                self.lines[(*path, i)] = child.start_mark.line + 1
            return [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.style is None and (why := yaml_scalars.misread(node.value)):
            self.mistakes.append(self._mistake(node, path, why))
            return node.value
        try:
            scalar = self.loader.construct_object(node)
        except ValueError:  # more digits than Python reads
            text = f"{shorten(node.value)} is not a valid {yaml_scalars.kind(node.value)}"
            raise self._mistake(node, path, text) from None
        if isinstance(scalar, int) and scalar.bit_length() > MAX_BITS:
            raise self._mistake(node, path, f"{shorten(node.value)} is too large a number")
        return scalar

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, (key_node, value_node) in self._entries(node, path).items():
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            out[key] = self.value(value_node, (*path, key))
        return out

    def _entries(self, node: yaml.MappingNode, path: KeyPath) -> Entries:
        """Return a mapping's keys, those that it merges (``<<``) first: its own win, then the first merged ones."""
        merged: Entries = {}
        own: Entries = {}
        before: tuple[str, yaml.Node] | None = None
        for key_node, value_node in node.value:
            self._count()
            if key_node.value == "<<" and key_node.style is None:
                if merged:
                    text = "'<<' is given twice; merge several mappings by a list: <<: [*a, *b]"
                    raise self._mistake(key_node, path, text)
                merged = self._merged(value_node, path, key_node)
                continue
            key = self._key(key_node, path, value_node, before)
            if key in own:
                self.mistakes.append(self._mistake(key_node, path, f"{key!r} is given twice"))
            own[key] = (key_node, value_node)
            before = key, value_node
        return {**merged, **own}

    def _merged(self, node: yaml.Node, path: KeyPath, merge: yaml.Node) -> Entries:
        merged: Entries = {}
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                text = "'<<' merges the keys of mappings: expected <<: *NAME or <<: [*NAME, *OTHER]"
                raise self._mistake(merge, path, text)
            for key, entry in self._entries(source, path).items():
                merged.setdefault(key, entry)
        return merged

    def _key(self, node: yaml.Node, path: KeyPath, value: yaml.Node, before: tuple[str, yaml.Node] | None) -> str:
        """Return a key. ``before``: the key and value that stand before it."""
        if not isinstance(node, yaml.ScalarNode):
            found = shorten(self.value(node, path))
            raise self._mistake(node, path, f"keys must be text, found {found}; quote text with braces or brackets")
        if node.style is not None:
            return str(node.value)
        text = yaml_scalars.misread(node.value, is_key=True)
        if _is_number(node) and before is not None and _is_number(before[1]) and value.value == "":
            text = f"keys must be text, found {node.value} after {before[0]}; {comma_hint(before[1].value, node.value)}"
        elif not text and yaml_scalars.kind(node.value) != "str":
            text = f"keys must be text, found {shorten(node.value)[1:-1]}; quote it: {shorten(node.value)}"
        if text:
            self.mistakes.append(self._mistake(node, path, text))
        return str(node.value)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise UserError(f"{self.source}: expands to more than {MAX_NODES:,} values")

    def _mistake(self, node: yaml.Node, path: KeyPath, text: str) -> UserError:
        """Return the error for a mistake in a value, or in a key of the mapping at ``path``."""
        line = node.start_mark.line + 1
        key = "".join(f"{part}." for part in path[self.hidden :]).removesuffix(".")
        return UserError(f"{yaml_syntax.place(self.source, line, self.hidden)}: {key}{': ' if key else ''}{text}", line)


def _is_number(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value.isdecimal()

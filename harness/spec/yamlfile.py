"""YAML files with the line number of every key, so that an error can name it."""

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UserError, shorten

MAX_NODES = 200_000  # a file that expands to more through aliases is an attack or an accident
MAX_BITS = 64  # of an integer; no key takes more, and Python refuses to print far larger ones
KeyPath = tuple[str | int, ...]
_PLAIN = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads ``1e-3`` as the number it is (YAML 1.2; PyYAML's 1.1 rules make it a string)."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_FLOAT = re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


@dataclass(frozen=True)
class Document:
    """A parsed file: plain data, and the line of every key path."""

    source: str
    data: dict[str, Any]
    lines: dict[KeyPath, int]
    sets: tuple[str, ...] = ()  # ``key.path=value``, applied to the data in this order

    def where(self, path: KeyPath) -> str:
        """Return the place for a message, ``file.yaml:12: methods.kd.params``, with the line of the nearest key."""
        nearest = path
        while nearest and nearest not in self.lines:
            nearest = nearest[:-1]
        line = f":{self.lines[nearest]}" if nearest in self.lines else ""
        key = ".".join(str(p) for p in path)
        return f"{self.source}{line}: {key}" if key else f"{self.source}{line}"

    def mistake(self, path: KeyPath, text: object) -> UserError:
        """Return the error for a mistake at this place."""
        return UserError(f"{self.where(path)}: {text}")

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

    Raises:
        UserError: the file is missing, not UTF-8, not YAML, or not a mapping with text keys.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{_nearest_file(path)}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, expected a YAML file") from None
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not UTF-8 text (byte {e.start})") from None
    return parse_yaml(text, str(path))


def _nearest_file(path: Path) -> str:
    """Return a hint at the YAML file with the nearest name in the same folder, or nothing."""
    files = {file.stem: file for file in path.parent.glob("*.yaml")}
    close = difflib.get_close_matches(path.stem, files, n=1)
    return f"; did you mean {files[close[0]]}?" if close else ""


def parse_yaml(text: str, source: str) -> Document:
    """Parse the mapping in a YAML text; ``source`` names it in messages.

    Raises:
        UserError: as for a file.
    """
    lines: dict[KeyPath, int] = {}
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            data = _Reader(source, loader, lines).value(node, ()) if node is not None else {}
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        raise UserError(f"{source}{line}: not valid YAML: {e.problem or e.context}") from None
    except yaml.YAMLError as e:
        raise UserError(f"{source}: not valid YAML: {str(e).splitlines()[0]}") from None
    except RecursionError:
        raise UserError(f"{source}: nested too deeply") from None
    except (ValueError, OverflowError) as e:  # PyYAML's scanner on "\\UFFFFFFFF", or a version of 5,000 digits
        raise UserError(f"{source}: not valid YAML: {e}") from None
    if not isinstance(data, dict):
        raise UserError(f"{source}: expected a mapping of keys to values, found {type(data).__name__}")
    return Document(source, data, lines)


class _Reader:
    def __init__(self, source: str, loader: yaml.SafeLoader, lines: dict[KeyPath, int]):
        self.source, self.loader, self.lines = source, loader, lines
        self.left = MAX_NODES

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.left -= 1
        if self.left < 0:
            raise UserError(f"{self.source}: expands to more than {MAX_NODES:,} values")
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN:
            raise UserError(f"{self._at(node)}: tag {shorten(node.tag)} is not supported here; remove it")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            for i, child in enumerate(node.value):
                self.lines[(*path, i)] = child.start_mark.line + 1
            return [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        try:
            scalar = self.loader.construct_object(node)
        except (ValueError, OverflowError, LookupError, AttributeError):  # 2001-99-99, !!int "", !!bool x, ...
            kind = node.tag.rpartition(":")[2]
            raise UserError(f"{self._at(node)}: {shorten(node.value)} is not a valid {kind}") from None
        if isinstance(scalar, int) and scalar.bit_length() > MAX_BITS:
            raise UserError(f"{self._at(node)}: {shorten(node.value)} is too large a number")
        return scalar

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, path)
            if not isinstance(key, str):
                raise UserError(f"{self._at(key_node)}: keys must be text, found {shorten(key)}")
            if key in out:
                raise UserError(f"{self._at(key_node)}: {key!r} is given twice")
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            out[key] = self.value(value_node, (*path, key))
        return out

    def _at(self, node: yaml.Node) -> str:
        return f"{self.source}:{node.start_mark.line + 1}"

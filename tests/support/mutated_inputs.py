"""Mutated files of every kind that a command reads. The same seed gives the same mutants."""

import copy
import json
import random
import re
import shutil
import struct
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_RUN_FAILED
from harness.store import json_files
from tests.support.cli import CommandResult

PATIENCE = 30.0  # seconds of one command; a busy machine is slow
ODD_TEXT = (
    "", " ", "x", "nan", "-1", "1e999", "true", "../../etc/passwd", "/dev/null", "a\nb", "\x00", "\x1b[31m", "x" * 5000,
    "é" * 300, "\u202e", "\ud800", "{}", "[1]", "os:system", "digits", "kd", "=1+1", "2026-13-99",
)  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3.5, 2**31, 2**63, -(2**64), 10**30, 10**400, 1e308, -0.0, float("nan"), float("inf"),
    [], {}, [[]], [{}], [None], ["x"], [1, 2], {"a": {"b": [1]}}, {"x": None}, [0] * 3000,
)  # fmt: skip
DEEP = (b"[" * 30_000, b'{"a":' * 30_000 + b"1" + b"}" * 30_000, b"[" * 30_000 + b"]" * 30_000)
NOT_TEXT = (b"", b"\x00" * 64, b"\xff\xfe\x00", b"null", b"{", b"1" * 6000, b"\xef\xbb\xbf{}", b"<html></html>\n")


def odd(rng: random.Random) -> Any:
    """Return a value that few keys take."""
    return copy.deepcopy(rng.choice(ODD if rng.random() < 0.6 else ODD_TEXT))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the key paths of a value and of all in it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


def mutated_value(value: Any, rng: random.Random) -> Any:
    """Return plain data with one to three changes: other values, and keys removed, renamed, added or repeated."""
    root = {"": copy.deepcopy(value)}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        paths = [("", *path) for path in places(root[""])]
        path = rng.choice(paths[1:] or paths)
        node: Any = root
        for key in path[:-1]:
            node = node[key]
        key, kind = path[-1], rng.choice(("replace", "replace", "text", "remove", "rename", "add", "repeat"))
        if kind == "remove" and len(path) > 1:
            del node[key]
        elif kind == "rename" and len(path) > 1 and isinstance(node, dict):
            node[rng.choice((f"{key}x", key[1:], key.upper(), "\n", ""))] = node.pop(key)
        elif kind == "add" and isinstance(node[key], dict):
            node[key][rng.choice(("x", "version", "", "a\nb"))] = odd(rng)
        elif kind == "repeat" and isinstance(node[key], list):
            node[key] = copy.deepcopy(node[key]) * rng.choice((2, 20))
        elif kind == "text" and isinstance(node[key], int | float):
            node[key] = str(node[key])
        else:
            node[key] = odd(rng)
    return root[""]


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return bytes that are cut, with bits flipped, parts spliced in, doubled or overwritten; or others."""
    at, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    kind = rng.randrange(8)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[end:]
    if kind == 2:
        return data[:end] + data[at:]
    if kind == 3:
        return data[:at] + rng.randbytes(4) + data[at + 4 :]
    if kind == 4:
        return (
            data[:at] + rng.choice((b"\x00" * 9, b"\xff", b"\n", b'"', b"}", b"[" * 2000, b"\xed\xa0\x80")) + data[at:]
        )
    if kind == 5:
        flipped = bytearray(data)
        for _ in range(rng.choice((1, 1, 8))):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if kind == 6:
        return data + rng.choice((b"x", b"\n{}", data, b"\x00" * 4096))
    return rng.choice((*NOT_TEXT, *DEEP))


def mutated_json(value: Any, rng: random.Random) -> bytes:
    """Return a JSON file's content: three times in four the changes are in its values, else in its bytes."""
    if rng.random() < 0.75:
        return json.dumps(mutated_value(value, rng)).encode()
    return mutated_bytes(json.dumps(value, indent=1).encode(), rng)


def mutated_lines(values: Sequence[Any], rng: random.Random) -> bytes:
    """Return the content of a file of JSON lines."""
    lines = [json.dumps(value).encode() for value in values]
    lines[rng.randrange(len(lines))] = mutated_json(rng.choice(values), rng).replace(b"\n", b"")
    data = b"\n".join(lines) + b"\n"
    return data if rng.random() < 0.7 else mutated_bytes(data, rng)


# In place of a file ----------------------------------------------------------------------------------------------


def put_folder(path: Path) -> None:
    (path / "inner").mkdir(parents=True)


def put_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def put_loop(path: Path) -> None:
    path.symlink_to(path.name)


def put_private(path: Path) -> None:
    """Put a file that nobody may read; root may, and finds it empty."""
    path.touch(0)


IN_PLACE: tuple[Callable[[Path], None], ...] = (put_folder, put_dangling_link, put_loop, put_private)


# Parquet ---------------------------------------------------------------------------------------------------------

TYPES = (pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.binary(), pa.list_(pa.int64()), pa.date32())
JSON_COLUMNS = ("science", "versions")


def write_mutated_table(table: pa.Table, path: Path, rng: random.Random) -> None:
    """Write a table with columns of other types or names, none or more, other values, nulls, rows or bytes."""
    for _ in range(rng.choice((1, 1, 2))):
        table = _mutated_table(table, rng)
    pq.write_table(table, path)
    if rng.random() < 0.3:
        path.write_bytes(mutated_bytes(path.read_bytes(), rng))


def _mutated_table(table: pa.Table, rng: random.Random) -> pa.Table:
    i = rng.randrange(table.num_columns)
    name, column = table.schema.names[i], table.column(i)
    kind = rng.choice(("null", "type", "value", "value", "json", "json", "remove", "rename", "add", "rows"))
    if kind == "json" and (known := [k for k in JSON_COLUMNS if k in table.schema.names]):
        i = table.schema.get_field_index(rng.choice(known))
        text = table.column(i)[0].as_py() if len(table) and table.schema.field(i).type == pa.string() else None
        value = json.loads(text) if text and text.startswith("{") else {}
        changed = mutated_json(value, rng).decode(errors="replace")
        return table.set_column(i, table.schema.names[i], pa.array([changed] * len(table), pa.string()))
    if kind == "null":
        return table.set_column(i, table.schema.field(i), pa.nulls(len(table), column.type))
    if kind == "type":
        kind_of = rng.choice(TYPES)
        with suppress(pa.ArrowException, NotImplementedError):
            return table.set_column(i, name, column.cast(kind_of))
        return table.set_column(i, name, pa.nulls(len(table), kind_of))
    if kind == "value":
        with suppress(pa.ArrowException, OverflowError, TypeError, ValueError):
            return table.set_column(i, table.schema.field(i), pa.array([odd(rng)] * len(table), column.type))
        return table
    if kind == "remove":
        return table.remove_column(i)
    if kind == "rename":
        return table.rename_columns([f"{n}x" if n == name else n for n in table.schema.names])
    if kind == "add":
        return table.append_column(rng.choice(("x", "", name)), pa.array([1] * len(table)))
    return pa.concat_tables([table, table]) if rng.random() < 0.5 else table.slice(0, 0)


# Checkpoints -----------------------------------------------------------------------------------------------------


def mutated_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file whose header has other values or another length, or whose bytes are changed."""
    if rng.random() < 0.4:
        return mutated_bytes(data, rng)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.dumps(mutated_value(json.loads(data[8 : 8 + length]), rng)).encode()
    stated = len(header) if rng.random() < 0.8 else rng.choice((0, 1, length + 1, 2**40, 2**64 - 1))
    return struct.pack("<Q", stated) + header + data[8 + length :]


def mutated_state(state: Mapping[str, Any], rng: random.Random) -> Any:
    """Return the content of a torch checkpoint: tensors of other names, shapes, types or values, or nested."""
    import torch

    changed: dict[Any, Any] = dict(state)
    key = rng.choice(list(changed))
    tensor = changed.pop(key)
    kind = rng.randrange(11)
    if kind == 0:
        return changed
    if kind == 1:
        return {**changed, rng.choice((f"{key}x", f"module.{key}", "", 7)): tensor}
    if kind == 2:
        return {
            **changed,
            key: rng.choice((tensor.flatten()[None], torch.zeros(()), torch.zeros(0), torch.ones(3))),
        }
    if kind == 3:
        return {**changed, key: torch.full_like(tensor.float(), rng.choice((float("nan"), float("inf"))))}
    if kind == 4:
        return {**changed, key: rng.choice((tensor.long(), tensor.to(torch.complex64), tensor.bool(), tensor.half()))}
    if kind == 5:
        return {**changed, key: odd(rng)}
    if kind == 6:
        return {rng.choice(("model", "state_dict", "net", "x")): {**changed, key: tensor}, "epoch": odd(rng)}
    if kind == 7:
        return rng.choice(([tensor], tensor, None, {}, {"model": {}}, {"state_dict": None}, {"model": [tensor]}))
    if kind == 8:
        return {**changed, key: tensor.to_sparse() if tensor.dim() else tensor}
    if kind == 9:
        return {f"module.{k}": v for k, v in state.items()}
    return {**changed, key: {"nested": tensor}}


# Commands --------------------------------------------------------------------------------------------------------


def is_json(path: Path) -> bool:
    """Return whether a file holds JSON, which a command may then find to be of use."""
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return True


def files_in(folder: Path) -> set[str]:
    """Return the names of all files below a folder, without locks."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir() and p.name != "lock"}


def check_mutants(
    path: Path,
    write: Callable[[Path, random.Random], object],
    commands: Sequence[Callable[[], CommandResult]],
    count: int,
    *,
    folder: Path,
    names: Sequence[str] = (),
    readable: Callable[[Path], bool] = is_json,
) -> None:
    """Put mutants in the place of ``path`` one after the other, run one of the commands on each, and put it back.

    A command may not end in a traceback or with an undocumented exit code, write where it fails, or fail without a
    message that names the file and, of a JSON mapping, a key.

    Args:
        write: writes a mutant.
        folder: may not change where a command fails.
        names: what a message may name in place of the file.
        readable: whether a command may ignore this file without a word.
    """
    content, wrong = path.read_bytes(), list[str]()
    others = [(f"{put.__name__} {i}", put) for i in range(len(commands)) for put in IN_PLACE]
    for i in range(count):
        rng = random.Random(f"{path.suffix} {count} {i}")
        path.unlink()
        what, put = others[i] if i < len(others) else (f"mutant {i}", lambda path, rng=rng: write(path, rng))
        put(path)
        before, began = files_in(folder), time.monotonic()
        shown = f"{what} {content_of(path)}"
        json_files.print_note.cache_clear()
        try:
            result = commands[i // len(IN_PLACE) % len(commands)]()
        except Exception as e:
            frames = traceback.extract_tb(e.__traceback__)
            of_ours = [f for f in frames if "/harness/" in f.filename or "/slurm/" in f.filename]
            at = ", ".join(f"{Path(f.filename).name}:{f.lineno}" for f in of_ours[-2:])
            wrong.append(f"{type(e).__name__}: {str(e)[:90]!r} at {at} | {shown}")
        else:
            wrong += [f"{problem} | {shown}" for problem in _wrong(result, (path.name, *names), readable(path))]
            keys = keys_in(path.read_bytes()) if path.is_file() else set()
            named = [key for key in keys | keys_in(content) if key in result.err]
            if result.code == EXIT_BAD_INPUT and keys and path.name in result.err and not named:
                wrong.append(f"error names no key: {result.err[-300:]!r} | {shown}")
            if result.code and files_in(folder) != before:
                wrong.append(f"written: {files_in(folder) ^ before} | {shown}")
        if time.monotonic() - began > PATIENCE:
            wrong.append(f"slow: {time.monotonic() - began:.0f} s | {shown}")
        _remove(path)
        path.write_bytes(content)
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(line[:400] for line in wrong[:60])


def keys_in(content: bytes) -> set[str]:
    """Return the keys of all mappings in a JSON text, which its messages name; none where the text is no mapping."""
    with suppress(ValueError, RecursionError):
        if isinstance(value := json.loads(content), dict):
            return {str(key) for path in places(value) for key in path if isinstance(key, str) and len(key) > 1}
    return set()


def content_of(path: Path) -> str:
    return repr(path.read_bytes()[:300]) if path.is_file() else ""


MORE_MISTAKES = re.compile(r"error: and \d+ more mistakes?")


def _wrong(result: CommandResult, names: Sequence[str], may_be_ignored: bool) -> Iterator[str]:
    said = result.out + result.err
    if "Traceback" in said:
        yield f"traceback in the output: {said[-200:]!r}"
    if result.code not in (EXIT_OK, EXIT_RUN_FAILED, EXIT_BAD_INPUT):
        yield f"exit code {result.code}"
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    errors = [line for line in errors if not MORE_MISTAKES.fullmatch(line)]
    if result.code == EXIT_BAD_INPUT and not (errors and all(any(name in line for name in names) for line in errors)):
        yield f"error does not name the file: {result.err[-300:]!r}"
    if any(len(line) > 2100 for line in errors):
        yield "a long message"
    if "delete" in said:
        yield f"advises to delete: {said[-200:]!r}"
    if result.code == EXIT_OK and not may_be_ignored and not any(name in result.err for name in names):
        yield f"nothing said of an unreadable file: {result.err[-200:]!r}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""A store in a few files of limited size, so that a later call goes on with its runs.

The most valuable comes first: records and small files, the newest checkpoint of each unfinished run, finished weights.
What does not fit is left out. Each file is a tar archive by itself, with whole files and pieces of large ones: of
damaged or mixed archives, every file comes back that is whole.
"""

import errno
import os
import shutil
import tarfile
import uuid
import zlib
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from harness.store.store import Store

PART_BYTES = 15_900_000
PARTS = 4
SAVE_FILE = "save"  # next to the store: the name of its last save
_ENTRY = 3 * tarfile.BLOCKSIZE  # bytes of an archive's entry besides its content, at most
_SMALL = 1 << 20


def save(store: Store, folder: Path) -> list[str]:
    """Write the store into ``folder`` as `store.0` to `store.3`; return the files that did not fit.

    Files are compressed: of a checkpoint's float32 values, about a tenth goes.
    """
    name, left_out = uuid.uuid4().hex[:8], []
    room = PARTS * (PART_BYTES - tarfile.RECORDSIZE - 2 * _ENTRY)  # each may end with a piece, and no room for another
    pieces: list[tuple[str, bytes]] = []  # of all files, in order
    for path in _by_value(store):
        try:
            content = zlib.compress(path.read_bytes(), 1)
        except FileNotFoundError:  # a job has replaced it since
            continue
        taken = len(content) + _ENTRY
        if taken > room:
            left_out.append(str(path.relative_to(store.root)))
            continue
        room -= taken
        pieces.append((str(path.relative_to(store.root)), content))
    (store.root.parent / SAVE_FILE).write_text(name)
    archives = list(_archives(pieces, name))
    for i in range(PARTS):
        if i >= len(archives):
            (folder / f"store.{i}").unlink(missing_ok=True)
            continue
        temporary = store.root.parent / f"store.{i}.tmp"
        temporary.write_bytes(archives[i])
        _move(temporary, folder / f"store.{i}")
    return left_out


def restore(folder: Path, store: Store) -> bool:
    """Write what was saved in ``folder`` into ``store``, unless it is the very store that was last saved there.

    Return False when some of it is damaged; what is whole is written.
    """
    saved, intact = _read(folder)
    mark = store.root.parent / SAVE_FILE
    if store.root.exists() and mark.exists() and mark.read_text() in saved:
        return True
    shutil.rmtree(store.root, ignore_errors=True)
    partial = store.root.with_name("store.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    for files in saved.values():  # oldest first
        for name, content in files.items():
            path = partial / name
            if partial in path.resolve().parents:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    if saved:
        partial.replace(store.root)
    return intact


def _archives(files: list[tuple[str, bytes]], save_name: str) -> Iterator[bytes]:
    """Yield tar archives of at most PART_BYTES; a file that does not fit into one goes on in the next."""
    limit = PART_BYTES - tarfile.RECORDSIZE
    buffer = BytesIO()
    tar = tarfile.open(fileobj=buffer, mode="w")
    for name, content in files:
        start = 0
        while start < len(content):
            if limit - buffer.tell() <= _ENTRY:
                tar.close()
                yield buffer.getvalue()
                buffer = BytesIO()
                tar = tarfile.open(fileobj=buffer, mode="w")
            piece = content[start : start + limit - buffer.tell() - _ENTRY]
            entry = tarfile.TarInfo(f"{save_name}/{start}-{len(content)}/{name}")
            entry.size = len(piece)
            tar.addfile(entry, BytesIO(piece))
            start += len(piece)
    tar.close()
    yield buffer.getvalue()


def _read(folder: Path) -> tuple[dict[str, dict[str, bytes]], bool]:
    """Return save -> path -> content of the files that are whole, the last save's last; and whether all are."""
    pieces: dict[str, dict[tuple[str, int], dict[int, bytes]]] = defaultdict(lambda: defaultdict(dict))
    intact, saves = True, []
    for path in sorted(folder.glob("store.[0-9]")):
        try:
            with tarfile.open(path) as tar:
                for entry in tar:
                    piece = tar.extractfile(entry)
                    assert piece is not None
                    save_name, place, name = entry.name.split("/", 2)
                    start, size = map(int, place.split("-"))
                    pieces[save_name][name, size][start] = piece.read()
                    saves.append(save_name)
        except (tarfile.TarError, ValueError, EOFError, OSError):
            intact = False
    files: dict[str, dict[str, bytes]] = {}
    for save_name in reversed(dict.fromkeys(saves)):  # the first archive is the first to be replaced
        files[save_name] = {}
        for (name, size), parts in pieces[save_name].items():
            content = b"".join(parts[start] for start in sorted(parts))
            try:
                files[save_name][name] = zlib.decompress(content) if len(content) == size else b""
            except zlib.error:
                intact = False
            if len(content) != size:
                intact = False
                del files[save_name][name]
    return files, intact and len(files) == 1


def _move(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(source, target)  # another file system
        source.unlink()


def _by_value(store: Store) -> Iterator[Path]:
    every = [p for p in store.root.rglob("*") if p.is_file() and not p.name.endswith((".tmp", "lock"))]
    yield from sorted(p for p in every if p.stat().st_size < _SMALL and p.suffix != ".safetensors")
    folders = {p.parent for p in every if p.parent.name == "checkpoints"}
    for folder in sorted(folders, key=lambda folder: -folder.stat().st_mtime):  # what is in training comes first
        yield from sorted(folder.glob("epoch-*.safetensors"))[-1:]
    yield from sorted(p for p in every if p.suffix == ".safetensors" and p.parent.name != "checkpoints")

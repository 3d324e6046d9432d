"""A store in a few files of limited size, so that a later call goes on with its runs.

The most valuable comes first: records and small files, the newest checkpoint of each unfinished run, finished weights.
What does not fit is left out.
"""

import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from harness.store.store import Store

PART_BYTES = 15_000_000
PARTS = 4
MARGIN = 4 * tarfile.RECORDSIZE  # bytes that the archive's own entries take
_SMALL = 1 << 20


def save(store: Store, folder: Path) -> list[str]:
    """Write the store into ``folder`` as `store.0` to `store.3`; return the files that did not fit.

    Files are compressed one by one: of a checkpoint's float32 values, about a tenth goes.
    """
    archive, left_out = io.BytesIO(), []
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in _by_value(store):
            try:
                content = zlib.compress(path.read_bytes(), 1)
            except FileNotFoundError:  # a job has replaced it since
                continue
            name = str(path.relative_to(store.root))
            if archive.tell() + len(content) > PART_BYTES * PARTS - MARGIN:
                left_out.append(name)
                continue
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), int(path.stat().st_mtime)
            tar.addfile(entry, io.BytesIO(content))
    content = archive.getvalue()
    for i in range(PARTS):
        part, partial = folder / f"store.{i}", folder / f".store.{i}.tmp"
        if piece := content[i * PART_BYTES : (i + 1) * PART_BYTES]:
            partial.write_bytes(piece)
            partial.replace(part)
        else:
            part.unlink(missing_ok=True)
    return left_out


def restore(folder: Path, store: Store) -> bool:
    """Write the saved files into an empty store; return False when ``folder`` has no intact ones."""
    content = b"".join(path.read_bytes() for path in sorted(folder.glob("store.[0-9]")))
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            files = {m.name: zlib.decompress(file.read()) for m in tar if (file := tar.extractfile(m)) is not None}
    except (tarfile.TarError, zlib.error, EOFError):
        return False
    for name, data in files.items():
        path = store.root / name
        if store.root not in path.resolve().parents:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return bool(files)


def _by_value(store: Store) -> Iterator[Path]:
    every = [p for p in store.root.rglob("*") if p.is_file() and not p.name.endswith((".tmp", ".lock"))]
    small = [p for p in every if p.stat().st_size < _SMALL and p.suffix != ".safetensors"]
    yield from sorted(small)
    for folder in sorted({p.parent for p in every if p.parent.name == "checkpoints"}, key=_age):
        yield from sorted(folder.glob("epoch-*.safetensors"))[-1:]
    yield from sorted(p for p in every if p.suffix == ".safetensors" and p.parent.name != "checkpoints")


def _age(folder: Path) -> float:
    """Return a folder's time of change, negative: what is in training comes first."""
    return -folder.stat().st_mtime

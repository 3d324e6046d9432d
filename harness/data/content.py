"""The content of a prepared dataset, checked against its version: once per file and machine, as it means reading all.

What has passed is noted in ``$XDG_CACHE_HOME/kd-harness/checked``; ``~/.cache`` where that is unset.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.data import beton
from harness.data.jpeg_restarts import plain_sha256
from harness.data.load.arrays import WrongData
from harness.data.manifest import Prepared
from harness.hardware import cores
from harness.store.locks import Lock

_TOGETHER = 1000  # images that a thread reads at a time
_SETTLED_S = 2.0  # a file that has just changed may change again without another time of change
_MANY_BYTES = 10**9  # that take so long to read that it is said


def version_of(content: Any) -> str:
    """Return 16 hex digits of what a dataset holds, as JSON."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def check(folder: Path, manifest: Prepared, content: Callable[[dict[str, str]], Any]) -> None:
    """Check a prepared dataset's files against its version, unless these files have passed on this machine.

    ``content`` makes what the version stands for of the digest of each part's images.

    Raises:
        WrongData: they hold something else.
    """
    files = [folder / name for part in manifest.parts.values() for name in part.sizes()]
    note = _note(files, manifest)
    if note is None:
        return _check(folder, manifest, content)
    lock = Lock(note.with_suffix(".lock"), wait=True)  # of the processes of a job, one reads
    try:
        lock.acquire()
    except OSError:
        return _check(folder, manifest, content)
    try:
        if not note.exists():
            _check(folder, manifest, content)
            with suppress(OSError):
                note.touch()
    finally:
        lock.release()


def _check(folder: Path, manifest: Prepared, content: Callable[[dict[str, str]], Any]) -> None:
    if (size := sum(part.bytes for part in manifest.parts.values())) > _MANY_BYTES:
        text = f"{folder}: checking its content, {size / 1e9:,.0f} GB, once on this machine"
        print(text, file=sys.stderr, flush=True)
    digests = {name: part_digest(folder / part.file) for name, part in manifest.parts.items()}
    if version_of(content(digests)) != manifest.version:
        raise WrongData(
            f"{folder}: its files do not hold content {manifest.version}, which its manifest states: an image, a label "
            "or an annotation has changed; prepare the dataset again into another folder"
        )


def part_digest(path: Path) -> str:
    """Return the sha256 of every image's label and content in a .beton file, in its order.

    Raises:
        WrongData: it is damaged.
    """
    file, digest = beton.read_beton(path), hashlib.sha256()

    def lines(start: int) -> bytes:
        return b"".join(_line(file, i, path) for i in range(start, min(start + _TOGETHER, len(file))))

    with ThreadPoolExecutor(cores()) as threads:
        for part in threads.map(lines, range(0, len(file), _TOGETHER)):
            digest.update(part)
    return digest.hexdigest()


def image_digest(content: bytes | memoryview, height: int, width: int, mode: int) -> str:
    """Return the sha256 of an image as it is stored; that of pixels is of their shape as well.

    Of a JPEG with an index of restart markers it is that of the JPEG without both, which has the same pixels.

    Raises:
        ValueError: such a JPEG is damaged.
    """
    if mode == beton.JPEG and (plain := plain_sha256(bytes(content))):
        return plain
    digest = hashlib.sha256(f"{height} x {width}".encode() if mode == beton.PIXELS else b"")
    digest.update(content)
    return digest.hexdigest()


def _line(file: beton.Beton, i: int, path: Path) -> bytes:
    content, height, width = file.jpeg(i), int(file.heights[i]), int(file.widths[i])
    mode = beton.PIXELS if file.are_pixels[i] else beton.JPEG
    if mode == beton.JPEG and _jpeg_size(content.tobytes()) not in (None, (height, width)):
        raise WrongData(f"{path}: damaged: image {i} is of another size than {height} x {width}")
    try:
        return f"{file.labels[i]} {image_digest(content.data, height, width, mode)}\n".encode()
    except ValueError as error:
        raise WrongData(f"{path}: damaged: image {i}: {error}") from None


def _jpeg_size(jpeg: bytes) -> tuple[int, int] | None:
    """Return the height and width that a JPEG's frame header states; None where there is none in its usual place."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and at + 9 <= len(jpeg):
        marker = jpeg[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(jpeg[at + i : at + i + 2], "big") for i in (5, 7))
            return (height, width) if height else None
        at += 1 if marker == 0xFF else 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return None


def _note(files: Iterable[Path], manifest: Prepared) -> Path | None:
    """Return the file whose existence says that these files, as they are, have passed; None where none may say so."""
    facts: list[object] = [os.uname().nodename, manifest.model_dump(mode="json")]
    for path in files:
        status = path.stat()
        if max(status.st_mtime, status.st_ctime) > time.time() - _SETTLED_S:
            return None
        times = status.st_mtime_ns, status.st_ctime_ns
        facts.append([str(path.resolve()), status.st_size, *times, status.st_ino, status.st_dev])
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home
        return None
    return cache / "kd-harness" / "checked" / version_of(facts)

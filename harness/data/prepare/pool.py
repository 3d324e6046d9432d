"""Processes that turn source files into JPEGs, a chunk at a time."""

import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path

from harness.data.content import image_digest
from harness.data.manifest import Settings
from harness.data.prepare import encode
from harness.data.prepare.encode import EncodedImage, Unreadable
from harness.data.prepare.layouts import File
from harness.data.prepare.resumable import Chunk, Sample
from harness.errors import UserError

_SAFE_PATH = "PYTHONSAFEPATH"  # keeps new processes from importing from the current folder; empty: it does not
Result = tuple[Chunk, list[bytes]]  # the JPEGs are those of the chunk's samples


class Workers(ProcessPoolExecutor):
    """A pool of processes, as a context. They end with this process, however it ends."""

    def __init__(self, count: int):
        # spawn: the same on every system, and nothing of this process is copied
        super().__init__(count, get_context("spawn"), _begin)
        self._safe_path_before = os.environ.get(_SAFE_PATH, "")
        os.environ[_SAFE_PATH] = "1"
        self._ahead = 2 * count  # chunks that are given out or wait, in memory, to be taken

    def __exit__(self, *_: object) -> None:
        self.shutdown(cancel_futures=True)
        os.environ[_SAFE_PATH] = self._safe_path_before

    def encoded(self, folder: Path, chunks: Iterable[list[File]], settings: Settings) -> Iterator[Result]:
        """Yield the result of each chunk, in order, whichever process is done first.

        Raises:
            UserError: a process died.
        """
        waiting: deque[Future[Result]] = deque()
        try:
            for chunk in chunks:
                waiting.append(self.submit(_encoded, folder, chunk, settings))
                if len(waiting) > self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed, perhaps for lack of memory; the same command continues where it stopped, "
                "with fewer --workers if needed"
            ) from None


def encode_file(folder: Path, file: File, settings: Settings) -> EncodedImage:
    """Return what is stored of a file of a part's folder, or of an archive.

    Raises:
        Unreadable: the file cannot be read or decoded.
    """
    try:
        archive = file.archive
        content = archive.read(file.position, file.size) if archive else (folder / file.name).read_bytes()
    except OSError as e:
        raise Unreadable(e.strerror or str(e)) from None
    return encode.encode_image(content, file.name, settings)


def _begin() -> None:
    """Start a worker: ctrl-C is for the parent, and a parent that was killed takes its workers along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encoded(folder: Path, chunk: list[File], settings: Settings) -> Result:
    samples, jpegs, unreadable = [], [], []
    counts: Counter[str] = Counter()
    for file in chunk:
        try:
            encoded = encode_file(folder, file, settings)
            sha256 = _digest(encoded)
        except Unreadable as e:
            unreadable.append((file.shown, str(e)))
            counts["unreadable"] += 1
            continue
        size = len(encoded.jpeg)
        samples.append(Sample(file.label, encoded.height, encoded.width, size, sha256, encoded.mode, file.rank))
        jpegs.append(encoded.jpeg)
        counts.update(encoded.kinds)
    return Chunk(samples, dict(counts), unreadable), jpegs


def _digest(encoded: EncodedImage) -> str:
    try:
        return image_digest(encoded.jpeg, encoded.height, encoded.width, encoded.mode)
    except ValueError as error:
        raise Unreadable(f"a JPEG with an index of restart markers: {error}") from error

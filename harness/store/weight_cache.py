"""Downloaded weights, by their content. Any number of processes and stores may share a folder of them."""

import hashlib
import os
import re
import sys
import time
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from harness.errors import UserError
from harness.spec import pretrained
from harness.store import files
from harness.store.store import Store

_HASH = re.compile(r"[0-9a-f]{64}")
WAIT = 0.5  # seconds


class WeightCache:
    """``sha256/HASH.pth`` and the like; ``sources/*.json`` says which address gave which hash."""

    def __init__(self, root: Path):
        self.root = root

    @classmethod
    def of(cls, store: Store) -> "WeightCache":
        """The folder of KD_WEIGHTS, else the store's own."""
        named = os.environ.get("KD_WEIGHTS")
        return cls((Path(named).expanduser() if named else store.weights).resolve())

    def known(self, url: str) -> str | None:
        """The sha256 of what this address gave when it was fetched."""
        found = files.read_json(self._source(url))
        sha256 = found.get("sha256") if isinstance(found, dict) else None
        return sha256 if isinstance(sha256, str) and _HASH.fullmatch(sha256) else None

    def find(self, sha256: str) -> Path | None:
        """The file with this content. One that is not what its name says is none."""
        for path in sorted(self._folder.glob(f"{sha256}.*")):
            if files.sha256(path) == sha256:
                return path
        return None

    def fetch(self, url: str, sha256: str | None = None) -> tuple[str, Path]:
        """Hash and file of what an address gives, downloaded if it is not here; of processes that ask at once, by one.

        Raises:
            UserError: it cannot be had, or its sha256 is neither ``sha256`` nor what the address itself says.
            DiskFull: no room; nothing is left behind.
        """
        lock = files.Lock(self._source(url).with_suffix(".lock"))
        if not (mine := lock.acquire()):
            print(f"another process fetches {url}: waiting for it", file=sys.stderr, flush=True)
        while not mine:
            time.sleep(WAIT)
            mine = lock.acquire()
        try:
            expected = sha256 or self.known(url)
            if expected and (here := self.find(expected)):
                return expected, here
            return self._download(url, expected)
        finally:
            lock.release()

    def _download(self, url: str, expected: str | None) -> tuple[str, Path]:
        from harness.store.download import download

        base = self._folder / self._key(url)
        for left in self._folder.glob(f".{base.name}.*.tmp"):  # by a process that was killed
            left.unlink(missing_ok=True)
        with files.temporary_beside(base) as temporary:
            found = download(url, temporary)
            if expected not in (None, found):
                changed = "; it has changed since it was first fetched" if expected == self.known(url) else ""
                raise UserError(f"weights {url}: sha256 is {found}, expected {expected}{changed}")
            if not found.startswith(start := pretrained.sha256_start(url)):
                raise UserError(f"weights {url}: sha256 is {found}, its name says {start}...")
            path = self._folder / (found + PurePosixPath(urlsplit(url).path).suffix)
            files.move(temporary, path)
        files.replace_json(self._source(url), {"url": url, "sha256": found})
        print(f"fetched {url}: {path.stat().st_size / 1e6:.1f} MB, sha256 {found}", file=sys.stderr, flush=True)
        return found, path

    @property
    def _folder(self) -> Path:
        return self.root / "sha256"

    def _source(self, url: str) -> Path:
        return self.root / "sources" / f"{self._key(url)}.json"

    def _key(self, url: str) -> str:
        return hashlib.sha256(url.encode()).hexdigest()[:16]

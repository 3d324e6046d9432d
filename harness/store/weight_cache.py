"""A cache of downloaded weights, named by their content. Any number of processes and stores may share it."""

import hashlib
import os
import re
import sys
import time
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from harness.errors import UserError
from harness.spec import pretrained
from harness.store import checksums, files
from harness.store.locks import Lock
from harness.store.store import Store

_HASH = re.compile(r"[0-9a-f]{64}")
_POLL_S = 0.5


class WeightCache:
    """A folder of files ``sha256/HASH.pth`` and the like; ``sources/*.json`` records which address had which hash."""

    def __init__(self, root: Path):
        self.root = root
        self._folder = root / "sha256"

    @classmethod
    def for_store(cls, store: Store) -> "WeightCache":
        """Return the cache in the folder that KD_WEIGHTS names, else the store's own."""
        named = os.environ.get("KD_WEIGHTS")
        return cls(Path(os.path.realpath(Path(named).expanduser() if named else store.weights)))

    def known_sha256(self, url: str) -> str | None:
        """Return the sha256 that the file at this address had when it was fetched; None before, or if its note is
        damaged or another address's.
        """
        try:
            source = checksums.open_value(files.read_json(self._source(url)))
        except checksums.WrongChecksum:
            return None
        sha256 = source.get("sha256") if isinstance(source, dict) and source.get("url") == url else None
        return sha256 if isinstance(sha256, str) and _HASH.fullmatch(sha256) else None

    def find(self, sha256: str) -> Path | None:
        """Return the file with this content. Files whose content does not match their name are ignored."""
        return next((path for path in files.entries(self._folder, f"{sha256}.*") if files.sha256(path) == sha256), None)

    def fetch(self, url: str, sha256: str | None = None) -> tuple[str, Path]:
        """Return the sha256 and the path of the file at an address, and download it if the cache does not have it.

        Of processes that fetch the same address at once, one downloads it.

        Raises:
            UserError: it is unavailable, or its sha256 is neither ``sha256`` nor the one in the address itself.
            DiskFull: the disk is full; nothing is left behind.
        """
        if path := self._find_known(url, sha256):  # without a lock: the folder may be read-only
            return path.stem, path
        lock = Lock(self._source(url).with_suffix(".lock"))
        if not (acquired := lock.acquire()):
            print(f"another process is fetching {url}: waiting for it", file=sys.stderr, flush=True)
        while not acquired:
            time.sleep(_POLL_S)
            acquired = lock.acquire()
        try:
            if path := self._find_known(url, sha256):
                return path.stem, path
            return self._download(url, sha256 or self.known_sha256(url))
        finally:
            lock.release()

    def _find_known(self, url: str, sha256: str | None) -> Path | None:
        """Return the file of an address whose content is known, if it is here."""
        expected = sha256 or self.known_sha256(url)
        return self.find(expected) if expected else None

    def _download(self, url: str, expected: str | None) -> tuple[str, Path]:
        from harness.store.download import download

        base = self._folder / self._key(url)
        for leftover in self._folder.glob(f".{base.name}.*.tmp"):  # of a process that was killed
            leftover.unlink(missing_ok=True)
        with files.temporary_path(base) as temporary:
            sha256 = download(url, temporary)
            if expected not in (None, sha256):
                changed = "; it has changed since it was first fetched" if expected == self.known_sha256(url) else ""
                raise UserError(f"weights {url}: sha256 is {sha256}, expected {expected}{changed}")
            if not sha256.startswith(start := pretrained.sha256_start(url)):
                raise UserError(f"weights {url}: sha256 is {sha256}, its name states {start}...")
            path = self._folder / (sha256 + PurePosixPath(urlsplit(url).path).suffix)
            files.move(temporary, path)
        files.replace_json(self._source(url), checksums.seal_value({"url": url, "sha256": sha256}))
        print(f"fetched {url}: {path.stat().st_size / 1e6:.1f} MB, sha256 {sha256}", file=sys.stderr, flush=True)
        return sha256, path

    def _source(self, url: str) -> Path:
        return self.root / "sources" / f"{self._key(url)}.json"

    def _key(self, url: str) -> str:
        return hashlib.sha256(url.encode()).hexdigest()[:16]

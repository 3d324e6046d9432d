"""Weights that a sweep file gives: files where they lie, downloads in the store of weights. Never in a run's identity,
which has their sha256 alone."""

from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError, shorten
from harness.planning.locate import ADVICE
from harness.spec.schema import WeightsSource
from harness.store import files
from harness.store.weight_cache import WeightCache


@dataclass(frozen=True)
class GivenWeights:
    """The places where given weights may lie."""

    root: Path | None  # the data root
    beside: Path  # the sweep file's folder
    downloaded: WeightCache

    def sha256(self, weights: WeightsSource, fetch: bool) -> str:
        """Of a file, its own, which must agree with the one stated; else the one stated. Of downloads the one stated,
        else that of what has been fetched, else, with ``fetch``, that of what now is.

        Raises:
            UserError: they differ, or none is at hand.
        """
        if weights.address is None:
            return self._of_file(weights)
        known = weights.sha256 or self.downloaded.known_sha256(weights.address)
        if known is None and fetch:
            known, _ = self.downloaded.fetch(weights.address)
        if known is None:
            raise UserError(
                f"weights {weights.source}: not fetched yet, and ids need their sha256: state it, or run the sweep "
                "without --plan, which fetches them"
            )
        return known

    def path(self, weights: WeightsSource, sha256: str) -> Path:
        """Where they lie; what is to be downloaded and is not here yet, is.

        Raises:
            UserError: they are missing and cannot be had.
        """
        if weights.address is not None:
            return self.downloaded.fetch(weights.address, sha256)[1]
        if (file := self._file(weights)) is None:
            raise UserError(f"weights {weights.source}: no such file; {ADVICE}")
        return file

    def _of_file(self, weights: WeightsSource) -> str:
        file = self._file(weights)
        if file is None:
            if weights.sha256 is None:
                raise UserError(f"weights {weights.source}: no such file; {ADVICE}")
            return weights.sha256
        found = files.sha256(file)
        if weights.sha256 not in (None, found):
            raise UserError(f"weights {file}: sha256 is {found}, the sweep file states {weights.sha256}")
        return found

    def _file(self, weights: WeightsSource) -> Path | None:
        try:
            named = Path(weights.source).expanduser()
        except RuntimeError as e:
            raise UserError(f"weights {shorten(weights.source)}: {e}") from None
        below = [self.root / named] if self.root else []
        places = [named] if named.is_absolute() else [*below, self.beside / named]
        try:
            return next((p.resolve() for p in places if p.is_file()), None)
        except OSError as e:  # a name too long, a folder that may not be entered
            raise UserError(f"weights {shorten(weights.source)}: {e.strerror}") from None

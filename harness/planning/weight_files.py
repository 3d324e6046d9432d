"""Weights that a sweep file gives: local files, and downloads in the weight cache. A run's identity has only their
sha256."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError, shorten
from harness.phrases import some
from harness.planning.locate import ADVICE
from harness.spec import pretrained
from harness.spec.schema import WeightsSource
from harness.store import files
from harness.store.weight_cache import WeightCache


@dataclass(frozen=True)
class GivenWeights:
    """The places where given weights are looked for."""

    root: Path | None  # the data root
    sweep_folder: Path  # the sweep file's
    downloaded: WeightCache

    def sha256(self, weights: WeightsSource, fetch: bool) -> str:
        """Return the sha256 of weights, without a download where possible.

        For a file it is the content's, which must agree with the stated one; for a missing file, the stated one. For a
        download it is the stated one, else that of an earlier download, else, with ``fetch``, that of a download now.

        Raises:
            UserError: they differ, or there is none.
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
        """Return the file of weights, after downloading it if necessary.

        Raises:
            UserError: they are missing and unavailable.
        """
        if weights.address is not None:
            return self.downloaded.fetch(weights.address, sha256)[1]
        if (file := self._file(weights)) is None:
            raise UserError(f"weights {weights.source}: {self._missing(weights)}")
        return file

    def find(self, weights: WeightsSource, sha256: str) -> Path | None:
        """Return the file of weights; None where a download, or a file that is not here yet, is to bring it.

        Raises:
            UserError: its folder may not be entered.
        """
        return self._file(weights) if weights.address is None else self.downloaded.find(sha256)

    def _of_file(self, weights: WeightsSource) -> str:
        file = self._file(weights)
        if file is None:
            if weights.sha256 is None:
                raise UserError(f"weights {weights.source}: {self._missing(weights)}")
            return weights.sha256
        sha256 = files.sha256(file)
        if weights.sha256 not in (None, sha256):
            raise UserError(f"weights {file}: sha256 is {sha256}, the sweep file states {weights.sha256}")
        return sha256

    def _missing(self, weights: WeightsSource) -> str:
        there = next((path for path in self._candidates(weights) if path.exists() or path.is_symlink()), None)
        candidates = self._candidates(weights)
        if there or Path(weights.source).expanduser().is_absolute():
            return missing_file(there or candidates[0])
        folders = dict.fromkeys(str(path.parent) for path in candidates)
        return f"no such file in {' or '.join(folders)}" if self.root else f"no such file; {ADVICE}"

    def _candidates(self, weights: WeightsSource) -> list[Path]:
        try:
            path = Path(weights.source).expanduser()
        except RuntimeError as e:
            raise UserError(f"weights {shorten(weights.source)}: {e}") from None
        folders = [self.root, self.sweep_folder] if self.root else [self.sweep_folder]
        return [path] if path.is_absolute() else [folder / path for folder in folders]

    def _file(self, weights: WeightsSource) -> Path | None:
        try:
            return next((p.resolve() for p in self._candidates(weights) if p.is_file()), None)
        except OSError as e:  # a name too long, a folder that may not be entered
            raise UserError(f"weights {shorten(weights.source)}: {e.strerror}") from None


def missing_file(path: Path) -> str:
    """Return why a path is no file: it is a folder (with the checkpoints in it), a link to nothing, or not there."""
    if path.is_dir():
        inside = [name for name in _names(path) if name.endswith(pretrained.SUFFIXES)]
        return f"is a folder; expected a file in it{f', such as {some(inside)}' if inside else ''}"
    if path.is_symlink():
        return f"is a link to {path.readlink()}, which does not exist"
    if not path.parent.is_dir():
        return f"no such file; there is no folder {path.parent} either"
    near = difflib.get_close_matches(path.name, _names(path.parent), n=1, cutoff=0.8)
    return f"no such file; did you mean {near[0]!r}?" if near else "no such file"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:  # it may not be read
        return []

"""The digests of a folder of tables, in a file of it: of each table, and of what the tables were made from."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.errors import UserError
from harness.store import checksums, files, json_files

FILE = "digests.json"


@dataclass(frozen=True)
class Digests:
    """The sha256 of each file of a folder, by its name, and a digest of what they were made from."""

    __pydantic_config__ = json_files.CLOSED
    made_from: str
    files: dict[str, str]

    @classmethod
    def of(cls, folder: Path, names: Iterable[str], made_from: str) -> "Digests":
        """Return the digests of these files as they are now.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return cls(made_from, {name: files.sha256(folder / name) for name in names})

    @classmethod
    def read(cls, folder: Path) -> "Digests | None":
        """Return a folder's digests; None where an earlier harness wrote it, or while its files are being replaced."""
        return json_files.read_if_valid(cls, folder / FILE)

    def write(self, folder: Path) -> None:
        files.replace_json(folder / FILE, checksums.seal_value(asdict(self)), durable=False)


def check_file(path: Path) -> None:
    """Check a file against its folder's digests, if there are any.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it has changed since it was written.
    """
    before = None
    while (digests := Digests.read(path.parent)) and digests != before:  # once more if it was replaced meanwhile
        if digests.files.get(path.name) in (None, files.sha256(path)):
            return
        before = digests
    if digests:
        raise UserError(f"{path}: damaged: its content does not match {FILE}; run its sweep again to write it again")

"""The copy of the code that jobs run, made at submission: editing the checkout does not change queued jobs."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from importlib.util import cache_from_source
from pathlib import Path

from harness.errors import UserError
from harness.store import files as store_files
from harness.store import ownership, provenance

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("harness", "methods", "slurm")


def take_snapshot(folder: Path, own_files: Iterable[tuple[str, Path]]) -> Path:
    """Copy the harness's packages, and users' modules as (module, file), into a folder named by content.

    Of a user's package, all modules are copied.

    Equal code is stored once for each user: jobs run no copy that anybody else can write to. The folder appears when
    the copy is complete.

    Raises:
        DiskFull: the disk is full.
        UserError: others have put something in the copy's place.
    """
    files = _files(own_files)
    sums = _checksums(files)
    name = _name(sums)
    for copy in (folder / name, folder / f"{name}-{os.geteuid()}"):
        if not copy.exists():
            _write_copy(files, copy)
        if ownership.is_private_tree(copy):
            _mend(files, copy, sums)
            return copy
    raise UserError(f"{copy}: others can write to it: remove it, or use a store of your own")


def snapshot_folder(folder: Path, own_files: Iterable[tuple[str, Path]]) -> Path:
    """Return the folder into which ``take_snapshot`` copies the same, unless others can write to it."""
    return folder / _name(_checksums(_files(own_files)))


def _files(own_files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Return name in the copy -> file."""
    files: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((CHECKOUT / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                files[str(path.relative_to(CHECKOUT))] = path
    for module, path in own_files:
        below = module.count(".") + (path.name == "__init__.py")  # folders from that of the outermost package on
        if not below:
            files[path.name] = path
            continue
        outermost = path.parents[below - 1]
        files.update({str(p.relative_to(outermost.parent)): p for p in sorted(outermost.rglob("*.py"))})
    return files


def _checksums(files: Mapping[str, Path]) -> dict[str, bytes]:
    return {name: hashlib.sha256(files[name].read_bytes()).digest() for name in sorted(files)}


def _name(sums: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(str(provenance.git_state()).encode())
    for name, content in sums.items():
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()[:12]


def _write_copy(files: Mapping[str, Path], copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    temporary = copy.parent / f".{copy.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with store_files.full_disk_as_error(copy), ownership.writable_by_owner_alone():
            for name, path in files.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                _copy_file(path, temporary / name)
                _copy_bytecode(path, temporary / name)
            store_files.replace_json(temporary / provenance.SNAPSHOT_FILE, provenance.git_state())
            temporary.rename(copy)
    except OSError:
        if not copy.exists():  # else another process has just made the same copy
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _mend(files: Mapping[str, Path], copy: Path, sums: Mapping[str, bytes]) -> None:
    """Write again what has changed in a copy, as by a crash of the machine: jobs would run it."""
    for name, content in sums.items():
        path = copy / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).digest() != content:
            with ownership.writable_by_owner_alone():
                store_files.replace(path, partial(_copy_file, files[name]))


def _copy_file(source: Path, copy: Path) -> None:
    shutil.copy2(source, copy)  # with its time, by which Python knows the bytecode
    copy.chmod(copy.stat().st_mode & ~ownership.OTHERS_WRITE)


def _copy_bytecode(source: Path, copy: Path) -> None:
    """Copy a module's compiled form, if there is one: all jobs that start at once would compile it, each for itself."""
    if source.suffix == ".py":
        target = Path(cache_from_source(str(copy)))
        target.parent.mkdir(exist_ok=True)  # also without, as a job would make it writable for a group
        if (compiled := Path(cache_from_source(str(source)))).exists():
            _copy_file(compiled, target)

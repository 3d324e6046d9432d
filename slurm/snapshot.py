"""The copy of the code that jobs run, made at submission: editing the checkout does not change queued jobs."""

import hashlib
import shutil
import uuid
from collections.abc import Iterable
from importlib.util import cache_from_source
from pathlib import Path

from harness.store import files as store_files
from harness.store import provenance

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("harness", "methods", "slurm")


def take_snapshot(folder: Path, method_files: Iterable[tuple[str, Path]]) -> Path:
    """Copy the harness's packages, and users' method modules as (module, file), into a folder named by content.

    Equal code is stored once. The folder appears when the copy is complete.
    """
    files: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((CHECKOUT / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                files[str(path.relative_to(CHECKOUT))] = path
    for module, path in method_files:
        top, *rest = module.split(".")
        if not rest:
            files[path.name] = path
            continue
        root = path.parents[len(rest) - 1]  # the folder of the top-level package
        files.update({str(Path(top) / p.relative_to(root)): p for p in sorted(root.rglob("*.py"))})
    digest = hashlib.sha256(str(provenance.git_state()).encode())
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + hashlib.sha256(files[name].read_bytes()).digest())
    copy = folder / digest.hexdigest()[:12]
    if copy.is_dir():
        return copy
    temporary = folder / f".{copy.name}.{uuid.uuid4().hex[:8]}.tmp"
    for name, path in files.items():
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, temporary / name)
        _copy_bytecode(path, temporary / name)
    store_files.replace_json(temporary / provenance.SNAPSHOT_FILE, provenance.git_state())
    try:
        temporary.rename(copy)
    except OSError:  # another process has just made the same copy
        shutil.rmtree(temporary)
    return copy


def _copy_bytecode(source: Path, copy: Path) -> None:
    """Copy a module's compiled form, if there is one: all jobs that start at once would compile it, each for itself."""
    if source.suffix == ".py" and (compiled := Path(cache_from_source(str(source)))).exists():
        target = Path(cache_from_source(str(copy)))
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(compiled, target)

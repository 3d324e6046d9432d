"""The shards in a folder: which file is of which split of the dataset."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from harness.data.prepare.file_names import is_hidden
from harness.errors import UserError
from harness.phrases import plural, some

TRAIN = ("train", "training")
HELD_OUT = ("val", "validation", "valid", "test")  # the first that has labels is evaluated on
OFFICIAL = "ILSVRC2012_"  # the names of ImageNet's own tars, which are no such shards
_TAR = re.compile(r"\.(tar|tar\.\w+|tgz)$")
_NUMBERED = re.compile(r"^(.*-)(\d{5})-of-(\d{5})")
_DEPTH = 2  # folders below the source: SOURCE/CONFIGURATION/SPLIT/0000.parquet

Splits = dict[str, list[Path]]  # the name of a split -> its shards, in order


def shard_files(source: Path) -> Splits:
    """Return the shards in a folder by their split, which the name of a file or of its folder states. There are none
    if the folder holds class folders.

    Raises:
        UserError: shards are of two forms, of two configurations of a dataset, of no split or mixed with class folders.
    """
    splits: defaultdict[str, list[Path]] = defaultdict(list)
    others: list[Path] = []
    for path in _shards(source):
        split = _split_of(path, source)
        (others if split is None else splits[split]).append(path)
    if not splits and not others:
        return {}
    if trees := [name for name in (*TRAIN, *HELD_OUT) if _has_folders(source / name)]:
        if not _leaves_out(trees, splits):
            return {}
        first = next(path for paths in splits.values() for path in paths)
        raise UserError(
            f"--source {source}: holds class folders, {trees[0]}, and shards, {first.relative_to(source)}; "
            "expected one of the two for all images"
        )
    if not splits:
        raise UserError(f"{others[0]}: expected train, val or test in the name of a shard or of its folder")
    _check_alike(source, [path for paths in splits.values() for path in paths])
    return dict(splits)


def check_complete(splits: Splits) -> None:
    """Check that all shards of ``train-00000-of-00294.parquet`` are there.

    Raises:
        UserError: some are missing.
    """
    for paths in splits.values():
        numbers: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
        for path in paths:
            if match := _NUMBERED.match(path.name):
                numbers[match[1], int(match[3])].add(int(match[2]))
        for (stem, count), there in numbers.items():
            if missing := [f"{stem}{i:05}-of-{count:05}" for i in range(count) if i not in there]:
                raise UserError(
                    f"{paths[0].parent}: {plural(len(missing), 'shard')} of {count:,} missing: {some(missing)}; "
                    "--skip-unreadable does without them"
                )


def _shards(source: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(source, followlinks=True):
        inside = Path(place).relative_to(source)
        deepest = len(inside.parts) == _DEPTH or (inside.parts and _split_in(inside.name))
        folders[:] = [] if deepest else sorted(name for name in folders if not is_hidden(name))
        for name in sorted(names):
            if form(name) and not is_hidden(name) and not name.startswith(OFFICIAL):
                yield Path(place) / name


def form(name: str) -> str | None:
    """Return the form of a shard, by its name."""
    return "Parquet" if name.endswith(".parquet") else "tar" if _TAR.search(name) else None


def _split_of(path: Path, source: Path) -> str | None:
    inside = path.relative_to(source)
    return _split_in(_TAR.sub("", inside.name).removesuffix(".parquet")) or _split_in(inside.parent.name)


def _split_in(name: str) -> str | None:
    words = re.split(r"[^a-z]+", name.lower())
    return next((word for word in words if word in (*TRAIN, *HELD_OUT)), None)


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and any(e.is_dir() and not is_hidden(e.name) for e in os.scandir(folder))


def _leaves_out(trees: list[str], splits: Splits) -> bool:
    """Tell whether the class folders lack a part that there are shards of."""
    of_trees, of_shards = ({name in TRAIN for name in names} for names in (trees, splits))
    return not of_shards <= of_trees


def _check_alike(source: Path, paths: list[Path]) -> None:
    forms = {form(path.name): path for path in paths}
    if len(forms) > 1:
        names = " and ".join(str(path.relative_to(source)) for path in forms.values())
        raise UserError(f"--source {source}: holds shards of two forms, {names}; expected one")
    folders = (path.parent.relative_to(source) for path in paths)
    configurations = {folder.parent if _split_in(folder.name) else folder for folder in folders}
    if len(configurations) > 1:
        names = ", ".join(sorted(map(str, configurations)))
        raise UserError(f"--source {source}: holds shards in several folders, {names}; name one of them with --source")

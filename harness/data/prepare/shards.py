"""Images in shards, Parquet files or webdataset tars, as the parts of a dataset.

Images are read as they follow one another in the shards, and listed as those of class folders are: by label, then by
name. So the same images give the same version in either form.
"""

import os
import re
from pathlib import Path, PurePosixPath

from harness.data.prepare import layouts, parquet_shards, webdataset
from harness.data.prepare.examples import Example, Shard
from harness.data.prepare.layouts import File, Official, Part, PartName, Tree
from harness.data.prepare.shard_classes import Classes, find_classes
from harness.data.prepare.shard_files import HELD_OUT, TRAIN, Splits, check_complete, form, shard_files
from harness.errors import UserError, shorten
from harness.phrases import plural, some

_HIDDEN = -1  # the label of test images whose labels are not published
_WNID = re.compile(r"n\d{8}")
_WNID_AT_END = re.compile(r"_n\d{8}(?=\.\w+$)")  # which the Hub adds to the names of ImageNet's files


def in_shards(source: Path, listed: tuple[str, ...] | None, skip: bool) -> Tree | None:
    """List the images of a folder of shards; return None if it holds none. ``listed``: the classes in the order of
    their labels, instead of those that the shards state. ``skip``: leave out images without a label and do without
    missing shards.

    Raises:
        UserError: a shard is damaged, labels are missing or out of range, or classes differ.
    """
    if not (splits := shard_files(source)):
        return None
    if not skip:
        check_complete(splits)
    shards: dict[PartName, list[Shard]] = {}
    if train := [path for name in TRAIN for path in splits.get(name, ())]:
        shards["train"] = [_read(path) for path in train]
    shards["test"] = _evaluated_on(source, splits)
    classes = find_classes(source, [shard for part in shards.values() for shard in part], listed)
    parts = {name: _part(part, classes, skip) for name, part in shards.items()}
    if not listed:
        _check_classes(parts, classes.names)
    return Tree(classes.names, parts.get("train"), parts["test"])


def official_in_shards(source: Path, stated: Official, skip: bool) -> Tree | None:
    """List the images of all of ImageNet in shards, whose labels are ranks of the sorted WordNet ids; otherwise like
    ``in_shards``.

    Raises:
        UserError: it is not all of ImageNet, or a file's name states another class than its label.
    """
    if (tree := in_shards(source, stated.classes, skip)) is None:
        return None
    if tree.train is None:
        raise UserError(f"{source}: no shards of train; to evaluate only, prepare it as `imagefolder`")
    for file in (*tree.train.files, *tree.test.files):
        wnid = _WNID.search(file.name)
        if wnid and wnid[0] != stated.classes[file.label]:
            raise UserError(
                f"{tree.train.folder}: {file.shown} has the label {file.label}, in {stated.name} that of "
                f"{stated.classes[file.label]}; other labels are prepared as `imagefolder`"
            )
    layouts.check_counts(tree.train, tree.test, stated)
    return tree


def _read(path: Path) -> Shard:
    return (parquet_shards if form(path.name) == "Parquet" else webdataset).read_shard(path)


def _evaluated_on(source: Path, splits: Splits) -> list[Shard]:
    """Return the shards of the first split that is no training split and has labels."""
    hidden = ""
    for name in (name for name in HELD_OUT if name in splits):
        shards = [_read(path) for path in splits[name]]
        if any(example.label != _HIDDEN for shard in shards for example in shard.examples):
            return shards
        hidden = f" (those of {name} have no {'labels' if any(shard.examples for shard in shards) else 'images'})"
    names = some(sorted(str(path.relative_to(source)) for paths in splits.values() for path in paths))
    raise UserError(f"--source {source}: no shards to evaluate on{hidden}; expected some of val next to {names}")


def _part(shards: list[Shard], classes: Classes, skip: bool) -> Part:
    unlabelled = [(shard, example) for shard in shards for example in shard.examples if example.label is None]
    if unlabelled and not skip:
        shard = unlabelled[0][0]
        names = [example.name or f"row {example.position}" for other, example in unlabelled if other is shard]
        is_tar = form(shard.path.name) == "tar"
        place = " in KEY.cls, nor label, cls, class_id or class in KEY.json" if is_tar else ""
        raise UserError(
            f"{shard.path}: {plural(len(names), 'image has', 'images have')} no label{place}: {some(names)} "
            f"({len(unlabelled):,} in all shards of this part); --skip-unreadable leaves them out"
        )
    files = [
        _file(shard, modified, number, example, classes)
        for shard in shards
        for modified in [layouts.found_file(shard.path.parent, shard.path.name, 0).modified]
        for number, example in enumerate(shard.examples)
        if example.label is not None
    ]
    if not files:
        raise UserError(f"{shards[0].path}: no image with a label")
    named = all(example.name for shard in shards for example in shard.examples)
    order = sorted(range(len(files)), key=lambda i: _name_order(files[i]) if named else files[i].label)
    for rank, i in enumerate(order):
        files[i] = files[i]._replace(rank=rank)
    folder = Path(os.path.commonpath([shard.path.parent for shard in shards]))
    return Part(folder, files, sum(shard.ignored for shard in shards) + len(unlabelled))


def _file(shard: Shard, modified: int, number: int, example: Example, classes: Classes) -> File:
    assert example.label is not None
    name = example.name or f"row {number}"
    if (label := classes.label_of.get(example.label)) is None:
        known = f"0 to {len(classes.names) - 1:,}" if isinstance(example.label, int) else some(classes.names)
        raise UserError(f"{shard.path}: {name} has the label {shorten(example.label)}; expected {known}")
    return File(name, label, example.size, modified, example.archive, example.position)


def _name_order(file: File) -> tuple[int, tuple[str, ...], str]:
    """Return the key of the order of files in class folders: those of a folder before those of its subfolders."""
    path = PurePosixPath(_WNID_AT_END.sub("", file.name))
    return file.label, path.parent.parts, path.name


def _check_classes(parts: dict[PartName, Part], classes: tuple[str, ...]) -> None:
    for name, part in parts.items():
        present = {file.label for file in part.files}
        if empty := [name for label, name in enumerate(classes) if label not in present]:
            raise UserError(
                f"{part.folder}: no {'training' if name == 'train' else 'test'} image of {some(empty)}; with --classes "
                "FILE, a class may have none"
            )

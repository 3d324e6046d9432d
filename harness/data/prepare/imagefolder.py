"""Preparation of a tree of image files: .beton files with a manifest."""

from pathlib import Path
from typing import Literal

from harness.data import manifest
from harness.data.manifest import Manifest, Part, Settings
from harness.data.prepare import layouts
from harness.data.prepare.dataset import check_same, complete_dataset, content_version
from harness.data.prepare.part import BuiltPart, PartBuild, Tell, made_with, printable


def prepare_imagenet(
    source: Path, out: Path, settings: Settings, workers: int, skip_unreadable: bool, tell: Tell
) -> tuple[Manifest, bool]:
    """Prepare all of ImageNet as it is distributed; otherwise like ``prepare_imagefolder``."""
    tree = layouts.official(source, layouts.imagenet())
    return _prepare("imagenet", tree, out, settings, workers, skip_unreadable, tell)


def prepare_imagefolder(
    source: Path,
    out: Path,
    settings: Settings,
    workers: int,
    skip_unreadable: bool,
    tell: Tell,
    classes: str | None = None,
) -> tuple[Manifest, bool]:
    """Write the .beton files and then the manifest into ``out``; return False if all was there already. ``classes``:
    see ``layouts.class_list``.

    Raises:
        UserError: ``source`` is not the data set, ``out`` holds other data, or as ``complete_dataset``.
        DiskFull: as ``complete_dataset``.
    """
    tree = layouts.image_folder(source, layouts.class_list(classes) if classes else None)
    return _prepare("imagefolder", tree, out, settings, workers, skip_unreadable, tell)


def _prepare(
    dataset: Literal["imagenet", "imagefolder"],
    tree: layouts.Tree,
    out: Path,
    settings: Settings,
    workers: int,
    skip_unreadable: bool,
    tell: Tell,
) -> tuple[Manifest, bool]:
    fingerprint = tree.fingerprint()
    if (out / manifest.FILE).exists():
        existing = manifest.read_manifest(out, dataset)
        check_same(existing, out, {"dataset": dataset, **settings.model_dump(), "source": fingerprint})
        assert isinstance(existing, Manifest)
        return existing, False
    train = PartBuild("train", "train.beton", tree.train, settings, out) if tree.train else None
    test = PartBuild("test", "val.beton", tree.test, settings, out)
    names = tuple(map(printable, tree.classes))

    def part(filling: PartBuild, filled: BuiltPart) -> Part:
        return Part(
            file=filling.file,
            images=filled.images,
            per_class_min=min(filled.per_class[label] for label in range(len(names))),
            bytes=filled.bytes,
            counts=filled.counts,
        )

    def state(done: dict[str, BuiltPart]) -> Manifest:
        return Manifest(
            dataset=dataset,
            version=content_version([names, {name: filled.digest for name, filled in done.items()}]),
            settings=settings,
            source=fingerprint,
            classes=names,
            train=part(train, done["train"]) if train else None,
            test=part(test, done["test"]),
            unreadable=tuple(file for filled in done.values() for file in filled.unreadable),
            made_with=made_with(),
        )

    fillings = [f for f in (train, test) if f]
    return complete_dataset(out, fillings, workers, skip_unreadable, tell, state), True

"""Preparation of a tree of image files: .beton files with a manifest."""

from typing import Any

from harness.data import content
from harness.data.manifest import Manifest, Part
from harness.data.prepare import layouts, official_tars, shards, val_share
from harness.data.prepare.dataset import complete_dataset, existing_dataset
from harness.data.prepare.part import BuiltPart, PartBuild, Request, printable


def prepare_imagenet(request: Request) -> tuple[Manifest, bool]:
    """Prepare all of ImageNet as it is distributed; otherwise like ``prepare_imagefolder``."""
    stated, source = layouts.imagenet(), request.source
    tree = official_tars.in_tars(source, stated) or shards.official_in_shards(source, stated, request.skip_unreadable)
    return _prepare(request, tree or layouts.official(source, stated))


def prepare_imagefolder(request: Request, classes: str | None = None) -> tuple[Manifest, bool]:
    """Write the .beton files and then the manifest; return False if all was there already. ``classes``: see
    ``layouts.class_list``.

    Raises:
        UserError: the source is not the dataset, ``out`` holds other data, or as ``complete_dataset``.
        DiskFull: as ``complete_dataset``.
    """
    listed = layouts.class_list(classes) if classes else None
    if (share := request.settings.val_share) is not None:
        return _prepare(request, val_share.divided_folder(request.source, share, listed))
    tree = shards.in_shards(request.source, listed, request.skip_unreadable)
    return _prepare(request, tree or layouts.image_folder(request.source, listed))


def _prepare(request: Request, tree: layouts.Tree) -> tuple[Manifest, bool]:
    fingerprint = tree.fingerprint()
    if existing := existing_dataset(Manifest, request, fingerprint):
        return existing, False
    names = tuple(map(printable, tree.classes))

    def state(done: dict[str, BuiltPart], facts: dict[str, Any]) -> Manifest:
        smallest = {name: min(part.per_class[label] for label in range(len(names))) for name, part in done.items()}
        parts = {name: Part(**dict(part.stored), per_class_min=smallest[name]) for name, part in done.items()}
        version = content.version_of([names, {name: part.digest for name, part in done.items()}])
        return Manifest(version=version, classes=names, train=parts.get("train"), test=parts["test"], **facts)

    builds = [PartBuild(name, part, request) for name, part in tree.parts.items()]
    return complete_dataset(request, fingerprint, builds, state), True

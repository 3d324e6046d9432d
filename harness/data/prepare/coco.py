"""Preparation of a dataset in COCO's format: .beton files, annotations that are quick to read, and a manifest."""

from typing import Any, Literal

import numpy as np

from harness.data import beton
from harness.data.coco_manifest import CocoManifest, CocoPart
from harness.data.prepare import coco_layout
from harness.data.prepare.coco_json import Instances
from harness.data.prepare.dataset import complete_dataset, content_version, existing_dataset
from harness.data.prepare.part import BuiltPart, PartBuild, Request
from harness.errors import UserError
from harness.phrases import plural, some
from harness.store import files

ANNOTATIONS: dict[str, Literal["train.safetensors", "val.safetensors"]] = {
    "train": "train.safetensors",
    "test": "val.safetensors",
}


def prepare_coco(request: Request, train: str | None = None, val: str | None = None) -> tuple[CocoManifest, bool]:
    """Write the .beton files, the annotations and then the manifest; return False if all was there
    already. Images are stored in the order of their ids, at their own size, with their ids as labels. ``train``,
    ``val``: see ``coco_layout.find_parts``.

    Every image is stored and may be evaluated on. Those without an object to train on (see
    ``Annotations.training_objects``) are left out of training, as detectron2 leaves them.

    Of the request's settings, ``max_side`` is None: boxes are in pixels of the images as they are.

    Raises:
        UserError: the source is not such a dataset, an image has not the size that its annotations are for, ``out``
            holds other data, or as ``complete_dataset``.
        DiskFull: as ``complete_dataset``.
    """
    source_parts = coco_layout.find_parts(request.source, train, val)
    fingerprint = coco_layout.fingerprint(source_parts)
    if existing := existing_dataset(CocoManifest, request, fingerprint):
        return existing, False
    if not request.skip_unreadable:
        for part in source_parts.values():
            part.check_complete()
    builds = {name: PartBuild(name, part.images, request) for name, part in source_parts.items()}

    def state(done: dict[str, BuiltPart], facts: dict[str, Any]) -> CocoManifest:
        parts = {n: _write_annotations(part.instances, builds[n], done[n]) for n, part in source_parts.items()}
        categories = next(iter(source_parts.values())).instances.categories
        digests = {name: (done[name].digest, digest) for name, (_, digest) in parts.items()}
        return CocoManifest(
            version=content_version([[category.model_dump() for category in categories], digests]),
            categories=categories,
            train=parts["train"][0] if "train" in parts else None,
            test=parts["test" if "test" in parts else "train"][0],
            **facts,
        )

    companions = [ANNOTATIONS[name] for name in builds]
    return complete_dataset(request, fingerprint, builds.values(), state, companions), True


def _write_annotations(instances: Instances, build: PartBuild, built: BuiltPart) -> tuple[CocoPart, str]:
    """Write the annotations of the images that are stored; return the part and their digest."""
    images = beton.read_beton(build.unfinished)
    stored = np.searchsorted(instances.annotations.image_ids, images.labels)
    _check_sizes(instances, images, stored)
    annotations = instances.annotations.of_images(stored)
    path = build.request.out / ANNOTATIONS[build.name]
    files.replace(path, annotations.save)
    objects = annotations.training_objects(images.heights, images.widths)
    part = CocoPart(
        **dict(built.stored),
        annotations=ANNOTATIONS[build.name],
        annotation_bytes=path.stat().st_size,
        trained_on=np.count_nonzero(objects.counts),
        objects=annotations.counts(images.heights, images.widths),
    )
    return part, annotations.digest()


def _check_sizes(instances: Instances, images: beton.Beton, stored: np.ndarray) -> None:
    """Raise UserError when boxes are in pixels of an image of another size: how they would fit is not known."""
    heights, widths = instances.heights[stored], instances.widths[stored]
    wrong = np.flatnonzero((heights != images.heights) | (widths != images.widths))
    if len(wrong):
        sizes = [
            f"{instances.names[stored[i]]} is {images.widths[i]} x {images.heights[i]}, not {widths[i]} x {heights[i]}"
            for i in wrong
        ]
        raise UserError(
            f"{instances.path}: {plural(len(wrong), 'image is', 'images are')} of another width x height than "
            f"stated: {some(sizes)}; repair either (an EXIF orientation is not applied) and run the command again"
        )

"""Preparation of a dataset in COCO's format: .beton files, annotations that are quick to read, and a manifest."""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from harness.data import beton, content
from harness.data.coco_manifest import CocoManifest, CocoPart, reason
from harness.data.prepare import coco_layout, encode
from harness.data.prepare.coco_entry import LARGEST_SIDE
from harness.data.prepare.coco_json import Instances
from harness.data.prepare.dataset import complete_dataset, existing_dataset
from harness.data.prepare.part import BuiltPart, PartBuild, Request
from harness.data.prepare.plausibility import implausible, turned
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

    Of the request's settings, ``max_side`` is None: boxes are in pixels of the images at their own size. An EXIF
    orientation is applied; boxes are of the image as it is shown then, unless the stated width and height are only
    those that it has before: then they are turned with it.

    Raises:
        UserError: the source is not such a dataset, an image has not the size that its annotations are for, ``out``
            holds other data, or as ``complete_dataset``.
        DiskFull: as ``complete_dataset``.
    """
    plain = request.settings
    request = replace(request, settings=plain.model_copy(update={"orientation": "apply"}))
    source_parts = coco_layout.find_parts(request.source, train, val)
    if remark := coco_layout.unused_test_part(request.source, source_parts):
        request.say(remark)
    fingerprint = coco_layout.fingerprint(source_parts)
    if existing := existing_dataset(CocoManifest, request, fingerprint):
        return existing, False
    _check_objects(source_parts.values())
    if not request.skip_unreadable:
        for part in source_parts.values():
            part.check_complete()
    builds = {name: PartBuild(name, part.images, request) for name, part in source_parts.items()}

    def state(done: dict[str, BuiltPart], facts: dict[str, Any]) -> CocoManifest:
        parts = {n: _write_annotations(part.instances, builds[n], done[n]) for n, part in source_parts.items()}
        categories = next(iter(source_parts.values())).instances.categories
        if not any(built.stored.counts.get("turned") for built in done.values()):
            facts = {**facts, "settings": plain}  # as from before orientations were applied: other versions read it
        digests = {name: (done[name].digest, digest) for name, (_, digest) in parts.items()}
        return CocoManifest(
            version=content.version_of([[category.model_dump() for category in categories], digests]),
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
    annotations = instances.annotations.of_images(stored)
    orientations = _orientations(build, instances, images, stored)
    _check_sizes(instances, images, stored, orientations)
    annotations = turned(annotations, orientations, images.heights, images.widths)
    path = build.request.out / ANNOTATIONS[build.name]
    files.replace(path, annotations.save)
    objects = annotations.training_objects(images.heights, images.widths)
    noticed = implausible(annotations, images.heights, images.widths) + Counter(boxes_turned=len(orientations))
    part = CocoPart(
        **dict(built.stored),
        annotations=ANNOTATIONS[build.name],
        annotation_bytes=path.stat().st_size,
        trained_on=np.count_nonzero(objects.counts),
        objects=annotations.counts(images.heights, images.widths),
        remarks=dict(+(instances.remarks + noticed)),
    )
    return part, annotations.digest()


def _orientations(build: PartBuild, instances: Instances, images: beton.Beton, stored: np.ndarray) -> dict[int, int]:
    """Return position -> EXIF orientation of the images whose stated size is the one that they have without it."""
    heights, widths = instances.heights[stored], instances.widths[stored]
    swapped = (heights == images.widths) & (widths == images.heights) & (heights != widths)
    orientations: dict[int, int] = {}
    for i in map(int, np.flatnonzero(swapped)):
        orientation = encode.stated_orientation(build.tree.folder / build.tree.files[stored[i]].name)
        if orientation in encode.SWAP_SIDES:
            orientations[i] = orientation
    return orientations


def _check_sizes(instances: Instances, images: beton.Beton, stored: np.ndarray, orientations: Collection[int]) -> None:
    """Raise UserError when boxes are in pixels of an image of another size: how they would fit is not known."""
    heights, widths = instances.heights[stored], instances.widths[stored]
    differs = (heights != 0) & ((heights != images.heights) | (widths != images.widths))
    differs[list(orientations)] = False
    wrong = np.flatnonzero(differs)
    if len(wrong):
        sizes = [
            f"{instances.names[stored[i]]} is {images.widths[i]} x {images.heights[i]}, not {widths[i]} x {heights[i]}"
            for i in wrong
        ]
        raise UserError(
            f"{instances.path}: {plural(len(wrong), 'image is', 'images are')} of another width x height than "
            f"stated: {some(sizes)}; repair either and run the command again"
        )


def _check_objects(parts: Collection[coco_layout.Part]) -> None:
    """Raise UserError when no part has an object: there is nothing to train on, and no AP to measure."""
    reasons = []
    for instances in (part.instances for part in parts):
        sides = (np.where(known, known, LARGEST_SIDE) for known in (instances.heights, instances.widths))
        counts = instances.annotations.counts(*sides)
        if counts["objects"]:
            return
        reasons.append(f"{instances.path}: no object to train on or to evaluate with: ")
        reasons[-1] += reason({**counts, **instances.remarks})
    raise UserError("; ".join(reasons))

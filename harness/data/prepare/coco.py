"""Preparation of a data set in COCO's format: .beton files, annotations that are quick to read, and a manifest."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness.data import beton, manifest
from harness.data.coco_manifest import CocoManifest, CocoPart
from harness.data.manifest import Settings
from harness.data.prepare import coco_layout
from harness.data.prepare.dataset import check_same, complete_dataset, content_version
from harness.data.prepare.part import BuiltPart, PartBuild, Tell, made_with
from harness.errors import UserError
from harness.phrases import plural, some
from harness.store import files


def prepare_coco(
    source: Path,
    out: Path,
    settings: Settings,
    workers: int,
    skip_unreadable: bool,
    tell: Tell,
    train: str | None = None,
    val: str | None = None,
) -> tuple[CocoManifest, bool]:
    """Write the .beton files, the annotations and then the manifest into ``out``; return False if all was there
    already. Images are stored in the order of their ids, at their own size, with their ids as labels. ``train``,
    ``val``: see ``coco_layout.find_archive``.

    Every image is stored and may be evaluated on. Those without an object to train on (see
    ``Annotations.training_objects``) are left out of training, as detectron2 leaves them.

    Of ``settings``, ``max_side`` is None: boxes are in pixels of the images as they are.

    Raises:
        UserError: ``source`` is not such a data set, an image has not the size that its annotations are for, ``out``
            holds other data, or as ``complete_dataset``.
        DiskFull: as ``complete_dataset``.
    """
    archive = coco_layout.find_archive(source, train, val)
    fingerprint = archive.fingerprint()
    if (out / manifest.FILE).exists():
        existing = manifest.read_manifest(out, "coco")
        check_same(existing, out, {"dataset": "coco", **settings.model_dump(), "source": fingerprint})
        assert isinstance(existing, CocoManifest)
        return existing, False
    if not skip_unreadable:
        for part in archive.parts:
            part.check_complete()
    trained = (
        _Making(archive.train, "train", "train.beton", "train.safetensors", settings, out) if archive.train else None
    )
    tested = _Making(archive.test, "test", "val.beton", "val.safetensors", settings, out) if archive.test else None
    makings = [making for making in (trained, tested) if making]

    def state(done: dict[str, BuiltPart]) -> CocoManifest:
        parts = {making.name: making.write(done[making.name]) for making in makings}
        categories = archive.parts[0].instances.categories
        digests = {name: (done[name].digest, digest) for name, (_, digest) in parts.items()}
        return CocoManifest(
            dataset="coco",
            version=content_version([[category.model_dump() for category in categories], digests]),
            settings=settings,
            source=fingerprint,
            categories=categories,
            train=parts["train"][0] if trained else None,
            test=parts["test" if tested else "train"][0],
            unreadable=tuple(file for filled in done.values() for file in filled.unreadable),
            made_with=made_with(),
        )

    fillings, annotations = [making.filling for making in makings], [making.annotations for making in makings]
    return complete_dataset(out, fillings, workers, skip_unreadable, tell, state, annotations), True


@dataclass(frozen=True)
class _Making:
    """The two files of a part."""

    part: coco_layout.Part
    name: Literal["train", "test"]
    images: Literal["train.beton", "val.beton"]
    annotations: Literal["train.safetensors", "val.safetensors"]
    settings: Settings
    out: Path

    @property
    def filling(self) -> PartBuild:
        return PartBuild(self.name, self.images, self.part.images, self.settings, self.out)

    def write(self, filled: BuiltPart) -> tuple[CocoPart, str]:
        """Write the annotations of the images that are stored; return the part and their digest."""
        stored_images, instances = beton.read_beton(self.filling.unfinished), self.part.instances
        stored = np.searchsorted(instances.annotations.image_ids, stored_images.labels)
        self._check_sizes(stored_images, stored)
        annotations = instances.annotations.of_images(stored)
        path = self.out / self.annotations
        files.replace(path, annotations.save)
        part = CocoPart(
            file=self.images,
            annotations=self.annotations,
            images=filled.images,
            bytes=filled.bytes,
            annotation_bytes=path.stat().st_size,
            counts=filled.counts,
            trained_on=int(
                (annotations.training_objects(stored_images.heights, stored_images.widths).counts > 0).sum()
            ),
            objects=annotations.counts(stored_images.heights, stored_images.widths),
        )
        return part, annotations.digest()

    def _check_sizes(self, stored_images: beton.Beton, stored: np.ndarray) -> None:
        """Raise UserError when boxes are in pixels of an image of another size: how they would fit is not known."""
        instances = self.part.instances
        heights, widths = instances.heights[stored], instances.widths[stored]
        wrong = np.flatnonzero((heights != stored_images.heights) | (widths != stored_images.widths))
        if len(wrong):
            sizes = [
                f"{instances.names[stored[i]]} is {stored_images.widths[i]} x {stored_images.heights[i]}, "
                f"not {widths[i]} x {heights[i]}"
                for i in wrong
            ]
            raise UserError(
                f"{instances.path}: {plural(len(wrong), 'image is', 'images are')} of another width x height than "
                f"stated: {some(sizes)}; repair either (an EXIF orientation is not applied) and run the command again"
            )

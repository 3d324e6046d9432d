"""``python -m harness.prepare DATASET``: image files into the form the loaders want."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.console import options
from harness.errors import UserError, unknown

if TYPE_CHECKING:
    from harness.data.manifest import DetectionManifest, Manifest

DATASETS = ("imagenet", "imagefolder", "coco")
MAX_SIDE = 400


def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            help="imagenet; imagefolder for any other tree of class folders; coco for any set in its format."
        ),
    ],
    source: Annotated[
        Path,
        typer.Option(
            help="Folder with train/CLASS/* and val/CLASS/*; of coco, with annotations/instances_{train,val}*.json "
            "and image folders of the same names (train2017, images/train2017, ...)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the prepared data set.")],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Of imagefolder: the class names in the order of their labels, one a line, of which SOURCE may have a "
            "part; `imagenet` stands for ImageNet's. Without it, the folders' names sorted.",
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Of coco: the training annotations, where SOURCE has several or other names."
        ),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Of coco: the annotations to evaluate with. Where there are none, it is the training images that are "
            "evaluated on.",
        ),
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            min=8,
            max=1024,
            help=f"Larger images are shrunk to this longer side, in pixels (default: {MAX_SIDE}). Those of coco keep "
            "their size.",
        ),
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=95, help="JPEG quality of images that are encoded anew.")] = 90,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes (default: one per core).")] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave unreadable files out and list them in the manifest.")
    ] = False,
    json_: options.Json = False,
) -> None:
    """Turn a data set of image files into .beton files with a manifest.

    JPEGs that are small enough keep their bytes. Killed at any time, the same command goes on from where it was.
    """
    from harness.console.progress import FilesProgress
    from harness.console.terminal import say
    from harness.data.manifest import Settings
    from harness.hardware import cores

    try:
        from harness.data.prepare import coco, imagefolder
        from harness.data.prepare.layouts import class_list
    except ModuleNotFoundError as e:
        if e.name != "PIL":
            raise
        raise UserError("preparing images needs Pillow: pip install 'kd-harness[images]'") from None
    if dataset not in DATASETS:
        raise UserError(unknown("dataset to prepare", dataset, DATASETS))
    if classes and dataset != "imagefolder":
        raise UserError(f"--classes belongs to imagefolder; {dataset} has its own")
    if dataset == "coco" and max_side is not None:
        raise UserError("--max-side belongs to the others: images of coco keep their size, which their boxes are for")
    if dataset != "coco" and (train or val):
        raise UserError("--train and --val belong to coco")
    settings = Settings(max_side=None if dataset == "coco" else max_side or MAX_SIDE, quality=quality)
    made: Manifest | DetectionManifest
    try:
        with FilesProgress() as progress:
            how = settings, workers or cores(), skip_unreadable, progress.tell
            if dataset == "coco":
                made, is_new = coco.prepare_coco(source, out, *how, train=train, val=val)
            else:
                listed = class_list(classes) if classes else None
                made, is_new = imagefolder.prepare_imagefolder(dataset, source, out, *how, listed)
    except KeyboardInterrupt:
        say("left; the same command goes on from here")
        raise typer.Exit(130) from None
    if not is_new:
        say(f"{out}: prepared already, nothing to do")
    print(json.dumps(_summary(made, out)) if json_ else _text(made, out))


def _summary(made: "Manifest | DetectionManifest", out: Path) -> dict[str, Any]:
    summary = made.model_dump(mode="json", exclude={"classes", "categories", "unreadable"})
    summary |= {"folder": str(out), "classes": made.class_count, "unreadable": len(made.unreadable)}
    return summary | {"evaluated_on": made.evaluated_on}


def _text(made: "Manifest | DetectionManifest", out: Path) -> str:
    from harness.data import annotations
    from harness.data.manifest import DetectionPart
    from harness.data.prepare import encode

    lines = [f"{out}: {made.dataset}, {made.class_count:,} classes, version {made.version}"]
    found: list[tuple[dict[str, int], dict[str, str]]] = []  # counts, and what is counted
    for name, part in {"train": made.train, made.evaluated_on: made.test}.items():
        if part:
            stored = _counted(part.counts, encode.KINDS)
            lines.append(f"{name}: {part.images:,} images, {part.bytes / 1e9:,.2f} GB: {stored}")
            found.append((part.counts, encode.KINDS))
        if isinstance(part, DetectionPart):
            objects = _counted(part.objects, annotations.KINDS)
            lines.append(f"{name}: annotations: {objects}; {part.trained_on:,} images to train on")
            found.append((part.objects, annotations.KINDS))
    meanings = {kind: all_[kind] for counts, all_ in found for kind in all_ if counts.get(kind)}
    lines += [f"  {kind.replace('_', ' ')}: {meaning}" for kind, meaning in meanings.items()]
    if made.evaluated_on == "train":
        lines.append("no annotations to evaluate with: the training images are what is evaluated on")
    return "\n".join(lines)


def _counted(counts: dict[str, int], kinds: Iterable[str]) -> str:
    return ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind in kinds if (n := counts.get(kind)))


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(prepare)

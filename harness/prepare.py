"""``python -m harness.prepare DATASET``: image files in the form that the loaders read."""

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.console import options
from harness.console.terminal import say
from harness.data.manifest import Prepared, Settings
from harness.errors import UserError, unknown
from harness.hardware import cores
from harness.spec.schema import NAME_PATTERN
from harness.spec.tasks import DATASETS, import_object

PREPARATIONS = {name: info.preparation for name, info in DATASETS.items() if info.preparation}
MAX_SIDE = 400
RESTART = 1


class Orientation(StrEnum):
    """The ways to treat an EXIF orientation."""

    ignore = "ignore"
    apply = "apply"


def prepare(
    dataset: Annotated[
        str, typer.Argument(help="imagenet, imagefolder (class folders) or coco (any data in its format).")
    ],
    source: Annotated[
        Path,
        typer.Option(
            help="Folder with train/CLASS/* and val/CLASS/*, with train-* and val-* shards (Parquet files of image "
            "bytes, webdataset tars), ILSVRC2012's own tars, or Tiny-ImageNet as it is distributed; for coco, with "
            "annotations/instances_{train,val}*.json and image folders of the same names (train2017, "
            "images/train2017, ...)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the prepared dataset. Sweeps look for $KD_DATA/DATASET.")],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="For imagefolder: the class names in the order of their labels, one per line; SOURCE may have only "
            "some of them. `imagenet` stands for ImageNet's. Default: the sorted names of the folders.",
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="For coco: the training annotations, if SOURCE has several or they have another name."
        ),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="For coco: the annotations to evaluate with. Without them, evaluation is on the training images.",
        ),
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            min=8,
            max=1024,
            help=f"Larger images are shrunk to this longer side, in pixels (default: {MAX_SIDE}). Images of coco "
            "keep their size.",
        ),
    ] = None,
    orientation: Annotated[
        Orientation | None,
        typer.Option(
            help="For class trees: whether an image is turned by its EXIF orientation (default: ignore, as "
            "torchvision's ImageFolder). Images of coco always are, with their boxes."
        ),
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=95, help="JPEG quality of images that are encoded again.")] = 90,
    lossless: Annotated[
        bool,
        typer.Option(
            "--lossless",
            help="Store the pixels of PNG, BMP, TIFF, PPM, WebP and GIF images as they are, 3 bytes each, instead of a "
            "JPEG.",
        ),
    ] = False,
    restart: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=64,
            help="For class trees: put restart markers into stored JPEGs, at most so many times 16 pixels apart, by "
            f"which loaders decode no more than a crop; the pixels stay the same (default: {RESTART}; 0: none).",
        ),
    ] = None,
    val_share: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="For imagefolder: hold out this share of each class for evaluation (0.1: a tenth), where the images "
            "are in SOURCE/CLASS/* or only in SOURCE/train/CLASS/*. File names decide which.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="For imagefolder and coco: the name that tables show. It may be given again later."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of processes (default: one per core).")] = None,
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable",
            help="Leave out images that cannot be read and list them in the manifest, instead of failing.",
        ),
    ] = False,
    json_: options.Json = False,
) -> None:
    """Turn a dataset of image files into .beton files (FFCV's format) with a manifest, for sweeps to read.

    Example: python -m harness prepare imagenet --source ILSVRC2012 --out $KD_DATA/imagenet

    JPEGs that are small enough are copied unchanged. If the command is killed, run it again to continue.
    """
    from harness.console.progress import FilesProgress

    if (preparation := PREPARATIONS.get(dataset)) is None:
        raise UserError(unknown("dataset to prepare", dataset, PREPARATIONS))
    of_all = {
        "max_side": max_side, "orientation": orientation, "restart": restart, "val_share": val_share, "name": name,
    }  # fmt: skip
    options_given = {"classes": classes, "train": train, "val": val, **of_all}
    for option in (name for name, value in options_given.items() if value is not None):
        if option not in preparation.options:
            owners = " and ".join(name for name, other in PREPARATIONS.items() if option in other.options)
            raise UserError(f"--{option.replace('_', '-')} belongs to {owners}, not to {dataset}")
    longest = (max_side or MAX_SIDE) if "max_side" in preparation.options else None
    if val_share is not None and not 0 < val_share < 1:
        raise UserError(f"--val-share {val_share:g}: expected a share between 0 and 1, such as 0.1")
    if name is not None and not re.fullmatch(NAME_PATTERN, name):
        raise UserError(f"--name {name}: expected up to 64 letters, digits and _.+-, the first a letter or digit")
    turned = (orientation or Orientation.ignore).value
    units = (RESTART if restart is None else restart) if "restart" in preparation.options else 0
    settings = Settings(
        max_side=longest, quality=quality, orientation=turned, lossless=lossless, val_share=val_share, restart=units
    )
    further = {option: options_given[option] for option in preparation.options if option not in of_all}
    try:
        prepare_dataset = import_object(preparation.prepare)
        from harness.data.prepare.part import Request
    except ModuleNotFoundError as e:
        if e.name != "PIL":
            raise
        raise UserError("preparing images needs Pillow: pip install 'kd-harness[images]'") from None
    try:
        with FilesProgress() as progress:
            how = settings, workers or cores(), skip_unreadable, progress.tell, name, say
            request = Request(dataset, source, out, *how)
            made, is_new = prepare_dataset(request, **further)
    except KeyboardInterrupt:
        say("interrupted; the same command resumes here")
        raise typer.Exit(130) from None
    if not is_new:
        say(f"{out}: already prepared, " + (f"its name is {made.name}" if name else "nothing to do"))
        if units and not made.settings.restart:
            say(f"note: {out} has no restart markers, by which crops load faster; another --out would have them")
    for warning in made.warnings():
        say(f"warning: {warning}")
    print(json.dumps(_summary(made, out)) if json_ else _text(made, out))


def _summary(made: Prepared, out: Path) -> dict[str, Any]:
    summary = made.model_dump(mode="json", exclude={"classes", "categories", "unreadable"})
    summary |= {"folder": str(out), "classes": made.class_count, "unreadable": len(made.unreadable)}
    return {**summary, "evaluated_on": made.evaluated_on, "warnings": made.warnings()}


def _text(made: Prepared, out: Path) -> str:
    named = f" {made.name}" if made.name else ""
    lines = [f"{out}: {made.dataset}{named}, {made.class_count:,} classes, version {made.version}"]
    tallies = [(name, tally) for name, part in made.parts.items() for tally in part.tallies()]
    lines += [f"{name}: {tally.line}" for name, tally in tallies]
    meanings = {kind: text for _, tally in tallies for kind, text in tally.kinds.items() if tally.counts.get(kind)}
    lines += [f"  {kind.replace('_', ' ')}: {meaning}" for kind, meaning in meanings.items()]
    if made.evaluated_on == "train":
        lines.append("no annotations to evaluate with: the training images are evaluated on")
    return "\n".join(lines)


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(prepare)

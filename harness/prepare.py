"""``python -m harness.prepare DATASET``: image files into the form the loaders want."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import options
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.data.manifest import Manifest


def prepare(
    dataset: Annotated[str, typer.Argument(help="imagenet, or imagefolder for any other tree of class folders.")],
    source: Annotated[Path, typer.Option(help="Folder with train/CLASS/* and val/CLASS/*.")],
    out: Annotated[Path, typer.Option(help="Folder for the prepared data set.")],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Of imagefolder: the class names in the order of their labels, one a line, of which SOURCE may have a "
            "part; `imagenet` stands for ImageNet's. Without it, the folders' names sorted.",
        ),
    ] = None,
    max_side: Annotated[
        int, typer.Option(min=8, max=1024, help="Larger images are shrunk to this longer side, in pixels.")
    ] = 400,
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
    from harness.data.manifest import Settings
    from harness.planning import cores
    from harness.progress import FilesProgress
    from harness.watch import say

    try:
        from harness.data.imagetree import class_list
        from harness.data.preparing import prepare as run
    except ModuleNotFoundError as e:
        if e.name != "PIL":
            raise
        raise UserError("preparing images needs Pillow: pip install 'kd-harness[images]'") from None
    if classes and dataset == "imagenet":
        raise UserError("--classes belongs to imagefolder; imagenet has its own")
    settings = Settings(max_side=max_side, quality=quality)
    try:
        with FilesProgress() as progress:
            listed = class_list(classes) if classes else None
            many = workers or cores()
            made, is_new = run(dataset, source, out, settings, many, skip_unreadable, progress.tell, listed)
    except KeyboardInterrupt:
        say("left; the same command goes on from here")
        raise typer.Exit(130) from None
    if not is_new:
        say(f"{out}: prepared already, nothing to do")
    print(json.dumps(_summary(made, out)) if json_ else _text(made, out))


def _summary(made: "Manifest", out: Path) -> dict[str, Any]:
    summary = made.model_dump(mode="json", exclude={"classes", "unreadable"})
    return summary | {"folder": str(out), "classes": len(made.classes), "unreadable": len(made.unreadable)}


def _text(made: "Manifest", out: Path) -> str:
    from harness.data.images import KINDS

    lines = [f"{out}: {made.dataset}, {len(made.classes):,} classes, version {made.version}"]
    found: set[str] = set()
    for name, part in (("train", made.train), ("test", made.test)):
        if part:
            counts = [f"{n:,} {kind.replace('_', ' ')}" for kind in KINDS if (n := part.counts.get(kind))]
            found |= {kind for kind, n in part.counts.items() if n}
            lines.append(f"{name}: {part.images:,} images, {part.bytes / 1e9:,.2f} GB: {', '.join(counts)}")
    lines += [f"  {kind.replace('_', ' ')}: {meaning}" for kind, meaning in KINDS.items() if kind in found]
    return "\n".join(lines)


if __name__ == "__main__":
    from harness.cli import run_one

    run_one(prepare)

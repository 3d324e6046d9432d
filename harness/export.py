"""``python -m harness.export RUN``: a trained student in a format that other programs read."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.console import options
from harness.console.terminal import at_words, say
from harness.errors import UserError
from harness.planning import locate, run_data
from harness.store import files
from harness.store.store import Store

if TYPE_CHECKING:
    from torch import Tensor

    from harness.store.saved_run import SavedRun
    from harness.training.classifier import Classifier

RANDOM, REAL = 4, 16  # images that outputs are compared on
TOLERANCE = 1e-4


class Format(StrEnum):
    """The format of an export."""

    SAFETENSORS = "safetensors"
    TORCHSCRIPT = "torchscript"
    ONNX = "onnx"


def export(
    run: Annotated[str, typer.Argument(help="A finished run's id or the start of it.")],
    to: Annotated[Format, typer.Option("--to", help="safetensors: the weights. torchscript, onnx: a whole program.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write (default: RUN and the format's ending, here).")
    ] = None,
    epoch: options.Epoch = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Largest difference from the run's own outputs, as a share of the largest over 1.",
        ),
    ] = TOLERANCE,
    own_method: options.OwnMethod = None,
    own_model: options.OwnModel = [],  # noqa: B006 (typer reads it, nothing changes it)
    results: options.Results = Path("results"),
    data: options.Data = None,
    json_: options.Json = False,
) -> None:
    """Write a trained classifier to a file, and compare what the file computes with what the run's model does.

    The programs (torchscript, onnx) take images (B, C, H, W) of numbers from 0 to 1 in float32, normalise them, and
    return logits (B, classes); B is free. The outputs are compared on random images, and on images of the run's test
    set where that is at hand. If they differ by more than --tolerance, nothing is written.

    Example: python -m harness export 4f1c --to onnx --out student.onnx
    """
    root, store = locate.data_root(data), Store.existing(results)
    from harness.models.checkpoints import WeightsError
    from harness.store.saved_run import find_saved_run
    from harness.training import exporters
    from harness.training.classifier import load_classifier

    exporters.check_packages(to)
    saved = find_saved_run(store, run, epoch or "last", "RUN")
    name = f"{saved.run_id}.best" if saved.epoch == "best" else saved.run_id
    out = out or Path(f"{name}{exporters.SUFFIXES[to]}")
    if out.exists() and (not force or not out.is_file()):
        raise UserError(f"{out}: exists already{'; --force replaces it' if out.is_file() else ', and is not a file'}")
    own = own_method, tuple(own_model)
    try:
        model = load_classifier(saved, *own)
    except WeightsError as e:
        raise UserError(str(e)) from None
    compared = {"random": exporters.random_images(model, RANDOM)}
    try:
        compared["real"] = _real_images(model, saved, root, store)
    except UserError as e:
        say(f"compared on random images only: {e}")
    differences: dict[str, float] = {}

    def write(path: Path) -> None:
        exporters.write_export(to, model, saved, path)
        written = exporters.open_export(to, saved, path, *own)
        for kind, images in compared.items():
            differences[kind] = exporters.largest_difference(model, written, images)
            if not differences[kind] <= tolerance:  # or not a number
                found = f"outputs in {to} differ by {differences[kind]:.1e} on {kind} images"
                raise UserError(f"{out}: not written: {found}; allowed: {tolerance:g} (--tolerance)")

    files.replace(out, write)
    if json_:
        facts = {"run_id": saved.run_id, "epoch": saved.epoch, "format": to, "file": str(out)}
        print(json.dumps({**facts, "sha256": files.sha256(out), "differences": differences}))
        return
    counts = ", ".join(f"{value:.1e} on {len(compared[kind])} {kind} images" for kind, value in differences.items())
    what = f"{saved.science.student} of run {saved.run_id}, {saved.epoch} epoch"
    print(at_words(f"{out}: {what}; its outputs differ by at most {counts}", sys.stdout))


def _real_images(model: "Classifier", saved: "SavedRun", root: Path | None, store: Store) -> "Tensor":
    """Return images that the run was evaluated on, as numbers from 0 to 1.

    Raises:
        UserError: the run's dataset is not at hand.
    """
    import torch

    from harness.data.load.arrays import WrongData
    from harness.data.load.source import open_source

    science = saved.science
    try:
        folder = run_data.data_folder(science.dataset.info, root, store)
        evaluated = open_source(science.dataset, science.recipe, folder, torch.device("cpu")).evaluation()
    except WrongData as e:
        raise UserError(str(e)) from None
    images, _ = next(evaluated.batches(slice(0, REAL)))
    pixels = (images - model.shift) / model.scale * 255
    return pixels.round().clamp(0, 255).contiguous() / 255


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(export)

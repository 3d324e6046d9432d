"""Exports of a trained classifier to other formats, by their libraries' own exporters, and the outputs of an export."""

import importlib
import importlib.util
import io
import json
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from harness.errors import UserError
from harness.store.saved_run import SavedRun
from harness.training.classifier import Classifier, load_classifier

SUFFIXES = {"safetensors": ".safetensors", "torchscript": ".pt", "onnx": ".onnx"}  # by format
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
Outputs = Callable[[Tensor], Tensor]  # float images (B, C, H, W) from 0 to 1 -> logits


def check_packages(to: str) -> None:
    """Check that what a format needs is installed.

    Raises:
        UserError: a package is missing.
    """
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None] if to == "onnx" else []
    if missing:
        raise UserError(f"--to onnx needs {', '.join(missing)}: pip install 'kd-harness[onnx]'")


def write_export(to: str, model: Classifier, saved: SavedRun, path: Path) -> None:
    """Write a classifier to a file."""
    {"safetensors": _write_safetensors, "torchscript": _write_torchscript, "onnx": _write_onnx}[to](model, saved, path)


def _write_safetensors(model: Classifier, saved: SavedRun, path: Path) -> None:
    info, science = saved.science.dataset.info, saved.science
    facts = {
        "run": saved.run_id, "epoch": saved.epoch, "model": science.student, "method": science.method.use,
        "dataset": info.name, "classes": info.classes, "mean": info.mean, "std": info.std,
    }  # fmt: skip
    tensors = {key: tensor.contiguous().clone() for key, tensor in model.net.state_dict().items()}
    save_file(tensors, path, {"harness": json.dumps(facts)})  # one entry: several have no fixed order


def _write_torchscript(model: Classifier, saved: SavedRun, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the format is deprecated; of shapes that are constant in a trace
        torch.jit.trace(model, random_images(model, 2), check_trace=False).save(str(path))


def _write_onnx(model: Classifier, saved: SavedRun, path: Path) -> None:
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    silence = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(silence), redirect_stderr(silence):  # it reports its progress
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (random_images(model, 2),), path, input_names=["images"], output_names=["logits"], dynamo=True,
            dynamic_shapes=shapes, external_data=False,
        )  # fmt: skip


def open_export(to: str, saved: SavedRun, path: Path, own_method: str | None, own_models: tuple[str, ...]) -> Outputs:
    """Return what computes an export's outputs, from its file alone."""
    if to == "safetensors":
        read = SavedRun(saved.run_id, saved.science, saved.epoch, path, None)
        return load_classifier(read, own_method, own_models)
    if to == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            script: Outputs = torch.jit.load(str(path))
        return script
    session = importlib.import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def random_images(model: Classifier, count: int) -> Tensor:
    """Return images (count, C, H, W) of random pixels from 0 to 1."""
    return torch.rand(count, *model.image_shape, generator=torch.Generator().manual_seed(0))


def largest_difference(model: Outputs, export: Outputs, images: Tensor) -> float:
    """Return the largest difference of two models' logits, as a share of the largest logit where that exceeds 1."""
    with torch.no_grad():
        expected, found = model(images), export(images)
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))

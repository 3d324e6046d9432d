"""The loss cases of the golden folder, and what their adapters share.

A case names a method, hyper-parameters and arrays; its adapter returns our values of everything that it lists.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.base import Batch, Outputs, SampleRandom, TapSpec
from tests.support.golden_weights import GOLDEN

Arrays = dict[str, Tensor]
Case = dict[str, Any]
Adapter = Callable[[Case, Arrays], Arrays]

# KD_GOLDEN may name a folder of folders, or one that holds cases itself.
INDEXES = [file for file in (*sorted(GOLDEN.glob("*/cases.json")), GOLDEN / "cases.json") if file.is_file()]


def read_cases() -> list[tuple[Path, Case]]:
    """Return each case with the folder that its file lies in, which the case names too."""
    return [
        (index.parent, {**case, "folder": index.parent})
        for index in INDEXES
        for case in json.loads(index.read_text(encoding="utf-8"))["cases"]
    ]


def find_case(case_id: str) -> tuple[Case, Arrays]:
    """Return a case and its inputs; the test is skipped if no folder has the case."""
    for folder, case in read_cases():
        if case["id"] == case_id:
            return case, read_arrays(folder, case)[0]
    pytest.skip(f"no golden case {case_id} at {GOLDEN} (set KD_GOLDEN)")


def read_arrays(folder: Path, case: Case) -> tuple[Arrays, Arrays]:
    """Return a case's inputs and weights, and the values that are expected."""
    with np.load(folder / case["file"]) as file:
        arrays = {name: torch.from_numpy(np.array(value)) for name, value in file.items()}
    given = {name for name, about in case["arrays"].items() if about["role"] in ("input", "weight")}
    return (
        {name: array.clone() for name, array in arrays.items() if name in given},
        {name: arrays[name] for name in case["arrays"] if name not in given},
    )


def assert_equal(case: Case, got: Arrays, expected: Arrays) -> None:
    """Assert that all of a case's values are ours, to the tolerances that it states, or finite where they are not."""
    assert expected.keys() <= got.keys(), f"no value of ours: {', '.join(sorted(expected.keys() - got.keys()))}"
    for name, reference in expected.items():
        tolerance = case["tolerance"][_kind(name, case["arrays"][name]["role"])]
        value, reference = got[name].detach().double(), reference.double()
        assert value.shape == reference.shape, name
        assert value.isfinite().all(), name
        value, reference = value.masked_fill(~reference.isfinite(), 0.0), reference.nan_to_num(0.0, 0.0, 0.0)
        allowed = tolerance["atol"] + tolerance["rtol"] * reference.abs().max()
        error = (value - reference).abs().max()
        assert error <= allowed, f"{name}: off by {error:.3g}, {allowed:.3g} allowed"


def _kind(name: str, role: str) -> str:
    """Return the name of the tolerance that the case states for an array."""
    return "grad" if role == "grad" else "loss" if name.startswith("loss") else "state"


def spec(feature: Tensor | None = None, embedding_dim: int = 1, num_classes: int = 1) -> TapSpec:
    """Return the spec of a model with one tap, "map", shaped like `feature`."""
    if feature is None:
        return TapSpec({}, {}, embedding_dim, num_classes)
    _, c, h, w = feature.shape
    return TapSpec({"map": c}, {"map": (h, w)}, embedding_dim, num_classes)


def outputs(*, logits: Tensor | None = None, embedding: Tensor | None = None, feature: Tensor | None = None) -> Outputs:
    nothing = torch.zeros(0)
    return Outputs(
        nothing if logits is None else logits,
        nothing if embedding is None else embedding,
        {} if feature is None else {"map": feature},
    )


def batch(indices: Tensor, targets: Tensor | None = None, **more: Any) -> Batch:
    """Return a batch of images with these positions; their class is 0 unless it is given."""
    targets = torch.zeros_like(indices) if targets is None else targets
    return Batch(torch.zeros(0), targets, indices, SampleRandom(0, len(indices)), **more)


def submodule_weights(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def grad(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad.clone()

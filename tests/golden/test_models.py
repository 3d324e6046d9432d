"""Compare every network of the golden folder with ours: checkpoint layout, size and numbers."""

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.models.facts import measure_model
from harness.models.taps import ConvNet
from harness.models.zoo import build_model
from tests.support.golden_weights import GOLDEN, fill

INDEX = GOLDEN / "models" / "models.json"
MODELS: dict[str, Any] = json.loads(INDEX.read_text())["models"] if INDEX.is_file() else {}
RTOL = {torch.float32: 2e-5, torch.float64: 1e-10}

pytestmark = [
    pytest.mark.skipif(not MODELS, reason=f"no golden models at {INDEX} (set KD_GOLDEN)"),
    pytest.mark.parametrize("name", MODELS, scope="module"),  # a network's tests are neighbours and share `filled`
]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def zoo_model(name: str) -> ConvNet:
    return build_model(name, MODELS[name]["num_classes"])


def without_weights(name: str) -> ConvNet:
    """Return a network whose tensors have shapes but no storage."""
    with torch.device("meta"):
        return zoo_model(name)


@pytest.fixture(scope="module")
def filled(name: str) -> ConvNet:
    """Return a network with the golden formula's weights, which no test changes."""
    if "golden" not in MODELS[name]:
        pytest.skip("the golden folder has no numbers for this model")
    model = zoo_model(name).eval()
    fill(model)
    return model


def reference_taps(model: ConvNet, preact: bool) -> list[str]:
    """Return our names of the reference's features except the pooled one; its stem has no pre-activation."""
    maps = [name for name in model.tap_names if "." not in name]
    return [f"{name}.preact" if preact and name != "stem" else name for name in maps]


def test_checkpoint_layout(name):
    state = without_weights(name).state_dict()
    ours = [[k, list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in state.items()]
    assert ours == MODELS[name]["state_dict"]


def test_counts(name):
    golden, model = MODELS[name], without_weights(name)
    assert len(list(model.parameters())) == golden["param_tensors"]
    assert len(list(model.buffers())) == golden["buffer_tensors"]
    assert sum(b.numel() for b in model.buffers()) == golden["buffer_numel"]
    facts = measure_model(name)
    assert facts.params == golden["param_count"]
    assert facts.macs == golden["macs_1x3x32x32"]


def test_feature_shapes(name):
    golden, model = MODELS[name], without_weights(name).eval()
    with torch.no_grad():
        outputs = model(torch.empty(1, 3, 32, 32, device="meta"), model.tap_names)
    assert list(outputs.features) == sorted(outputs.features, key=model.tap_names.index), "maps come in tap order"
    for key, preact in (("feat_shapes", False), ("preact_feat_shapes", True)):
        maps = [outputs.features[tap] for tap in reference_taps(model, preact)]
        assert [list(m.shape) for m in (*maps, outputs.embedding)] == golden[key]
    assert list(outputs.logits.shape) == golden["logit_shape"]


def test_fill_checksum(name, filled):
    golden = MODELS[name]["golden"]["fill_checksum"]
    tensors = [t.double() for t in filled.state_dict().values() if t.is_floating_point()]
    assert math.isclose(sum(t.sum().item() for t in tensors), golden["sum"], rel_tol=1e-12)
    assert math.isclose(math.sqrt(sum((t * t).sum().item() for t in tensors)), golden["l2"], rel_tol=1e-12)


def assert_same_statistics(label: str, got: Tensor, golden: dict[str, Any], rtol: float) -> None:
    assert list(got.shape) == golden["shape"], label
    values = got.double()
    for key, value in (("mean", values.mean().item()), ("std", values.std(correction=0).item())):
        assert abs(value - golden[key]) <= rtol * golden["std"], f"{key} of {label}: {value}, golden {golden[key]}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_numbers(name, dtype, filled):
    golden, bits = MODELS[name]["golden"], "f32" if dtype is torch.float32 else "f64"
    model = copy.deepcopy(filled).to(dtype)
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)).to(dtype)
    with torch.no_grad():
        outputs = model(images, model.tap_names)
    logits = torch.tensor(golden[f"logits_{bits}"], dtype=torch.float64)
    assert (outputs.logits.double() - logits).abs().max() <= RTOL[dtype] * logits.abs().max()
    for key, preact in (("feats", False), ("preact_feats", True)):
        if f"{key}_{bits}" in golden:
            maps = [*(outputs.features[tap] for tap in reference_taps(model, preact)), outputs.embedding]
            for i, (got, expected) in enumerate(zip(maps, golden[f"{key}_{bits}"], strict=True)):
                assert_same_statistics(f"{key}[{i}]", got, expected, RTOL[dtype])

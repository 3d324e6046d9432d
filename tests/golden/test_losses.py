"""Every loss case of the golden folder, through our methods: losses, gradients, outputs and state."""

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.base import Batch, Outputs, SampleRandom, TapSpec
from methods.crd import CRD, nce_loss, row_scores
from methods.fitnets import FitNets
from methods.kd import KD
from tests.golden.filling import GOLDEN

Arrays = dict[str, Tensor]
Case = dict[str, Any]


def spec(feature: Tensor | None = None, embedding_dim: int = 1, num_classes: int = 1) -> TapSpec:
    """One tap, named "map", shaped like `feature`."""
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


def batch(indices: Tensor) -> Batch:
    return Batch(torch.zeros(0), torch.zeros_like(indices), indices, SampleRandom(0, len(indices)))


def submodule_weights(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def grad(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad.clone()


class GivenRows(CRD):
    """CRD with the case's rows in place of its own draw."""

    rows: Tensor

    def contrast_rows(self, batch: Batch) -> Tensor:
        return self.rows


def kd(case: Case, arrays: Arrays) -> Arrays:
    method = KD(spec(), spec(), temperature=case["hyper"]["T"])
    logits = arrays["logit_s"].requires_grad_()
    loss = method(batch(torch.arange(len(logits))), outputs(logits=logits), outputs(logits=arrays["logit_t"]))["kd"]
    loss.backward()
    return {"loss": loss, "grad_logit_s": grad(logits)}


def fitnet(case: Case, arrays: Arrays) -> Arrays:
    f_s, f_t = arrays["f_s"].requires_grad_(), arrays["f_t"]
    method = FitNets(spec(f_s), spec(f_t), tap="map").to(f_s.dtype)
    regressor = method.regressor
    regressor.load_state_dict(submodule_weights(arrays, "reg."), strict=False)  # the step counter is not given

    def run(method: FitNets) -> Tensor:
        return method(batch(torch.arange(len(f_s))), outputs(feature=f_s), outputs(feature=f_t))["hint"]

    got = {"loss_evalmode": run(copy.deepcopy(method).eval()), "reg_out": copy.deepcopy(regressor)(f_s)}
    got["loss"] = run(method)
    got["loss"].backward()
    got |= {f"after_reg.{name}": value for name, value in regressor.named_buffers()}
    got |= {f"grad_reg.{name}": grad(value) for name, value in regressor.named_parameters()}
    return got | {"grad_f_s": grad(f_s)}


def crd(case: Case, arrays: Arrays) -> Arrays:
    hyper = case["hyper"]
    # The reference keeps both in a float32 buffer.
    temperature, momentum = float(np.float32(hyper["nce_t"])), float(np.float32(hyper["nce_m"]))
    method = GivenRows(
        spec(embedding_dim=arrays["f_s_call1"].shape[1]),
        spec(embedding_dim=arrays["f_t_call1"].shape[1]),
        feat_dim=hyper["feat_dim"],
        negatives=hyper["nce_k"],
        temperature=temperature,
        momentum=momentum,
        mode=hyper["mode"],
    ).double()
    method.setup(torch.arange(hyper["n_data"]) % 2)
    method.embed_s.load_state_dict(submodule_weights(arrays, "embed_s."))
    method.embed_t.load_state_dict(submodule_weights(arrays, "embed_t."))
    method.bank_s.copy_(arrays["memory_v1_before"])
    method.bank_t.copy_(arrays["memory_v2_before"])

    got = {"T_effective": torch.tensor(temperature), "momentum_effective": torch.tensor(momentum)}
    for call in ("call1", "call2"):
        f_s, f_t, rows = arrays[f"f_s_{call}"].requires_grad_(), arrays[f"f_t_{call}"], arrays[f"contrast_idx_{call}"]
        method.rows = rows
        bank_s, bank_t = method.bank_s.clone(), method.bank_t.clone()
        method.zero_grad()
        loss = method(batch(arrays[f"idx_{call}"]), outputs(embedding=f_s), outputs(embedding=f_t))["crd"]
        loss.backward()

        log_h_s = row_scores(method.embed_s(f_s), bank_t, rows) / temperature - method.log_z[0]
        log_h_t = row_scores(method.embed_t(f_t), bank_s, rows) / temperature - method.log_z[1]
        z_s, z_t = method.log_z.exp()
        got |= {
            f"loss_{call}": loss,
            f"loss_s_{call}": nce_loss(log_h_s, len(bank_s)),
            f"loss_t_{call}": nce_loss(log_h_t, len(bank_s)),
            f"out_s_{call}": log_h_s.exp(),
            f"out_t_{call}": log_h_t.exp(),
            f"memory_v1_after_{call}": method.bank_s.clone(),
            f"memory_v2_after_{call}": method.bank_t.clone(),
            f"Z_v1_{call}": z_s,
            f"Z_v2_{call}": z_t,
            f"grad_f_s_{call}": grad(f_s),
        }
        got |= {f"grad_{name}_{call}": grad(value) for name, value in method.named_parameters()}
    return got | {"loss": got["loss_call1"]}


# What a case's `method` says -> a function from the case and its arrays to our values of everything it lists.
ADAPTERS: dict[str, Callable[[Case, Arrays], Arrays]] = {"KD": kd, "FitNet": fitnet, "CRD": crd}

INDEX = GOLDEN / "losses" / "cases.json"
CASES: list[Case] = json.loads(INDEX.read_text())["cases"] if INDEX.is_file() else []


def kind(name: str, role: str) -> str:
    """Which of the case's tolerances an array has."""
    return "grad" if role == "grad" else "loss" if name.startswith("loss") else "state"


@pytest.mark.skipif(not CASES, reason=f"no golden losses at {INDEX} (set KD_GOLDEN)")
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_matches_the_reference(case: Case) -> None:
    adapter = ADAPTERS.get(case["method"])
    if adapter is None:
        pytest.skip("method not implemented yet")
    with np.load(GOLDEN / "losses" / case["file"]) as file:
        arrays = {name: torch.from_numpy(np.array(value)) for name, value in file.items()}
    roles = {name: about["role"] for name, about in case["arrays"].items()}
    expected = {name: arrays[name] for name, role in roles.items() if role not in ("input", "weight")}

    got = adapter(case, {name: arrays[name].clone() for name, role in roles.items() if role in ("input", "weight")})

    assert got.keys() == expected.keys()
    for name, reference in expected.items():
        tolerance = case["tolerance"][kind(name, roles[name])]
        value, reference = got[name].detach().double(), reference.double()
        assert value.shape == reference.shape, name
        allowed = tolerance["atol"] + tolerance["rtol"] * reference.abs().max()
        error = (value - reference).abs().max()
        assert error <= allowed, f"{name}: off by {error:.3g}, {allowed:.3g} allowed"

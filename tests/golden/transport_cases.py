"""Our values of the golden cases of wkd_l and wkd_f.

``EFFECTS`` are the losses of cases as the authors' code has them and by another reading, in docs/methods.md.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from methods.base import Batch, Head, TapSpec
from methods.class_similarity import linear_cka
from methods.wkd_f import WKDF
from methods.wkd_l import WKDL
from tests.golden.cases import (
    Adapter,
    Arrays,
    Case,
    batch,
    find_case,
    grad,
    outputs,
    spec,
    submodule_weights,
)


def wkd_l(case: Case, arrays: Arrays, **changes: Any) -> Arrays:
    logits, hyper = arrays["logit_s"].requires_grad_(), case["hyper"]
    head = Head("map", arrays["fc_t.weight"], torch.zeros(0)) if hyper["cost"] == "fc" else None
    teacher = TapSpec({"map": 1}, {"map": (1, 1)}, 1, logits.shape[1], head)
    settings: dict[str, Any] = {
        "temperature": hyper["T"],
        "cost": hyper["cost"],
        "sharpen": hyper["sharpen"],
        "regularisation": hyper["sinkhorn_lambda"],
        "iterations": hyper["sinkhorn_iter"],
        "decay_start": hyper["decay_epoch"],
        "decay_end": hyper["epochs"],
    }
    method = WKDL(spec(), teacher, **settings | changes).double()
    if method.teacher_pass:
        method.use_teacher_pass(linear_cka(list(arrays["class_features"])))
    targets = arrays["target"]
    if targets.ndim == 2:  # the shares of mixed images
        targets = targets.argmax(1)
    student, teacher_outputs = outputs(logits=logits), outputs(logits=arrays["logit_t"])
    now, undecayed = batches(case, targets)
    terms, plain = method(now, student, teacher_outputs), method(undecayed, student, teacher_outputs)
    loss = terms["target"] + hyper["weight"] * terms["transport"]
    loss.backward()
    got = {"loss": loss, "cost": method.distance, "loss_t": terms["target"], "loss_wkd": plain["transport"]}
    return got | {"weight_now": hyper["weight"] * decay(now, case), "grad_logit_s": grad(logits)}


def wkd_f(case: Case, arrays: Arrays, **changes: Any) -> Arrays:
    f_s, f_t, hyper = arrays["f_s"].requires_grad_(), arrays["f_t"], case["hyper"]
    settings: dict[str, Any] = {
        "grid": hyper["grid"], "eps": hyper["eps"], "decay_start": hyper["decay_epoch"], "decay_end": hyper["epochs"]
    }  # fmt: skip
    method = WKDF(spec(f_s), spec(f_t), tap="map", **settings | changes).double()
    weights = submodule_weights(arrays, "conv_reg.")
    assert not method.connector.load_state_dict(weights, strict=False).unexpected_keys
    student, teacher = outputs(feature=f_s), outputs(feature=f_t)
    now, undecayed = batches(case, torch.zeros(len(f_s)))
    plain = copy.deepcopy(method)(undecayed, student, teacher)
    terms = method(now, student, teacher)
    loss = hyper["weight"] * (hyper["mean_cov_ratio"] * terms["mean"] + terms["deviation"])
    loss.backward()
    got = {"loss": loss, "loss_mean": plain["mean"], "loss_cov": plain["deviation"], "grad_f_s": grad(f_s)}
    got["weight_now"] = hyper["weight"] * decay(now, case)
    got |= {f"grad_conv_reg.{name}": grad(value) for name, value in method.connector.named_parameters()}
    return got | {f"after_conv_reg.{name}": value for name, value in method.connector.named_buffers()}


def batches(case: Case, targets: Tensor) -> tuple[Batch, Batch]:
    """Return the case's batch in its epoch, and before any decay."""
    indices = torch.arange(len(targets))
    return batch(indices, targets, epoch=case["hyper"]["epoch"]), batch(indices, targets)


def decay(now: Batch, case: Case) -> Tensor:
    return torch.tensor(now.cosine_decay(case["hyper"]["decay_epoch"], case["hyper"]["epochs"]), dtype=torch.float64)


ADAPTERS: dict[str, Adapter] = {"WKD-L": wkd_l, "WKD-F": wkd_f}


def effect(adapter: Callable[..., Arrays], case_id: str, **changes: Any) -> tuple[float, float]:
    """Return a case's loss as the code has it, and with other settings of the method."""
    settings: tuple[dict[str, Any], ...] = ({}, changes)
    as_coded, otherwise = (adapter(*find_case(case_id), **more)["loss"].item() for more in settings)
    return as_coded, otherwise


EFFECTS: dict[str, Callable[[], tuple[float, float]]] = {
    "wkd_l": lambda: effect(wkd_l, "WKD-L_c2", iterations=2000),
    "wkd_l-decay": lambda: effect(wkd_l, "WKD-L_c2", decay_start=240),
    "wkd_f": lambda: effect(wkd_f, "WKD-F_c2", reading="paper"),
    "wkd_f-decay": lambda: effect(wkd_f, "WKD-F_c2", decay_start=240),
}

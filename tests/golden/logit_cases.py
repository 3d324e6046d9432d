"""Our values of the golden cases of mlkd, lskd, ctkd and tekap_l."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, SampleRandom
from methods.ctkd import CTKD
from methods.dkd import decoupled_losses
from methods.lskd import LSKD, StandardisedMLKD, standardise
from methods.mlkd import MLKD
from methods.tekap_l import TeKAPL
from tests.golden.cases import (
    Adapter,
    Arrays,
    Case,
    batch,
    find_case,
    grad,
    outputs,
    spec,
)  # fmt: skip


def as_float64(numbers: float | list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def of_logits(arrays: Arrays, **more: float) -> tuple[Batch, Outputs, Outputs]:
    """Return a case's batch and the outputs of both models."""
    indices = torch.arange(len(arrays["logit_s"]))
    given = batch(indices, arrays.get("target"), **more)
    return given, outputs(logits=arrays["logit_s"].requires_grad_()), outputs(logits=arrays["logit_t"])


def of_views(arrays: Arrays) -> tuple[Batch, Outputs, Outputs]:
    """Return a case's batch and the outputs of both models for both views."""
    for name in ("logit_s_weak", "logit_s_strong"):
        arrays[name].requires_grad_()
    student, teacher = (outputs(logits=arrays[f"logit_{who}_weak"]) for who in ("s", "t"))
    student.views, teacher.views = ({"strong": outputs(logits=arrays[f"logit_{who}_strong"])} for who in ("s", "t"))
    return batch(torch.arange(len(arrays["target"])), arrays["target"]), student, teacher


def mlkd(case: Case, arrays: Arrays) -> Arrays:
    hyper = case["hyper"]
    method = MLKD(spec(), spec(), temperature=hyper["T"])
    return multi_level(case, arrays, method, method)


def lskd_mlkd(case: Case, arrays: Arrays) -> Arrays:
    hyper = case["hyper"]
    if not hyper["logit_stand"]:
        return mlkd(case, arrays)
    method = LSKD(spec(), spec(), base="mlkd", temperature=hyper["T"])
    assert isinstance(method.method, StandardisedMLKD)
    return multi_level(case, arrays, method, method.method)


def multi_level(case: Case, arrays: Arrays, method: Distiller, levels: MLKD) -> Arrays:
    """Return the values of a method whose terms ``levels`` computes; both methods' losses are weighted alike."""
    hyper = case["hyper"]
    levels.temperatures = as_float64([hyper["T"], *hyper["further_T"]])
    given, student, teacher = of_views(arrays)
    parts, terms = levels(given, student, teacher), method(given, student, teacher)
    loss = hyper["kd_weight"] * torch.stack([terms[name] for name in method.weights if name != "ce"]).sum()
    loss.backward()
    p = arrays["logit_t_weak"].softmax(1)
    got = {"loss": loss, "loss_ce": hyper["ce_weight"] * terms["ce"]}
    got |= {f"loss_{name}": hyper["kd_weight"] * parts[name] for name in ("kd", "cc", "bc")}
    got |= {"confidence_median": p.amax(1).quantile(0.5), "class_confidence_median": p.sum(0).quantile(0.5)}
    return got | {f"grad_{name}": grad(arrays[name]) for name in ("logit_s_weak", "logit_s_strong")}


def lskd(case: Case, arrays: Arrays) -> Arrays:
    hyper = case["hyper"]
    factors = {name: hyper[name] for name in ("alpha", "beta") if name in hyper}
    method = LSKD(spec(), spec(), base=hyper["base"], temperature=hyper["T"], **factors)
    given, student, teacher = of_logits(arrays)
    loss = method(given, student, teacher)["ls"]
    loss.backward()
    got = {"loss": loss, "grad_logit_s": grad(student.logits)}
    if hyper["base"] == "dkd":
        logits = (standardise(x.logits, 1) for x in (student, teacher))
        got |= dict(zip(("tckd", "nckd"), decoupled_losses(*logits, given.targets, hyper["T"]), strict=True))
    return got


def curriculum(case: Case, arrays: Arrays) -> CTKD:
    hyper = case["hyper"]
    method = CTKD(
        spec(), spec(), lowest_temperature=hyper["t_start"], temperature_range=hyper["t_end"],
        reversal_start=-hyper["decay_max"], reversal=-hyper["decay_min"], reversal_epochs=hyper["decay_loops"],
    )  # fmt: skip
    method.g.data = arrays["global_T"][0].clone()
    return method


def ctkd(case: Case, arrays: Arrays) -> Arrays:
    method = curriculum(case, arrays)
    if "epoch" not in case["hyper"]:
        return ctkd_trajectory(case, arrays, method)
    given, student, teacher = of_logits(arrays, epoch=case["hyper"]["epoch"])
    terms = method(given, student, teacher)
    terms["kd"].backward()
    got = {"loss": terms["kd"], "temperature": terms["temperature"], "grad_logit_s": grad(student.logits)}
    return got | {"grad_global_T": grad(method.g)[None], "lambda": as_float64(method.gradient_factor(given))}


def ctkd_trajectory(case: Case, arrays: Arrays, method: CTKD) -> Arrays:
    """Return the values of training that takes one step an epoch."""
    hyper, weight = case["hyper"], arrays["student.weight"].requires_grad_()
    settings = {name: hyper[name] for name in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD([weight, *method.parameters()], **settings)
    epochs: list[Arrays] = []
    for epoch, (images, targets) in enumerate(zip(arrays["images"], arrays["targets"], strict=True), 1):
        given = batch(torch.arange(len(images)), targets, epoch=epoch)
        student, teacher = outputs(logits=images @ weight.mT), outputs(logits=images @ arrays["teacher.weight"].mT)
        terms = method(given, student, teacher)
        ce, factor = given.cross_entropy(student.logits), as_float64(method.gradient_factor(given))
        loss = hyper["gamma"] * ce + hyper["alpha"] * terms["kd"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        got = {"loss": loss, "losses_cls": ce, "losses_div": terms["kd"], "temperature": terms["temperature"]}
        after = {"after_student.weight": weight.clone(), "after_global_T": method.g[None].clone()}
        epochs.append({**got, "lambda": factor, **after})
    stacked = {name: torch.stack([of_epoch[name] for of_epoch in epochs]) for name in epochs[0]}
    return stacked | {"loss": stacked["loss"].mean()}


class GivenNoise(SampleRandom):
    """A case's draws (batch, copies, classes) instead of random ones."""

    def __init__(self, noise: Tensor):
        self.noise = noise

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        assert self.noise.shape[1:] == shape and self.noise.dtype is dtype
        return self.noise


def tekap_l(case: Case, arrays: Arrays) -> Arrays:
    student, loss = perturbed(case, arrays, "code")
    loss.backward()
    return {"loss": loss, "grad_logit_s": grad(student.logits)}


def perturbed(case: Case, arrays: Arrays, reading: str) -> tuple[Outputs, Tensor]:
    hyper = case["hyper"]
    method = TeKAPL(
        spec(), spec(), temperature=hyper["T"], copies=hyper["views"], noise=hyper["noise_weight"],
        copy_weight=hyper["view_weight"], reading=reading,
    )  # fmt: skip
    given, student, teacher = of_logits(arrays)
    noise = torch.stack([arrays[f"noise_logit_{i}"] for i in range(1, hyper["views"] + 1)], 1)
    return student, method(replace(given, random=GivenNoise(noise)), student, teacher)["kd"]


ADAPTERS: dict[str, Adapter] = {
    "MLKD": mlkd, "LSKD_MLKD": lskd_mlkd, "LSKD": lskd, "CTKD": ctkd, "TeKAP-L": tekap_l
}  # fmt: skip


# The effect of a reading on a case


def loss_of_levels(masks: str, strong: str) -> float:
    """Return the loss of MLKD_c1 with a reading of the masks and of the strong view; cross-entropy left out."""
    case, arrays = find_case("MLKD_c1")
    of_masks, method = (MLKD(spec(), spec(), temperature=case["hyper"]["T"], reading=r) for r in (masks, strong))
    method.masks = of_masks.masks
    terms = method(*of_views(arrays))
    return float(case["hyper"]["kd_weight"] * (terms["kd"] + terms["cc"] + terms["bc"]).detach())


def loss_of_standardised(reading: str) -> float:
    """Return the loss of LSKD_c1 with a reading."""
    case, arrays = find_case("LSKD_c1")
    method = LSKD(spec(), spec(), temperature=case["hyper"]["T"], reading=reading)
    return float(method(*of_logits(arrays))["ls"].detach())


def loss_of_curriculum(g: float | None) -> float:
    """Return the loss of CTKD_c1 at its own number before the sigmoid or another one; -40 is T = 1."""
    case, arrays = find_case("CTKD_c1")
    method = curriculum(case, arrays)
    if g is not None:
        method.g.data.fill_(g)
    return float(method(*of_logits(arrays))["kd"].detach())


def loss_of_perturbed(reading: str) -> float:
    """Return the loss of TeKAP-L_c1 with a reading."""
    return float(perturbed(*find_case("TeKAP-L_c1"), reading)[1].detach())


def of_readings(loss: Callable[[str], float]) -> Callable[[], tuple[float, float]]:
    return lambda: (loss("code"), loss("paper"))


# A row of the table of docs/methods.md -> the loss as the code has it, and by the other reading.
EFFECTS: dict[str, Callable[[], tuple[float, float]]] = {
    "mlkd-masks": lambda: (loss_of_levels("code", "code"), loss_of_levels("paper", "code")),
    "mlkd-strong": lambda: (loss_of_levels("code", "code"), loss_of_levels("code", "paper")),
    "lskd": of_readings(loss_of_standardised),
    "ctkd": lambda: (loss_of_curriculum(None), loss_of_curriculum(-40.0)),
    "tekap_l": of_readings(loss_of_perturbed),
}

"""Our values of the golden cases of rld, ttm, wttm, nkd and ofa.

``EFFECTS`` has, for each line of the table of what code does and papers do not say, a case's loss by the code and by
the other reading.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical

from methods.base import Distiller, TapSpec
from methods.dkd import split
from methods.nkd import NKD
from methods.ofa import OFA, class_weights
from methods.rld import RLD
from methods.ttm import TTM
from methods.wttm import WTTM
from tests.golden.cases import Adapter, Arrays, Case, batch, find_case, grad, outputs, spec

STAGES = 4


def terms_of(method: Distiller, arrays: Arrays, **more: float) -> Arrays:
    """Return a method's terms for a case's logits; those of the student get a gradient."""
    logits = arrays["logit_s"].requires_grad_()
    given = batch(torch.arange(len(logits)), arrays.get("target"), **more)
    return method(given, outputs(logits=logits), outputs(logits=arrays["logit_t"]))


def standardised(logits: Tensor) -> Tensor:
    """Return logits as the authors' option makes them, of mean 0 and standard deviation 1 over the classes."""
    return (logits - logits.mean(1, keepdim=True)) / (1e-7 + logits.std(1, keepdim=True))


def rld(case: Case, arrays: Arrays) -> Arrays:
    hyper, logits = case["hyper"], arrays["logit_s"].requires_grad_()
    seen = {"logit_s": logits, "logit_t": arrays["logit_t"]}
    if hyper.get("logit_stand"):
        seen = {name: standardised(value) for name, value in seen.items()}

    def terms(**warm_up: float) -> Arrays:
        method = RLD(spec(), spec(), temperature=hyper["T"], confidence_temperature=hyper["alpha_T"], **warm_up)
        given = batch(torch.arange(len(logits)), arrays["target"], epoch=hyper["epoch"])
        return method(given, outputs(logits=seen["logit_s"]), outputs(logits=seen["logit_t"]))

    warming = terms(warmup=hyper["warmup"])
    loss = hyper["alpha"] * warming["scd"] + hyper["beta"] * warming["mcd"]
    loss.backward()
    return {"loss": loss, "grad_logit_s": grad(logits)} | terms(warmup=0)


def ttm(case: Case, arrays: Arrays) -> Arrays:
    loss = terms_of(TTM(spec(), spec(), power=case["hyper"]["l"]), arrays)["match"]
    loss.backward()
    return {"loss": loss, "grad_logit_s": grad(arrays["logit_s"])}


def wttm(case: Case, arrays: Arrays) -> Arrays:
    loss = terms_of(WTTM(spec(), spec(), power=case["hyper"]["l"]), arrays)["match"]
    loss.backward()
    return {"loss": loss, "grad_logit_s": grad(arrays["logit_s"])}


def nkd(case: Case, arrays: Arrays) -> Arrays:
    terms = terms_of(NKD(spec(), spec(), temperature=case["hyper"]["temp"]), arrays)
    others = case["hyper"]["gamma"] * terms["others"]
    loss = terms["target"] + others
    loss.backward()
    return {"loss": loss, "loss_t": terms["target"], "loss_non": others, "grad_logit_s": grad(arrays["logit_s"])}


def ofa(case: Case, arrays: Arrays) -> Arrays:
    stages = case["hyper"].get("stages", [])
    method, logits = ofa_method(case, arrays), arrays["logit_s"].requires_grad_()
    maps = {i: arrays[f"f_s_{i}"].requires_grad_() for i in stages}
    student = outputs(logits=logits)
    student.features = {f"stage{i}": value for i, value in maps.items()} or {"stage4": logits[:, :1, None, None]}
    own_heads = copy.deepcopy(method.heads)
    heads = {i: own(value) for own, (i, value) in zip(own_heads, maps.items(), strict=bool(stages))}

    terms = method(batch(torch.arange(len(logits)), arrays["target"]), student, outputs(logits=arrays["logit_t"]))
    loss = terms["logits"] + terms["stages"] if stages else terms["logits"]
    loss.backward()
    got = {"loss": loss, "loss_kd": terms["logits"], "loss_ofa": terms["stages"], "grad_logit_s": grad(logits)}
    got |= {f"head_{i}": value for i, value in heads.items()} | {f"grad_f_s_{i}": grad(maps[i]) for i in stages}
    got |= {f"grad_{theirs(name, stages)}": grad(value) for name, value in method.named_parameters() if stages}
    got |= {f"after_{theirs(name, stages)}": value for name, value in method.named_buffers() if stages}
    return {name: got[name] for name, about in case["arrays"].items() if about["role"] not in ("input", "weight")}


def ofa_method(case: Case, arrays: Arrays) -> OFA:
    """Return the method of a case, with the weights of its heads; without stages, its head has no meaning."""
    hyper, classes = case["hyper"], arrays["logit_s"].shape[1]
    stages, exponents = hyper.get("stages", []), hyper["eps"]
    exponents = exponents if isinstance(exponents, list) else [exponents]
    weights = {name: value for name, value in arrays.items() if name.startswith("projector.")}
    width = max((value.shape[1] for value in weights.values() if value.ndim == 2), default=1)
    shapes = {f"stage{i}": arrays[f"f_s_{i}"].shape if i in stages else (1, 1, 1, 1) for i in range(1, STAGES + 1)}
    student = TapSpec(
        {tap: shape[1] for tap, shape in shapes.items()},
        {tap: (shape[2], shape[3]) for tap, shape in shapes.items()},
        width,
        classes,
    )
    method = OFA(
        student,
        spec(),
        taps=",".join(f"stage{i}" for i in stages) or "last",
        exponent=exponents[-1],
        stage_exponents=",".join(map(str, exponents[:-1])),
        temperature=hyper["T"],
    ).to(arrays["logit_s"].dtype)
    own = method.state_dict()
    assert not stages or {theirs(name, stages) for name in own if "num_batches" not in name} <= weights.keys()
    method.load_state_dict({name: weights.get(theirs(name, stages), value) for name, value in own.items()})
    return method


def theirs(name: str, stages: list[int]) -> str:
    """Return the authors' name of one of our tensors of heads."""
    _, head, layer, *rest = name.split(".")
    block = ["op", *rest] if len(rest) == 2 else rest
    return ".".join(["projector", str(stages[int(head)] if stages else 0), layer, *block])


ADAPTERS: dict[str, Adapter] = {"RLD": rld, "TTM": ttm, "WTTM": wttm, "NKD": nkd, "OFA": ofa}


def ofa_effect(exponent: float, has_label: bool) -> tuple[float, float]:
    """Return OFA_c1's loss with this exponent, and the paper's with the label's own cross-entropy or without."""
    _, arrays = find_case("OFA_c1")
    p_t, targets = arrays["logit_t"].softmax(1), arrays["target"]
    code, paper = (
        F.cross_entropy(arrays["logit_s"], class_weights(p_t, targets, exponent, reading)).item()
        for reading in ("code", "paper")
    )
    return code, paper if has_label else paper - F.cross_entropy(arrays["logit_s"], targets).item()


def ofa_exponent() -> tuple[float, float]:
    """Return OFA_c1's loss with exponent 1.5, and with it on the target alone, as in the paper."""
    return ofa_effect(1.5, has_label=False)


def ofa_label() -> tuple[float, float]:
    """Return OFA_c1's loss, and with the cross-entropy with the label that the paper has in every head."""
    return ofa_effect(1.0, has_label=True)


def rld_empty_rows() -> tuple[float, float]:
    """Return RLD_c2's loss, and with the mean over the four of its five rows that have classes below the target."""
    case, arrays = find_case("RLD_c2")
    got = rld(case, arrays)
    z_t = arrays["logit_t"]
    has_classes = (z_t < z_t.gather(1, arrays["target"][:, None])).any(1).double().mean()
    factor = case["hyper"]["epoch"] / case["hyper"]["warmup"]
    other = factor * (case["hyper"]["alpha"] * got["scd"] + case["hyper"]["beta"] * got["mcd"] / has_classes)
    return got["loss"].item(), other.item()


def nkd_divergence() -> tuple[float, float]:
    """Return NKD_c2's loss, and with the KL divergence over the other classes: without the teacher's entropy."""
    case, arrays = find_case("NKD_c2")
    _, others = split(arrays["logit_t"] / case["hyper"]["temp"], arrays["target"])
    entropy = case["hyper"]["gamma"] * case["hyper"]["temp"] ** 2 * Categorical(logits=others).entropy().mean()
    loss = nkd(case, arrays)["loss"]
    return loss.item(), (loss - entropy).item()


def nkd_all_classes() -> tuple[float, float]:
    """Return NKD_c2's loss, and with the softmax over all classes, as in the code of 2023-07-17 to 2023-10-10."""
    case, arrays = find_case("NKD_c2")
    got, temperature = nkd(case, arrays), case["hyper"]["temp"]
    every = F.cross_entropy(arrays["logit_s"].detach() / temperature, (arrays["logit_t"] / temperature).softmax(1))
    return got["loss"].item(), (got["loss_t"] + case["hyper"]["gamma"] * temperature**2 * every).item()


EFFECTS: dict[str, Callable[[], tuple[float, float]]] = {
    "ofa-exponent": ofa_exponent,
    "ofa-label": ofa_label,
    "rld-empty": rld_empty_rows,
    "nkd-divergence": nkd_divergence,
    "nkd-classes": nkd_all_classes,
}

"""Our values of the golden cases of catkd, srrl and ickd."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from methods.base import CAM, Distiller, Head, Outputs, TapSpec
from methods.catkd import CATKD
from methods.ickd import ICKD
from methods.srrl import SRRL
from tests.golden.cases import Adapter, Arrays, Case, batch, find_case, grad, outputs, spec
from tests.golden.cases import submodule_weights as under


def catkd(case: Case, arrays: Arrays) -> Arrays:
    hyper, cam_s = case["hyper"], arrays["cam_s"].requires_grad_()
    term = cam_term(case, arrays)
    loss = hyper["beta"] * term  # `onlyCAT` leaves out the cross-entropy, which is no part of the case
    loss.backward()
    return {"loss": loss, "loss_unweighted": term, "grad_cam_s": grad(cam_s)}


def cam_term(case: Case, arrays: Arrays, **settings: str) -> Tensor:
    hyper = case["hyper"]
    method = CATKD(
        with_cam(arrays["cam_s"]),
        with_cam(arrays["cam_t"]),
        resolution=hyper["resolution"],
        normalise=hyper["normalize"],
        binarise=hyper["binarize"],
        **settings,  # type: ignore[arg-type]
    )
    student, teacher = (Outputs(torch.zeros(0), torch.zeros(0), {CAM: arrays[who]}) for who in ("cam_s", "cam_t"))
    return method(batch(arrays["target"], arrays["target"]), student, teacher)["cam"]


def with_cam(cam: Tensor) -> TapSpec:
    _, classes, *size = cam.shape
    head = Head(CAM, torch.eye(classes), torch.zeros(classes))
    return TapSpec({CAM: classes}, {CAM: (size[0], size[1])}, classes, classes, head)


def srrl(case: Case, arrays: Arrays) -> Arrays:
    return run_srrl(arrays, "connector.Connectors.", "map", case["hyper"]["weight"])


def srrl_pooled(case: Case, arrays: Arrays) -> Arrays:
    return run_srrl(arrays, "connector.transfer.", "pooled", case["hyper"]["weight"])


def run_srrl(arrays: Arrays, prefix: str, connector: str, weight: float) -> Arrays:
    f_s, f_t = arrays["f_s"].requires_grad_(), arrays["f_t"]
    if f_t.ndim == 2:
        f_t = f_t[:, :, None, None]
    classifier = arrays["fc_t.weight"]
    logits = torch.zeros(len(f_s), len(classifier))  # the case has no term of them
    teacher = replace(spec(f_t, f_t.shape[1], len(classifier)), head=Head("map", classifier, arrays["fc_t.bias"]))
    if connector == "map":
        student, seen = spec(f_s), outputs(feature=f_s, logits=logits)
        student = replace(student, head=Head("map", torch.zeros(0), torch.zeros(0)))
    else:
        student, seen = spec(embedding_dim=f_s.shape[1]), outputs(embedding=f_s, logits=logits)
    method = SRRL(student, teacher, connector=connector).double()  # type: ignore[arg-type]
    method.connect.load_state_dict(under(arrays, prefix), strict=False)  # the step counters are not given
    terms = method(batch(torch.arange(len(f_s))), seen, outputs(feature=f_t, logits=logits))
    loss = terms["feature"] + weight * terms["regression"]
    loss.backward()
    got = {"loss": loss, "loss_stat": terms["feature"], "loss_sr": terms["regression"], "grad_f_s": grad(f_s)}
    return got | gradients_and_state(method, prefix, "connect.")


def gradients_and_state(method: Distiller, theirs: str, ours: str) -> Arrays:
    """Return the gradients of a method's parameters and its buffers after the step, by the reference's names."""
    parameters = {name.removeprefix(ours): p for name, p in method.named_parameters()}
    buffers = {name.removeprefix(ours): b for name, b in method.named_buffers() if name.startswith(ours)}
    return {f"grad_{theirs}{name}": grad(p) for name, p in parameters.items()} | {
        f"after_{theirs}{name}": b for name, b in buffers.items()
    }


def ickd(case: Case, arrays: Arrays) -> Arrays:
    f_s, f_t = arrays["f_s"].requires_grad_(), arrays["f_t"]
    prefix, numbers = "ickd.embed_s.", {"conv2d": "0", "l2norm": "1"}
    method = ICKD(spec(f_s), spec(f_t), tap="map").double()
    assert case["hyper"]["feat_dim"] == f_t.shape[1], "the width is the teacher's"
    for theirs, ours in numbers.items():
        method.embed.get_submodule(ours).load_state_dict(under(arrays, f"{prefix}{theirs}."), strict=False)
    logits = torch.zeros(len(f_s), 2)
    seen = outputs(feature=f_s, logits=logits), outputs(feature=f_t, logits=logits)
    loss = method(batch(torch.arange(len(f_s))), *seen)["correlation"]
    loss.backward()
    got = {"loss": loss, "grad_f_s": grad(f_s)}
    for theirs, ours in numbers.items():
        layer = method.embed.get_submodule(ours)
        got |= {f"grad_{prefix}{theirs}.{name}": grad(p) for name, p in layer.named_parameters()}
        got |= {f"after_{prefix}{theirs}.{name}": b for name, b in layer.named_buffers()}
    return got


ADAPTERS: dict[str, Adapter] = {"CAT-KD": catkd, "SRRL": srrl, "SRRL-pooled": srrl_pooled, "ICKD": ickd}


# What code and paper, or two codes, make of the same case: the loss by the code, and by the other reading.


def catkd_by_the_paper() -> tuple[float, float]:
    case, arrays = find_case("CAT-KD_c1")
    beta: float = case["hyper"]["beta"]
    return beta * cam_term(case, arrays).item(), beta * cam_term(case, arrays, reading="paper").item()


def srrl_pooled_first() -> tuple[float, float]:
    """Return the loss of a case with the connector before pooling, and after it."""
    case, arrays = find_case("SRRL_c1")
    pooled = {name: x.mean((2, 3)) if name in ("f_s", "f_t") else x.clone() for name, x in arrays.items()}
    prefix, weight = "connector.Connectors.", case["hyper"]["weight"]
    after, before = run_srrl(arrays, prefix, "map", weight), run_srrl(pooled, prefix, "pooled", weight)
    return after["loss"].item(), before["loss"].item()


def ickd_without_a_second_embedding() -> tuple[float, float]:
    """Return the authors' loss of a case and ours, which lacks the module that theirs never uses."""
    case, arrays = find_case("ICKD_c1")
    return case["loss"], ickd(case, arrays)["loss"].item()


EFFECTS: dict[str, Callable[[], tuple[float, float]]] = {
    "catkd": catkd_by_the_paper,
    "srrl": srrl_pooled_first,
    "ickd": ickd_without_a_second_embedding,
}

"""Our values of the golden cases of tekap_f, mgd and pkd."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, SampleRandom, TapSpec
from methods.crd import nce_loss
from methods.mgd import MGD
from methods.pkd import PKD
from methods.tekap_f import TeKAPF
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


class GivenNumbers(SampleRandom):
    """The case's random numbers instead of drawn ones."""

    def __init__(self, numbers: Tensor):
        super().__init__(0, len(numbers))
        self.numbers = numbers

    def _draw(self, draw: Callable[..., Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        assert self.numbers.shape[1:] == shape
        return self.numbers


class GivenRows(TeKAPF):
    """TeKAP-F with the case's rows instead of its own draw."""

    rows: Tensor

    def contrast_rows(self, batch: Batch) -> Tensor:
        return self.rows


def make_tekap_f(case: Case, arrays: Arrays) -> GivenRows:
    """Return the case's method before its step."""
    hyper, f_s, f_t = case["hyper"], arrays["f_s"], arrays["f_t"]
    method = GivenRows(
        spec(embedding_dim=f_s.shape[1]),
        spec(embedding_dim=f_t.shape[1]),
        feat_dim=hyper["feat_dim"],
        negatives=hyper["nce_k"],
        temperature=float(np.float32(hyper["nce_t"])),  # the reference keeps both in a float32 buffer
        momentum=float(np.float32(hyper["nce_m"])),
        noise=hyper.get("noise_weight", 0.1),
        noise_std=hyper.get("noise_std", 0.1),
    ).double()
    method.setup(torch.arange(hyper["n_data"]) % 2)
    for embed in ("embed_s", "embed_t"):
        getattr(method, embed).load_state_dict(submodule_weights(arrays, f"{embed}."))
    method.bank_s.copy_(arrays["memory_v1_before"])
    method.bank_t.copy_(arrays["memory_v2_before"])
    method.rows = arrays["contrast_idx"]
    return method


def tekap_f(case: Case, arrays: Arrays) -> Arrays:
    method, f_s, f_t = make_tekap_f(case, arrays), arrays["f_s"].requires_grad_(), arrays["f_t"]
    given = batch(arrays["idx"])
    given.random = GivenNumbers(arrays["noise"])
    loss = method(given, outputs(embedding=f_s), outputs(embedding=f_t))["crd"]
    loss.backward()

    bank_t = arrays["memory_v2_before"]
    scores = method.score(method.embed_s(f_s), bank_t, method.rows, given.indices) - method.log_z[0]
    loss_s, n = nce_loss(scores, len(bank_t)), len(bank_t)
    scores = method.score(method.embed_t(f_t), arrays["memory_v1_before"], method.rows, given.indices)
    loss_t = nce_loss(scores - method.log_z[1], n)
    z_s, z_t = method.log_z.exp()
    got = {
        "loss": loss,
        "loss_s": loss_s,
        "loss_t": loss_t,
        "loss_t_noisy": loss - 2 * loss_s - loss_t,
        "memory_v1_after": method.bank_s,
        "memory_v2_after": method.bank_t,
        "Z_v1": z_s,
        "Z_v2": z_t,
        "grad_f_s": grad(f_s),
    }
    return got | {f"grad_{name}": grad(value) for name, value in method.named_parameters()}


def make_mgd(case: Case, arrays: Arrays, mask: Literal["positions", "channels"]) -> MGD:
    """Return the case's method with this kind of mask."""
    method = MGD(spec(arrays["f_s"]), spec(arrays["f_t"]), taps="map", mask_ratio=case["hyper"]["lambda"], mask=mask)
    given = submodule_weights(arrays, "mgd.").items()
    assert not method.double().load_state_dict({ours(name): value for name, value in given}).missing_keys
    return method


def mgd(case: Case, arrays: Arrays) -> Arrays:
    hyper, f_s, f_t = case["hyper"], arrays["f_s"].requires_grad_(), arrays["f_t"]
    method = make_mgd(case, arrays, "channels" if hyper["variant"] == "cls" else "positions")
    given = submodule_weights(arrays, "mgd.")
    seen = batch(torch.arange(len(f_s)))
    seen.random = GivenNumbers(arrays["rand"])
    loss_dis = method(seen, outputs(feature=f_s), outputs(feature=f_t))["generation"]
    loss = hyper["alpha"] * loss_dis
    loss.backward()
    parameters = dict(method.named_parameters())
    got = {"loss": loss, "loss_dis": loss_dis, "mask": method.draw_mask(seen, f_t), "grad_f_s": grad(f_s)}
    return got | {f"grad_mgd.{name}": grad(parameters[ours(name)]) for name in given}


def ours(name: str) -> str:
    """Return our name of a tensor of MGD: modules are numbered by tap."""
    return name.replace("align.", "align.0.").replace("generation.", "generate.0.")


def pkd(case: Case, arrays: Arrays) -> Arrays:
    hyper = case["hyper"]
    levels = range(len(arrays) // 2)
    f_s, f_t = ([arrays[f"{whose}_{i}"] for i in levels] for whose in ("f_s", "f_t"))
    for f in f_s:
        f.requires_grad_()
    method = PKD(levels_of(f_s), levels_of(f_t), resize_student=hyper["resize_stu"])
    student, teacher = outputs(), outputs()
    student.features, teacher.features = ({f"stage{i}": f for i, f in enumerate(maps)} for maps in (f_s, f_t))
    loss = hyper["weight"] * method(batch(torch.arange(len(f_s[0]))), student, teacher)["correlation"]
    loss.backward()
    losses = torch.stack([hyper["weight"] * method.compare(s, t) for s, t in zip(f_s, f_t, strict=True)])
    return {"loss": loss, "losses": losses} | {f"grad_f_s_{i}": grad(f) for i, f in enumerate(f_s)}


def levels_of(maps: list[Tensor]) -> TapSpec:
    """Return the spec of a model with taps stage0, stage1, ... of these shapes."""
    shapes = {f"stage{i}": f.shape for i, f in enumerate(maps)}
    sizes = {tap: (shape[2], shape[3]) for tap, shape in shapes.items()}
    return TapSpec({tap: shape[1] for tap, shape in shapes.items()}, sizes, 1, 1)


def effect_of_counting_a_part_twice() -> tuple[float, float]:
    """The student's part of the second call, which the authors compute and do not use, in place of the first again."""
    case, arrays = find_case("TeKAP-F_c1")
    got = tekap_f(case, arrays)
    method, given = make_tekap_f(case, arrays), batch(arrays["idx"])
    v_s, v_t = method.embed_s(arrays["f_s"]), method.embed_t(arrays["f_t"])
    method.contrast(v_s, v_t, method.rows, given.indices)
    scores = method.score(v_s, method.bank_t, method.rows, given.indices) - method.log_z[0]
    second = nce_loss(scores, len(method.bank_t))
    return got["loss"].item(), (got["loss"] - got["loss_s"] + second).item()


def effect_of_larger_images() -> tuple[float, float]:
    """The same maps and masks, each position four times."""
    case, arrays = find_case("MGD_c1")
    arrays |= {name: F.interpolate(arrays[name], scale_factor=2.0) for name in ("f_s", "f_t", "rand")}
    return case["loss"], mgd(case, arrays)["loss"].item()


def effect_of_masking_positions() -> tuple[float, float]:
    """Random positions are hidden, as for detectors, instead of random channels."""
    case, arrays = find_case("MGD_c3_cls")
    method, f_s, f_t = make_mgd(case, arrays, "positions"), arrays["f_s"], arrays["f_t"]
    loss = method(batch(torch.arange(len(f_s))), outputs(feature=f_s), outputs(feature=f_t))["generation"]
    return case["loss"], (case["hyper"]["alpha"] * loss).item()


def effect_of_the_biased_mean() -> tuple[float, float]:
    """1 - r, without the factor (N - 1) / N and the 1e-6."""
    case, arrays = find_case("PKD_c1")
    other = 0.0
    for i in range(len(arrays) // 2):
        s, t = (arrays[f"{whose}_{i}"].transpose(0, 1).flatten(1) for whose in ("f_s", "f_t"))
        r = F.cosine_similarity(s - s.mean(1, keepdim=True), t - t.mean(1, keepdim=True), dim=1)
        other += (1 - r).mean().item()
    return case["loss"], case["hyper"]["weight"] * other


# A row of the table of readings -> (the case's loss as the code has it, its loss by the other reading)
EFFECTS: dict[str, Callable[[], tuple[float, float]]] = {
    "tekap_f": effect_of_counting_a_part_twice,
    "mgd-size": effect_of_larger_images,
    "mgd-mask": effect_of_masking_positions,
    "pkd": effect_of_the_biased_mean,
}
ADAPTERS: dict[str, Adapter] = {"TeKAP-F": tekap_f, "MGD": mgd, "PKD": pkd}

"""Our values of the golden cases of the methods up to DKD."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from methods.ab import AB, boundary_loss
from methods.at import AT, attention_loss
from methods.base import Batch, Distiller, Outputs, SampleRandom, TapSpec
from methods.cc import CC, correlation_loss
from methods.crd import CRD, nce_loss, row_scores
from methods.dkd import DKD
from methods.fitnets import FitNets
from methods.fsp import FSP, flows
from methods.ft import FT, factor_loss
from methods.kd import KD
from methods.kdsvd import KDSVD, right_vectors
from methods.nst import NST, discrepancy
from methods.ofd import OFD, partial_loss
from methods.pkt import PKT
from methods.reviewkd import ReviewKD, context_loss
from methods.rkd import RKD
from methods.sp import SP, similarity_loss
from methods.vid import VID, Gaussian
from tests.golden.cases import (
    Adapter,
    Arrays,
    Case,
    batch,
    grad,
    outputs,
    spec,
    submodule_weights,
)  # fmt: skip


class GivenRows(CRD):
    """CRD with the case's rows instead of its own draw."""

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

        log_h_s = row_scores(method.embed_s(f_s), bank_t, rows, rows[:0, 0]) / temperature - method.log_z[0]
        log_h_t = row_scores(method.embed_t(f_t), bank_s, rows, rows[:0, 0]) / temperature - method.log_z[1]
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


def layers(arrays: Arrays, name: str) -> list[Tensor]:
    """Return the arrays name_0, name_1, ... in order."""
    return [arrays[f"{name}_{i}"] for i in range(len(arrays)) if f"{name}_{i}" in arrays]


def stages(features: list[Tensor], suffix: str = "", embedding_dim: int = 1) -> TapSpec:
    """Return the spec of a model with taps stage1, stage2, ... and the same with `suffix`, shaped like `features`."""
    maps = {f"stage{i}{end}": f for i, f in enumerate(features, 1) for end in ("", suffix)}
    sizes = {name: (f.shape[2], f.shape[3]) for name, f in maps.items()}
    return TapSpec({name: f.shape[1] for name, f in maps.items()}, sizes, embedding_dim, 1)


def staged(features: list[Tensor], suffix: str = "", embedding: Tensor | None = None) -> Outputs:
    maps = {f"stage{i}{suffix}": f for i, f in enumerate(features, 1)}
    return Outputs(torch.zeros(0, dtype=features[0].dtype), torch.zeros(0) if embedding is None else embedding, maps)


def run_staged(method: Distiller, f_s: list[Tensor], f_t: list[Tensor], suffix: str = "") -> Tensor:
    """Compute a method's only term on maps, and its gradients."""
    (term,) = set(method.weights) - {"ce"}
    loss = method(batch(torch.arange(len(f_s[0]))), staged(f_s, suffix), staged(f_t, suffix))[term]
    loss.backward()
    return loss


def map_grads(f_s: list[Tensor]) -> Arrays:
    return {f"grad_f_s_{i}": grad(f) for i, f in enumerate(f_s)}


def map_case(arrays: Arrays) -> tuple[list[Tensor], list[Tensor]]:
    return [f.requires_grad_() for f in layers(arrays, "f_s")], layers(arrays, "f_t")


def at(case: Case, arrays: Arrays) -> Arrays:
    f_s, f_t = map_case(arrays)
    p = case["hyper"]["p"]
    loss = run_staged(AT(stages(f_s), stages(f_t), p=p), f_s, f_t)
    losses = torch.stack([attention_loss(s, t, p) for s, t in zip(f_s, f_t, strict=True)])
    return {"loss": loss, "losses": losses} | map_grads(f_s)


def sp(case: Case, arrays: Arrays) -> Arrays:
    f_s, f_t = map_case(arrays)
    loss = run_staged(SP(stages(f_s), stages(f_t), taps="stages"), f_s, f_t)
    losses = torch.stack([similarity_loss(s, t) for s, t in zip(f_s, f_t, strict=True)])
    return {"loss": loss, "losses": losses} | map_grads(f_s)


def nst(case: Case, arrays: Arrays) -> Arrays:
    f_s, f_t = map_case(arrays)
    loss = run_staged(NST(stages(f_s), stages(f_t)), f_s, f_t)
    losses = torch.stack([discrepancy(s, t) for s, t in zip(f_s, f_t, strict=True)])
    return {"loss": loss, "losses": losses} | map_grads(f_s)


def embeddings(method: Distiller, f_s: Tensor, f_t: Tensor) -> Arrays:
    return method(batch(torch.arange(len(f_s))), outputs(embedding=f_s), outputs(embedding=f_t))


def cc(case: Case, arrays: Arrays) -> Arrays:
    f_s, f_t = arrays["f_s"].requires_grad_(), arrays["f_t"]
    if "feat_dim" not in case["hyper"]:  # the loss of embeddings that are given
        loss = correlation_loss(f_s, f_t)
        loss.backward()
        return {"loss": loss, "grad_f_s": grad(f_s)}
    dims = (spec(embedding_dim=f.shape[1]) for f in (f_s, f_t))
    method = CC(*dims, feat_dim=case["hyper"]["feat_dim"]).double()
    method.embed_s.load_state_dict(submodule_weights(arrays, "embed_s.linear."))
    method.embed_t.load_state_dict(submodule_weights(arrays, "embed_t.linear."))
    loss = embeddings(method, f_s, f_t)["correlation"]
    loss.backward()
    grads = {f"grad_{name.replace('.', '.linear.')}": grad(value) for name, value in method.named_parameters()}
    return {"loss": loss, "grad_f_s": grad(f_s)} | grads


def rkd(case: Case, arrays: Arrays) -> Arrays:
    f_s, f_t = arrays["f_s"].requires_grad_(), arrays["f_t"]
    terms = embeddings(RKD(spec(), spec()), f_s.flatten(1), f_t.flatten(1))
    loss = case["hyper"]["w_d"] * terms["distance"] + case["hyper"]["w_a"] * terms["angle"]
    loss.backward()
    return {"loss": loss, "loss_d": terms["distance"], "loss_a": terms["angle"], "grad_f_s": grad(f_s)}


def pkt(case: Case, arrays: Arrays) -> Arrays:
    f_s, f_t = arrays["f_s"].requires_grad_(), arrays["f_t"]
    loss = embeddings(PKT(spec(), spec()), f_s, f_t)["transfer"]
    loss.backward()
    return {"loss": loss, "grad_f_s": grad(f_s)}


def dkd(case: Case, arrays: Arrays) -> Arrays:
    logits, targets, hyper = arrays["logit_s"].requires_grad_(), arrays["target"], case["hyper"]
    given = Batch(torch.zeros(0), targets, targets, SampleRandom(0, len(targets)))
    terms = DKD(spec(), spec(), temperature=hyper["T"])(
        given, outputs(logits=logits), outputs(logits=arrays["logit_t"])
    )
    loss = hyper["alpha"] * terms["tckd"] + hyper["beta"] * terms["nckd"]
    loss.backward()
    return {"loss": loss, "grad_logit_s": grad(logits)} | terms


def vid(case: Case, arrays: Arrays) -> Arrays:
    f_s, f_t, hyper = arrays["f_s"].requires_grad_(), arrays["f_t"], case["hyper"]
    method = VID(stages([f_s]), stages([f_t]), initial_variance=hyper["init_pred_var"]).double()
    if not hyper["log_scale"].startswith("perturbed"):
        gaussian = method.gaussians[0]
        assert isinstance(gaussian, Gaussian)
        assert torch.equal(gaussian.log_scale, arrays["vid.log_scale"])
    method.gaussians[0] = Gaussian(f_s.shape[1], hyper["num_mid_channel"], f_t.shape[1], 1.0).double()
    weights = submodule_weights(arrays, "vid.")
    method.gaussians[0].load_state_dict({name.replace("regressor", "mean"): value for name, value in weights.items()})
    loss = method(batch(torch.arange(len(f_s))), staged([f_s]), staged([f_t]))["information"]
    loss.backward()
    grads = {name: grad(value) for name, value in method.gaussians[0].named_parameters()}
    return {"loss": loss, "grad_f_s": grad(f_s)} | {
        f"grad_vid.{name.replace('mean', 'regressor')}": value for name, value in grads.items()
    }


class GivenMargin(nn.Module):
    """A method with the case's margin, which the authors take from a batch norm, instead of our running mean."""

    def __init__(self, margin: Tensor):
        super().__init__()
        self.margin = margin

    def forward(self, x: Tensor) -> Tensor:
        return self.margin.to(x)


def ofd(case: Case, arrays: Arrays) -> Arrays:
    f_s, f_t = map_case(arrays)
    method = OFD(
        stages(f_s, ".preact"), stages(f_t, ".preact"), kernel_size=case["hyper"]["connector_kernel_size"]
    ).double()
    given = [
        gaussian_margin(w, b) for w, b in zip(layers(arrays, "bn_weight_t"), layers(arrays, "bn_bias_t"), strict=True)
    ]
    method.margins = nn.ModuleList(GivenMargin(margin) for margin in given)
    weights = submodule_weights(arrays, "connectors.connectors.")
    method.connectors.load_state_dict(weights, strict=False)  # the step counters are not given
    apart = copy.deepcopy(method)
    partial = [
        partial_loss(apart.connectors[i](s), t, m.to(t))
        for i, (s, t, m) in enumerate(zip(f_s, f_t, given, strict=True))
    ]
    got = {"loss": run_staged(method, f_s, f_t, ".preact"), "layer_losses": torch.stack(partial)}
    got |= {f"margin_{i}": margin for i, margin in enumerate(given)}
    got |= {f"grad_connectors.{k}": grad(v) for k, v in method.named_parameters()}
    got |= {f"after_connectors.{k}": v for k, v in method.named_buffers() if k.startswith("connectors")}
    return got | map_grads(f_s)


def gaussian_margin(scale: Tensor, shift: Tensor) -> Tensor:
    """Return E[x | x < 0] of Gaussians with a batch norm's scale and shift, by the authors' rule, in float32."""
    s, m = scale.abs(), shift
    below = torch.special.ndtr(-m / s)
    mean = m - s * torch.exp(-((m / s) ** 2) / 2) / (2 * torch.pi) ** 0.5 / below
    return torch.where(below > 0.001, mean, -3 * s).float()


def reviewkd(case: Case, arrays: Arrays) -> Arrays:
    f_s, f_t = ([f.requires_grad_(who == "f_s") for f in layers(arrays, who)[1:]] for who in ("f_s", "f_t"))
    pooled_s, pooled_t = arrays["pooled_s"].requires_grad_(), arrays["pooled_t"]
    suffix = ".preact" if case["hyper"]["stu_preact"] else ""
    method = ReviewKD(
        stages(f_s, suffix, pooled_s.shape[1]),
        stages(f_t, ".preact", pooled_t.shape[1]),
        student_preact=case["hyper"]["stu_preact"],
    ).double()
    ours = {"conv1": "enter", "conv2": "leave", "att_conv.0": "attend"}
    count = len(method.fusions)

    def rename(theirs: str) -> str:
        """Return our name of a tensor; the reference's modules count from the deepest."""
        number, _, rest = theirs.removeprefix("abfs.").partition(".")
        for old, new in ours.items():
            rest = rest.replace(old, new)
        return f"fusions.{count - 1 - int(number)}.{rest}"

    weights = {rename(name): value for name, value in arrays.items() if name.startswith("abfs.")}
    assert not method.load_state_dict(weights, strict=False).unexpected_keys
    apart = copy.deepcopy(method)
    loss = method(batch(torch.arange(len(pooled_s))), staged(f_s, suffix, pooled_s), staged(f_t, ".preact", pooled_t))[
        "review"
    ]
    loss.backward()

    got, fused, losses = {"loss": loss, "grad_pooled_s": grad(pooled_s)}, None, []
    maps_s, maps_t = [*f_s, pooled_s[:, :, None, None]], [*f_t, pooled_t[:, :, None, None]]
    for i in range(count):
        deepest_first = count - 1 - i
        out, fused = apart.fusions[deepest_first](maps_s[deepest_first], fused, maps_t[deepest_first].shape[2:])
        got |= {f"abf_out_{i}": out, f"abf_res_{i}": fused}
        losses.append(context_loss(out, maps_t[deepest_first]))
    got["hcl_losses"] = torch.stack(losses[::-1])
    ours_by_theirs = {name: rename(name) for name in case["arrays"] if name.startswith("abfs.")}
    parameters, buffers = dict(method.named_parameters()), dict(method.named_buffers())
    got |= {f"grad_{k}": grad(parameters[v]) for k, v in ours_by_theirs.items() if v in parameters}
    after = [name.removeprefix("after_") for name in case["arrays"] if name.startswith("after_")]
    got |= {f"after_{name}": buffers[rename(name)] for name in after}
    return got | {f"grad_f_s_{i}": grad(f) for i, f in enumerate(f_s, 1)}


class GivenSigns(KDSVD):
    """KDSVD with the signs of the golden teacher vectors instead of those that our rule picks."""

    golden: list[Tensor]

    def orient(self, v: Tensor, m: Tensor) -> Tensor:
        return towards(v, self.golden.pop(0))


def towards(v: Tensor, golden: Tensor) -> Tensor:
    """Return v (B, C, k), each vector with the sign of its golden one."""
    return v * (v * golden).sum(1, keepdim=True).sign()


def kdsvd(case: Case, arrays: Arrays) -> Arrays:
    with np.load(case["folder"] / case["file"]) as file:
        golden = {name: torch.from_numpy(file[name]).double() for name in file if name.startswith(("v_t", "v_s"))}
    f_s, f_t = map_case({name: value.double() for name, value in arrays.items()})
    k = case["hyper"]["k"]
    method = GivenSigns(
        stages(f_s), stages(f_t), k=k, matrix="channels" if "(H*W) x C" in case["hyper"]["matrix"] else "columns"
    )
    method.golden = layers(golden, "v_t")
    got = {"loss": run_staged(method, f_s, f_t)}
    for i, (s, t) in enumerate(zip(f_s, f_t, strict=True)):
        m_s, m_t = method.matrices(s, t)
        (v_s, _), (v_t, s_t) = right_vectors(m_s, k + 3), right_vectors(m_t, k)
        # An SVD determines neither the student's signs nor the teacher's, so compare up to sign.
        got |= {
            f"v_s_{i}": towards(v_s, golden[f"v_s_{i}"]),
            f"v_t_{i}": towards(v_t, golden[f"v_t_{i}"]),
        }
        got[f"s_t_{i}"] = nn.functional.normalize(s_t)
    if "losses" in case["arrays"]:
        got["losses"] = torch.stack([run_pair(method, k, golden, f_s, f_t, i).detach() for i in range(len(f_s) - 1)])
    return got | map_grads(f_s)


def run_pair(method: KDSVD, k: int, golden: Arrays, f_s: list[Tensor], f_t: list[Tensor], i: int) -> Tensor:
    """Return the term of only the taps i and i + 1."""
    s, t = f_s[i : i + 2], f_t[i : i + 2]
    pair = GivenSigns(stages(s), stages(t), k=k, matrix=method.matrix)
    pair.golden = layers(golden, "v_t")[i : i + 2]
    return pair(batch(torch.arange(len(s[0]))), staged(s), staged(t))["svd"]


def fsp(case: Case, arrays: Arrays) -> Arrays:
    f_s, f_t = map_case(arrays)
    method = FSP(stages(f_s), stages(f_t), taps="stages")
    loss = method.first_terms(batch(torch.arange(len(f_s[0]))), staged(f_s), staged(f_t))["flow"]
    loss.backward()
    g_s, g_t = flows(f_s), flows(f_t)
    got = {f"fsp_s_{i}": g for i, g in enumerate(g_s)} | {f"fsp_t_{i}": g for i, g in enumerate(g_t)}
    losses = torch.stack([nn.functional.mse_loss(s, t) for s, t in zip(g_s, g_t, strict=True)])
    return {"loss": loss, "losses": losses} | got | map_grads(f_s)


def ab(case: Case, arrays: Arrays) -> Arrays:
    f_s, f_t = map_case(arrays)
    margin, weights = case["hyper"]["margin"], case["hyper"]["layer_weights"]
    method = AB(stages(f_s, ".preact"), stages(f_t, ".preact"), margin=margin).double()
    given = submodule_weights(arrays, "connector.connectors.")
    assert not method.connectors.load_state_dict(given, strict=False).unexpected_keys
    apart = copy.deepcopy(method)
    each = zip(weights, apart.connectors, f_s, f_t, strict=True)
    losses = torch.stack([w * boundary_loss(connect(s), t, margin) for w, connect, s, t in each])
    indices = torch.arange(len(f_s[0]))
    loss = method.first_terms(batch(indices), staged(f_s, ".preact"), staged(f_t, ".preact"))["boundary"]
    loss.backward()
    got = {"loss": loss, "losses": losses} | map_grads(f_s)
    got |= {f"grad_connector.{k}": grad(v) for k, v in method.named_parameters()}
    return got | {f"after_connector.{k}": v for k, v in method.named_buffers()}


def ft(case: Case, arrays: Arrays) -> Arrays:
    p1, p2 = case["hyper"]["p1"], case["hyper"]["p2"]
    if "factor_s" in arrays:  # the loss of factors that are given
        factor_s = arrays["factor_s"].requires_grad_()
        loss = factor_loss(factor_s, arrays["factor_t"], p1, p2)
        loss.backward()
        return {"loss": loss, "grad_factor_s": grad(factor_s)}
    f_s, f_t = arrays["f_s"].requires_grad_(), arrays["f_t"]
    method = FT(spec(f_s), spec(f_t), tap="map", k=case["hyper"]["k"], p1=p1, p2=p2).double()

    def ours(name: str) -> str:
        """Return our name of a tensor; the reference numbers an empty batch norm too."""
        whose, part, number, rest = name.split(".", 3)
        return f"translator.{number}.{rest}" if whose == "translator" else f"{part}.{int(number) // 3 * 2}.{rest}"

    given = {ours(name): value for name, value in arrays.items() if "." in name}
    assert not method.load_state_dict(given, strict=False).unexpected_keys
    seen = batch(torch.arange(len(f_s))), outputs(feature=f_s), outputs(feature=f_t)

    init_loss = method.first_terms(*seen)["reconstruction"]
    init_loss.backward()
    factor = method.encoder(f_t)
    parameters, buffers = dict(method.named_parameters()), dict(method.named_buffers())
    got = {"init_loss": init_loss, "init_factor": factor, "init_rec": method.decoder(factor), "factor_t": factor}
    got["factor_s"] = copy.deepcopy(method.translator)(f_s)
    named = {name.removeprefix("init_grad_") for name in case["arrays"] if name.startswith("init_grad_")}
    got |= {f"init_grad_{name}": grad(parameters[ours(f"paraphraser.{name}")]) for name in named}
    assert all(p.grad is None for name, p in parameters.items() if name.startswith("translator")) and f_s.grad is None

    method.zero_grad()
    got["loss"] = method(*seen)["factor"]
    got["loss"].backward()
    assert all(p.grad is None for name, p in parameters.items() if not name.startswith("translator"))
    got["grad_f_s"] = grad(f_s)
    names = [name.removeprefix("grad_") for name in case["arrays"] if name.startswith("grad_translator")]
    got |= {f"grad_{name}": grad(parameters[ours(name)]) for name in names}
    names = [name.removeprefix("after_") for name in case["arrays"] if name.startswith("after_")]
    return got | {f"after_{name}": buffers[ours(name)] for name in names}


# A case's `method` -> a function from the case and its arrays to our values of everything it lists.
ADAPTERS: dict[str, Adapter] = {
    "KD": kd,
    "FitNet": fitnet,
    "CRD": crd,
    "AT": at,
    "SP": sp,
    "CC": cc,
    "VID": vid,
    "RKD": rkd,
    "PKT": pkt,
    "NST": nst,
    "OFD": ofd,
    "ReviewKD": reviewkd,
    "DKD": dkd,
    "KDSVD": kdsvd,
    "FSP": fsp,
    "AB": ab,
    "FT": ft,
}

"""Our values of the golden cases of the optimiser dot, and the effect of what its authors' code does."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.spec.schema import Recipe
from harness.training.distributed.ranks import ONE_RANK
from harness.training.engines.native import NativeEngine
from methods.kd import KD
from tests.golden.cases import (
    Adapter,
    Arrays,
    Case,
    batch,
    find_case,
    outputs,
    spec,
    submodule_weights,
)

Losses = tuple[Tensor, Tensor]  # the labels' and the distillation's


def dot(case: Case, arrays: Arrays) -> Arrays:
    return of_given_gradients(case, arrays) if "kinds" in case["hyper"] else of_networks(case, arrays)


def rates(case: Case, steps: int) -> Iterator[float]:
    hyper = case["hyper"]
    for step in range(1, steps + 1):
        yield hyper["lr"] * hyper["lr_decay_rate"] ** sum(stage < step for stage in hyper["lr_decay_stages"])


def make_engine(case: Case, parameters: list[nn.Parameter]) -> NativeEngine:
    hyper = case["hyper"]
    keys = {key: hyper[key] for key in ("lr", "momentum", "weight_decay")}
    recipe = Recipe.model_validate({"epochs": 1, "optimizer": "dot", "momentum_delta": hyper["delta"], **keys})
    return NativeEngine(parameters, recipe, ONE_RANK)


def momenta(engine: NativeEngine, names: list[str]) -> Arrays:
    """Return the momenta by the case's names."""
    theirs = {"momentum_ce": "momentum_task", "momentum_kd": "momentum_kd"}
    return {f"{theirs[kind]}_{names[i]}": m for kind, state in engine.state().items() for i, m in state.items()}


def of_given_gradients(case: Case, arrays: Arrays) -> Arrays:
    """Take steps whose losses are linear, so that their gradients are the case's."""
    names = list(case["hyper"]["kinds"])
    parameters = {name: nn.Parameter(arrays[name]) for name in names}
    engine, after = make_engine(case, list(parameters.values())), []
    given = [submodule_weights(arrays, f"g_{kind}_") for kind in ("task", "kd")]
    unreached = torch.zeros((), dtype=torch.float64, requires_grad=True)  # a loss that no parameter has a gradient of
    for step, lr in enumerate(rates(case, len(next(g for name, g in arrays.items() if name.startswith("g_"))))):
        losses = [sum(((parameters[n] * g[step]).sum() for n, g in gs.items()), unreached) for gs in given]
        engine.backward(losses, last=True)
        engine.step(lr)
        after.append({name: p.detach().clone() for name, p in parameters.items()})
    got = {f"after_{name}": torch.stack([values[name] for values in after]) for name in names}
    return got | momenta(engine, names) | {"loss": torch.stack([p.sum() for p in parameters.values()]).sum()}


def network(arrays: Arrays) -> nn.Sequential:
    """Return the case's student: linear layers with ReLUs between them."""
    weights = submodule_weights(arrays, "student.")
    linear = {int(name.split(".")[0]): w.shape for name, w in weights.items() if name.endswith("weight")}
    layers = [nn.Linear(*reversed(linear[i])) if i in linear else nn.ReLU() for i in range(max(linear) + 1)]
    student = nn.Sequential(*layers).double()
    student.load_state_dict(weights)
    return student


def losses_of_steps(case: Case, arrays: Arrays, student: nn.Module) -> Iterator[Losses]:
    """Return each step's weighted losses of the student as it then is."""
    hyper = case["hyper"]
    method = KD(spec(), spec(), temperature=hyper["T"])
    for images, targets in zip(arrays["images"], arrays["targets"], strict=True):
        logits_t = F.linear(images, arrays["teacher.weight"], arrays["teacher.bias"])
        logits, given = student(images), batch(targets, targets)
        kd = method(given, outputs(logits=logits), outputs(logits=logits_t))["kd"]
        yield hyper["ce_weight"] * given.cross_entropy(logits), hyper["kd_weight"] * kd


def of_networks(case: Case, arrays: Arrays) -> Arrays:
    student = network(arrays)
    names = [name for name, _ in student.named_parameters()]
    engine, taken, after = make_engine(case, list(student.parameters())), [], []
    steps = losses_of_steps(case, arrays, student)
    for losses, lr in zip(steps, rates(case, len(arrays["images"])), strict=True):
        engine.backward(losses, last=True)
        engine.step(lr)
        taken.append(torch.stack(losses).detach())
        after.append({name: p.detach().clone() for name, p in student.named_parameters()})
    ce, kd = torch.stack(taken).unbind(1)
    got = {f"after_student.{name}": torch.stack([values[name] for values in after]) for name in names}
    return got | momenta(engine, names) | {"loss": (ce + kd).mean(), "losses_ce": ce, "losses_kd": kd}


def decay_in_both_momenta() -> tuple[float, float]:
    """Return the mean loss of DOT_c1's steps, and what it is with the weight decay in v_kd too, by the formula."""
    case, arrays = find_case("DOT_c1")
    student, hyper, totals = network(arrays), case["hyper"], []
    m, d, decay = (hyper[key] for key in ("momentum", "delta", "weight_decay"))
    parameters = list(student.parameters())
    v_ce, v_kd = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    steps = losses_of_steps(case, arrays, student)
    for (ce, kd), lr in zip(steps, rates(case, len(arrays["images"])), strict=True):
        totals.append((ce + kd).item())
        gradients = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in (ce, kd)]
        with torch.no_grad():
            for i, (p, g_ce, g_kd) in enumerate(zip(parameters, *gradients, strict=True)):
                v_ce[i] = (m - d) * v_ce[i] + g_ce + decay * p
                v_kd[i] = (m + d) * v_kd[i] + g_kd + decay * p
                p -= lr * (v_ce[i] + v_kd[i])
    return dot(case, arrays)["loss"].item(), sum(totals) / len(totals)


ADAPTERS: dict[str, Adapter] = {"DOT": dot}
EFFECTS: dict[str, Callable[[], tuple[float, float]]] = {"dot": decay_in_both_momenta}

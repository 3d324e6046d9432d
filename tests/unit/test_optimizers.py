"""Optimisers give what torch's and timm's own, or a formula, give, whenever a parameter gets its first gradient."""

from itertools import pairwise
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.optim import Lamb, param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn

from harness.errors import UserError
from harness.models.drop_path import build_with_drop_path
from harness.models.zoo import build_model
from harness.spec.optimizers import check_deepspeed, check_terms
from harness.spec.schema import Recipe
from harness.training.distributed.ranks import ONE_RANK
from harness.training.engines.base import ParameterGroup
from harness.training.engines.native import NativeEngine
from harness.training.parameter_groups import layer_ids, parameter_groups
from tests.support.parameters import STEPS, gradients, parameters, put, steps_of_parameters

settings_of_adam = st.fixed_dictionaries(
    {
        "betas": st.sampled_from([(0.9, 0.999), (0.8, 0.95)]),
        "eps": st.sampled_from([1e-8, 1e-3]),
        "weight_decay": st.sampled_from([0.0, 0.1]),
    }
)
VIT = "timm:vit_tiny_patch16_224"


def recipe(**more: Any) -> Recipe:
    return Recipe.model_validate({"epochs": 1, "lr": 1.0, **more})


@settings(max_examples=20)
@given(settings_of_adam, st.booleans(), steps_of_parameters, st.integers(0, STEPS))
def test_adamw_equals_torch(adam: dict[str, Any], in_groups: bool, reached: list[list[bool]], resumed_at: int) -> None:
    """Torch's plain loop takes any parameters; its fused kernels, given one parameter each, give the same bits."""
    with_adamw = recipe(optimizer="adamw", **adam)
    ours, plain, fused = parameters(), parameters(), parameters()
    scales, decays = ([0.5, 1.0, 1.0], [0.2, 0.0, 0.0]) if in_groups else ([1.0] * 3, [adam["weight_decay"]] * 3)
    groups = (ParameterGroup((0,), scales[0], decays[0]), ParameterGroup((1, 2), scales[1], decays[1]))
    engine = NativeEngine(ours, with_adamw, ONE_RANK, groups)
    one_each = [{"params": [p], "weight_decay": decay} for p, decay in zip(plain, decays, strict=True)]
    plain_adam = torch.optim.AdamW(one_each, **adam | {"weight_decay": 0.0}, foreach=False)
    fused_adams = [
        torch.optim.AdamW([p], **adam | {"weight_decay": decay}, fused=True)
        for p, decay in zip(fused, decays, strict=True)
    ]
    for step, values in enumerate(gradients()):
        if step == resumed_at:
            state, engine = engine.state(), NativeEngine(ours, with_adamw, ONE_RANK, groups)
            engine.restore(state)
        for copy in (ours, plain, fused):
            put(copy, reached[step], values)
        lr = 0.1 / (step + 1)
        of_torch = [*plain_adam.param_groups, *(adam.param_groups[0] for adam in fused_adams)]
        for group, scale in zip(of_torch, scales * 2, strict=True):
            group["lr"] = lr * scale
        for optimiser in (plain_adam, *fused_adams):
            optimiser.step()
        engine.step(lr)
        assert all(p.grad is None for p in ours)
        for mine, theirs, bits in zip(ours, plain, fused, strict=True):
            torch.testing.assert_close(mine, theirs)
            assert torch.equal(mine, bits)


@pytest.mark.parametrize("foreach", [False, True])
@settings(max_examples=20)
@given(settings_of_adam, steps_of_parameters, st.integers(0, STEPS))
def test_lamb_equals_timm(foreach: bool, adam: dict[str, Any], reached: list[list[bool]], resumed_at: int) -> None:
    """Each parameter has an optimiser of timm's own: timm counts the steps of a group, not of its parameters."""
    with_lamb = recipe(optimizer="lamb", **adam)
    ours, theirs = parameters(), parameters()
    for p in (ours[1], theirs[1]):
        p.data.zero_()  # whose norm is 0
    engine = NativeEngine(ours, with_lamb, ONE_RANK)
    of_timm = [Lamb([p], **adam, max_grad_norm=None, foreach=foreach) for p in theirs]
    for step, values in enumerate(gradients()):
        if step == resumed_at:
            state, engine = engine.state(), NativeEngine(ours, with_lamb, ONE_RANK)
            engine.restore(state)
        for copy in (ours, theirs):
            put(copy, reached[step], values)
        for p, optimiser in zip(theirs, of_timm, strict=True):
            optimiser.param_groups[0]["lr"] = 0.1 / (step + 1)
            if p.grad is not None:
                optimiser.step()
        engine.step(0.1 / (step + 1))
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=2e-6, atol=1e-6)


def linear_loss(ours: list[nn.Parameter], gradients: list[Tensor], reached: list[bool]) -> Tensor:
    """Return a loss with these gradients; one without any is constant."""
    terms = [(p * g).sum() for p, g, has in zip(ours, gradients, reached, strict=True) if has]
    return torch.stack([torch.zeros(()), *terms]).sum()


def step_by_hand(
    p: Tensor, ce: Tensor | None, kd: Tensor | None, momenta: dict[str, Tensor], lr: float, decay: float
) -> None:
    """Take DOT's step of one parameter with momentum 0.9 and delta 0.075, by its formula."""
    both, before = ce is not None and kd is not None, p.clone()
    for name, gradient, momentum in (("ce", ce, 0.825), ("kd", kd, 0.975)):
        if gradient is None:
            continue
        decays = name == "ce" or (not both and name in momenta)
        added = gradient + decay * before if decays else gradient
        momenta[name] = (momentum if both else 0.9) * momenta[name] + added if name in momenta else added
        p -= lr * momenta[name]


@settings(max_examples=20)
@given(steps_of_parameters, steps_of_parameters, st.integers(0, STEPS))
def test_dot_equals_its_formula(by_ce: list[list[bool]], by_kd: list[list[bool]], resumed_at: int) -> None:
    """Each loss reaches any parameters in any step; the groups have rates and decays of their own."""
    with_dot = recipe(optimizer="dot")
    ours, plain = parameters(), [p.detach().clone() for p in parameters()]
    groups = (ParameterGroup((0,), 0.5, 0.2), ParameterGroup((1, 2), 1.0, 0.1))
    engine, momenta = NativeEngine(ours, with_dot, ONE_RANK, groups), [dict[str, Tensor]() for _ in ours]
    for step, values in enumerate(gradients()):
        if step == resumed_at:
            state, engine = engine.state(), NativeEngine(ours, with_dot, ONE_RANK, groups)
            engine.restore(state)
        lr, given = 0.1 / (step + 1), (by_ce[step], by_kd[step])
        if not any(by_ce[step]):
            continue  # the labels' loss reaches something in every step
        for _ in range(2):  # micro-batches
            engine.backward([linear_loss(ours, values, reached) / 2 for reached in given], last=False)
        engine.step(lr)
        assert all(p.grad is None for p in ours)
        for p, g, ce, kd, held, (scale, decay) in zip(
            plain, values, *given, momenta, ((0.5, 0.2), (1.0, 0.1), (1.0, 0.1)), strict=True
        ):
            step_by_hand(p, g if ce else None, g if kd else None, held, lr * scale, decay)
        for mine, theirs in zip(ours, plain, strict=True):
            torch.testing.assert_close(mine.detach(), theirs)


def test_dot_without_a_second_loss_is_sgd() -> None:
    """A first stage has one loss: it takes SGD's steps, bit for bit, with the undivided momentum."""
    ours, plain = parameters(), parameters()
    engines = [NativeEngine(p, recipe(optimizer=name), ONE_RANK) for p, name in ((ours, "dot"), (plain, "sgd"))]
    for values in gradients():
        for copy, engine in zip((ours, plain), engines, strict=True):
            put(copy, [True] * 3, values)
            engine.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


def test_gradients_of_an_unfinished_step_are_dropped() -> None:
    """A failed capture leaves gradients of both losses, to which the eager step would add."""
    (p,) = one = [nn.Parameter(torch.ones(2))]
    engine = NativeEngine(one, recipe(optimizer="dot", weight_decay=0.0), ONE_RANK)
    engine.backward([p.sum() * 5, p.sum() * 7], last=False)
    engine.drop_gradients()
    engine.backward([p.sum(), p.sum()], last=True)
    engine.step(0.25)
    assert p.tolist() == [0.5, 0.5]


def test_clipping_for_lamb_is_the_recipes() -> None:
    ours, theirs = parameters(), parameters()
    engine = NativeEngine(ours, recipe(optimizer="lamb", clip_norm=1.0, eps=1e-6), ONE_RANK)
    of_timm = Lamb(theirs, lr=0.1, weight_decay=5e-4, max_grad_norm=1.0, eps=1e-6)
    for values in gradients():
        for copy in (ours, theirs):
            put(copy, [True] * 3, values)
        of_timm.step()
        engine.step(0.1)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "dot", "adamw", "lamb"])
def test_a_learning_rate_may_be_a_tensor(optimizer: str) -> None:
    """A captured step reads it; on a CPU it gives what the same number gives."""
    ours, other = parameters(), parameters()
    engines = [NativeEngine(p, recipe(optimizer=optimizer), ONE_RANK) for p in (ours, other)]
    for values in gradients():
        for copy, engine, lr in zip((ours, other), engines, (0.25, torch.tensor(0.25)), strict=True):
            put(copy, [True] * 3, values)
            engine.step(lr)
    assert all(torch.equal(a, b) for a, b in zip(ours, other, strict=True))


def grouped(net: nn.Module, model: str, **more: Any) -> dict[str, tuple[float, float]]:
    """Return the factor of the learning rate and the weight decay of each parameter."""
    names, trained = zip(*((n, p) for n, p in net.named_parameters() if p.requires_grad), strict=True)
    groups = parameter_groups(net, model, recipe(weight_decay=0.05, **more), list(trained))
    assert sorted(i for g in groups for i in g.indices) == list(range(len(names)))
    return {names[i]: (g.lr_scale, g.weight_decay) for g in groups for i in g.indices}


def of_timm(net: nn.Module, groups: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    names = {p: f"net.{name}" for name, p in net.named_parameters()}
    return {names[p]: (g.get("lr_scale", 1.0), g["weight_decay"]) for g in groups for p in g["params"]}


@pytest.mark.parametrize("model", [VIT, "timm:swin_tiny_patch4_window7_224", "timm:resnet10t", "timm:mixer_s32_224"])
def test_groups_are_timms(model: str) -> None:
    with torch.device("meta"):
        theirs: Any = timm.create_model(model.removeprefix("timm:"), num_classes=10)
    theirs.get_parameter(next(name for name, _ in theirs.named_parameters())).requires_grad_(False)  # frozen: in none
    net: nn.Module = nn.Module()
    net.net = theirs
    names = theirs.no_weight_decay() if hasattr(theirs, "no_weight_decay") else ()
    expected = of_timm(theirs, param_groups_weight_decay(theirs, 0.05, no_weight_decay_list=names))
    assert grouped(net, model, decay_norms_and_biases=False) == expected
    layers = param_groups_layer_decay(theirs, 0.05, names, layer_decay=0.65)
    both = grouped(net, model, decay_norms_and_biases=False, layer_decay=0.65)
    assert both == of_timm(theirs, layers) and len({scale for scale, _ in both.values()}) > 2
    assert {decay for _, decay in grouped(net, model, layer_decay=0.65).values()} == {0.05}


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ("digits_net_w4", ["conv1", "layer1", "layer2", "fc"]),
        ("wrn_16_1", ["conv1", "block1", "block2", "block3", "fc"]),
        ("vgg8", ["block0", "block1", "block2", "block3", "block4", "classifier"]),
        ("MobileNetV2", ["conv1", *(f"blocks.{i}" for i in range(7)), "classifier"]),
        ("ShuffleV2", ["conv1", "layer1", "layer2", "layer3", "linear"]),
    ],
)
def test_layers_of_our_classifiers_are_stages(model: str, layers: list[str]) -> None:
    with torch.device("meta"):
        net = build_model(model, 10)
    ids = layer_ids(net, model)
    assert [next(i for name, i in ids.items() if name.startswith(f"{layer}.")) for layer in layers] == [
        *range(len(layers))
    ]
    assert max(ids.values()) == len(layers) - 1 and ids.keys() == dict(net.named_parameters()).keys()
    assert all(a <= b for a, b in pairwise(ids.values()))
    scales = grouped(net, model, layer_decay=0.5)
    assert scales[f"{layers[-1]}.weight" if model != "MobileNetV2" else "classifier.0.weight"] == (1.0, 0.05)
    assert min(scale for scale, _ in scales.values()) == 0.5 ** (len(layers) - 1)


def test_a_models_layers_must_be_known_and_a_methods_parameters_are_whole() -> None:
    net = build_model("digits_net_w4", 10, 1)
    own = nn.Parameter(torch.ones(3, 3))
    trained = [*net.parameters(), own]
    groups = parameter_groups(net, "digits_net_w4", recipe(layer_decay=0.5, weight_decay=0.1), trained)
    assert next(g for g in groups if len(trained) - 1 in g.indices)[1:] == (1.0, 0.1)
    with pytest.raises(UserError, match="recipe.layer_decay: torchvision:resnet18 does not say which of its layers"):
        parameter_groups(nn.Linear(1, 1), "torchvision:resnet18", recipe(layer_decay=0.5), [])


def test_deepspeed_is_refused_for_what_it_cannot_do() -> None:
    check_deepspeed("lamb", 0)
    check_deepspeed("adamw", 2)
    with pytest.raises(UserError, match="optimizer lamb: it needs the norms .* zero_stage 1"):
        check_deepspeed("lamb", 1)
    with pytest.raises(UserError, match="optimizer dot: .* use engine native"):
        check_deepspeed("dot", 0)


@pytest.mark.parametrize(
    ("use", "weights", "found"),
    [
        ("student", {"ce": 1.0}, "student with `ce` alone"),
        ("simkd", {"ce": 0.0, "a": 1, "b": 1}, "simkd with `a`, `b` alone"),
    ],
)
def test_dot_is_refused_without_both_losses(use: str, weights: dict[str, float], found: str) -> None:
    check_terms("sgd", use, weights)
    check_terms("dot", use, {**weights, "ce": 1.0, "a": 1.0})
    with pytest.raises(ValueError, match=f"optimizer dot .* found {found}; state `optimizer: sgd`"):
        check_terms("dot", use, weights)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"clip_norm": 1.0}, "clip_norm is not defined for optimizer dot, found 1"),
        ({"momentum": 0.95, "momentum_delta": 0.06}, "momentum_delta must be below 0.05"),
        ({"momentum": 0.0}, "momentum_delta must be below 0,"),
    ],
)
def test_dots_momenta_are_between_0_and_1_and_nothing_is_clipped(keys: dict[str, Any], message: str) -> None:
    recipe(**keys)
    with pytest.raises(ValueError, match=message):
        recipe(optimizer="dot", **keys)


def test_drop_path_is_given_to_the_constructor() -> None:
    built: list[str] = []

    def build(model: str) -> nn.Module:
        built.append(model)
        if "vgg" in model:
            raise TypeError("VGG.__init__() got an unexpected keyword argument 'drop_path_rate'")
        return nn.Identity()

    for model in (VIT, f"{VIT}(img_size=32)", "torchvision:convnext_tiny", "my.nets:Net"):
        build_with_drop_path(build, model, 0.1)
    build_with_drop_path(build, "resnet20", 0.0)
    assert built == [
        f"{VIT}(drop_path_rate=0.1)", f"{VIT}(drop_path_rate=0.1, img_size=32)",
        "torchvision:convnext_tiny(stochastic_depth_prob=0.1)", "my.nets:Net(drop_path_rate=0.1)", "resnet20",
    ]  # fmt: skip
    for model, message in (
        ("resnet20", "no residual branches"),
        ("timm:vgg11", "recipe.drop_path: timm:vgg11 takes none: VGG"),
        (f"{VIT}(drop_path_rate=0.2)", "states drop_path_rate too"),
    ):
        with pytest.raises(UserError, match=message):
            build_with_drop_path(build, model, 0.1)

"""The optimiser gives what torch's own gives, whenever a parameter gets its first gradient."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.spec.schema import Recipe
from harness.training.distributed.ranks import ONE_RANK
from harness.training.engines.native import NativeEngine

SHAPES = ((3, 2, 3, 3), (7,), ())
STEPS = 5
settings_of_sgd = st.fixed_dictionaries(
    {"momentum": st.sampled_from([0.0, 0.9]), "weight_decay": st.sampled_from([0.0, 0.1])}
)
# Whether the loss of a step reaches a parameter.
steps_of_parameters = st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=STEPS, max_size=STEPS)


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def gradients() -> list[list[Tensor]]:
    torch.manual_seed(1)
    return [[torch.randn(shape) for shape in SHAPES] for _ in range(STEPS)]


def put(ours: list[nn.Parameter], reached: list[bool], values: list[Tensor]) -> None:
    for p, has_gradient, value in zip(ours, reached, values, strict=True):
        p.grad = value.clone() if has_gradient else None


@given(settings_of_sgd, st.booleans(), steps_of_parameters, st.integers(0, STEPS))
def test_equals_torch(sgd: dict[str, float], nesterov: bool, reached: list[list[bool]], resumed_at: int) -> None:
    """Torch's plain loop takes any parameters; its fused kernels, given one parameter each, give the same bits."""
    sgd = {**sgd, "nesterov": nesterov and sgd["momentum"] > 0}
    recipe = Recipe.model_validate({"epochs": 1, "lr": 1.0, **sgd})
    ours, plain, fused = parameters(), parameters(), parameters()
    engine = NativeEngine(ours, recipe, ONE_RANK)
    plain_sgd = torch.optim.SGD(plain, **sgd, foreach=False)
    fused_sgds = [torch.optim.SGD([p], **sgd, fused=True) for p in fused]
    for step, values in enumerate(gradients()):
        if step == resumed_at:
            state, engine = engine.state(), NativeEngine(ours, recipe, ONE_RANK)
            engine.restore(state)
        for copy in (ours, plain, fused):
            put(copy, reached[step], values)
        for optimiser in (plain_sgd, *fused_sgds):
            optimiser.param_groups[0]["lr"] = 0.1 / (step + 1)
            optimiser.step()
        engine.step(0.1 / (step + 1))
        assert all(p.grad is None for p in ours)
        for mine, theirs, bits in zip(ours, plain, fused, strict=True):
            torch.testing.assert_close(mine, theirs)
            assert torch.equal(mine, bits)

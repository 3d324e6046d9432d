"""The optimiser gives what torch's own gives, whenever a parameter gets its first gradient."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.spec.schema import Recipe
from harness.training.distributed.ranks import ONE_RANK
from harness.training.engines.native import NativeEngine
from tests.support.parameters import STEPS, gradients, parameters, put, steps_of_parameters

settings_of_sgd = st.fixed_dictionaries(
    {"momentum": st.sampled_from([0.0, 0.9]), "weight_decay": st.sampled_from([0.0, 0.1])}
)


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

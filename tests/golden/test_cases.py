"""Golden tests of cases that the shared folder does not have: what is compared, skipped and named."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden.cases import assert_equal, find_case
from tests.golden.optimizer_cases import dot
from tests.golden.refined_logit_cases import ttm, wttm

NAN, INF = float("nan"), float("inf")
HYPER: dict[str, Any] = {
    "lr": 0.5, "lr_decay_rate": 0.1, "lr_decay_stages": [1], "momentum": 0.5, "delta": 0.1, "weight_decay": 0.0
}  # fmt: skip
EXACT = {"rtol": 0.0, "atol": 0.0}
CASE: dict[str, Any] = {"arrays": {"x": {"role": "output"}}, "tolerance": {"state": EXACT}}


def check(ours: list[float], reference: list[float]) -> None:
    assert_equal(CASE, {"x": torch.tensor(ours), "more": torch.zeros(1)}, {"x": torch.tensor(reference)})


def test_ours_is_finite_where_the_reference_is_not() -> None:
    check([1.0, 5.0, 7.0, 0.0], [1.0, NAN, INF, -INF])
    for ours, reference in (([1.0, NAN], [1.0, NAN]), ([2.0, 5.0], [1.0, NAN]), ([INF], [1.0])):
        with pytest.raises(AssertionError, match="x"):
            check(ours, reference)


def test_a_value_that_an_adapter_lacks_is_named() -> None:
    with pytest.raises(AssertionError, match="no value of ours: x"):
        assert_equal(CASE, {}, {"x": torch.zeros(1)})


def test_an_effect_whose_case_no_folder_has_is_skipped() -> None:
    with pytest.raises(pytest.skip.Exception, match="no golden case Nothing_c1"):
        find_case("Nothing_c1")


@pytest.mark.parametrize(("kind", "given"), [("task", "g_task_a"), ("kd", "g_kd_a")])
def test_a_dot_case_with_the_gradients_of_one_loss(kind: str, given: str) -> None:
    g = torch.ones(2, 3, dtype=torch.float64)
    got = dot({"hyper": HYPER | {"kinds": {"a": kind}}}, {"a": torch.zeros(3, dtype=torch.float64), given: g})
    torch.testing.assert_close(got[f"momentum_{kind}_a"], 1.5 * g[0])
    torch.testing.assert_close(got["after_a"], torch.stack([-0.5 * g[0], -0.575 * g[0]]))


def test_a_power_of_0_makes_the_targets_uniform() -> None:
    case: dict[str, Any] = {"hyper": {"l": 0.0}}
    z: Tensor = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = ttm(case, {"logit_s": z.clone(), "logit_t": -z})
    torch.testing.assert_close(got["grad_logit_s"], (z.softmax(1) - 0.2) / 2)
    weighted = wttm(case, {"logit_s": z.clone(), "logit_t": -z})
    torch.testing.assert_close(weighted["loss"], 5 * got["loss"])

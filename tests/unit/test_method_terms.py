"""The bench of methods' terms: every method's loss and gradients equal its formula written plainly."""

from dataclasses import replace

import pytest
import torch

from benchmarks.perf.method_terms import FIRST, MAIN, classifier_terms, detector_terms
from harness.spec.methods import builtin_names, describe_method
from methods.base import Head, TapSpec

SIZES = {"stem": 8, "stage1": 8, "stage2": 6, "stage3": 4, "cam": 4}
WIDTHS = {"stem": 4, "stage1": 8, "stage2": 8, "stage3": 12, "cam": 10}
TAPS = ("stem", "stage1", "stage1.preact", "stage2", "stage2.preact", "stage3", "stage3.preact", "cam")
CLASSES = WIDTHS["cam"]


def spec() -> TapSpec:
    draw = torch.Generator().manual_seed(1)
    width = WIDTHS["stage3"]
    head = Head("stage3.preact", torch.randn(CLASSES, width, generator=draw), torch.randn(CLASSES, generator=draw))
    channels = {tap: WIDTHS[tap.partition(".")[0]] for tap in TAPS}
    return TapSpec(channels, {tap: (SIZES[tap.partition(".")[0]],) * 2 for tap in TAPS}, width, CLASSES, head)


def test_every_method_is_measured() -> None:
    assert MAIN.keys() | FIRST.keys() == set(builtin_names()) - {"student"}


@pytest.mark.parametrize("name", sorted(MAIN.keys() | FIRST.keys()))
def test_a_method_equals_its_formula_written_plainly(name: str) -> None:
    torch.manual_seed(0)
    if "classification" in describe_method(name).defined_for:
        terms = classifier_terms(name, spec(), spec(), 8, torch.arange(40) % CLASSES, torch.float64)
    else:
        terms = detector_terms(name, {"p3": 8, "p4": 4}, 8, torch.float64)
    for of_method in terms:
        of_method.check(1e-7)


def test_another_formula_is_noticed() -> None:
    (terms,) = classifier_terms("kd", spec(), spec(), 8, torch.arange(40) % CLASSES, torch.float64)
    with pytest.raises(AssertionError, match="is not"):
        replace(terms, plain=lambda *inputs: 1.001 * terms.plain(*inputs)).check(1e-7)

"""CAT-KD's maps and students: what a map's normalisation and binarisation do, and a classifier without a bias."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from methods.base import CAM, Outputs, TapSpec
from methods.catkd import CATKD
from methods.ickd import correlations
from methods.srrl import SRRL
from tests.support.packs import BATCH, assert_same_end, train
from tests.support.synthetic_outputs import STUDENT, TEACHER, make_batch, outputs, total


def term(student: Tensor, teacher: Tensor, **hyper: object) -> Tensor:
    method = CATKD(STUDENT, TEACHER, **hyper)  # type: ignore[arg-type]
    nothing = torch.zeros(0)
    return method(make_batch(), *(Outputs(nothing, nothing, {CAM: maps}) for maps in (student, teacher)))["cam"]


def maps(seed: int) -> Tensor:
    return outputs(STUDENT, seed).features[CAM]


def test_normalised_maps_are_compared_by_their_shapes_alone() -> None:
    student, teacher = maps(1), maps(2)
    scale = torch.rand(*student.shape[:2], 1, 1) + 0.1
    for reading in ("code", "paper"):
        expected = term(student, teacher, normalise=True, reading=reading)
        torch.testing.assert_close(term(scale * student, teacher, normalise=True, reading=reading), expected)
    paper = term(student, teacher, resolution=3, reading="paper")
    torch.testing.assert_close(paper, 9 * term(student, teacher, resolution=3, normalise=True))
    assert not term(scale * student, teacher).allclose(term(student, teacher))


def test_binarised_maps_are_ones_where_the_teacher_is_above_its_mean_absolute_value() -> None:
    teacher = torch.tensor([[3.0, 1.0], [-1.0, -5.0]]).expand(1, 1, 2, 2)  # of mean absolute value 2.5
    student = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).expand(1, 1, 2, 2)
    assert term(student, teacher, binarise=True) == 0 < term(student, -teacher, binarise=True)


def test_a_map_of_zeros_has_a_finite_loss_and_no_gradient() -> None:
    student = maps(1)
    student[:, 0] = 0
    student.requires_grad_()
    loss = term(student, maps(2), normalise=True)
    loss.backward()
    assert loss.isfinite() and student.grad is not None
    assert student.grad[:, 0].abs().max() == 0 < student.grad[:, 1].abs().max() < 1


def test_correlations_do_not_depend_on_the_grid_nor_on_the_maps_scale() -> None:
    f = outputs(STUDENT, 1).features["stage1"]
    torch.testing.assert_close(correlations(3 * f), correlations(f))
    torch.testing.assert_close(correlations(f.repeat_interleave(2, 3)), correlations(f))
    torch.testing.assert_close(correlations(f).norm(dim=2), torch.ones(f.shape[:2]))
    f[:, 0] = 0
    assert correlations(f.requires_grad_())[:, 0].abs().sum() == 0


def test_srrl_reads_the_map_of_the_students_classifier_or_else_its_deepest() -> None:
    assert SRRL(STUDENT, TEACHER).student_taps == ("stage3",)
    headless = TapSpec(STUDENT.channels, STUDENT.sizes, 9, STUDENT.num_classes)
    assert SRRL(headless, TEACHER).student_taps == ("stage3",)
    assert not SRRL(headless, TEACHER, connector="pooled").student_taps
    with pytest.raises(ValueError, match="no classifier to read"):
        SRRL(STUDENT, headless)
    with pytest.raises(ValueError, match="no tap named 'last'.*; connector pooled needs none"):
        SRRL(TapSpec({}, {}, 9, STUDENT.num_classes), TEACHER)
    method = SRRL(STUDENT, TEACHER)
    before = method.classifier_weight.clone()
    total(method, outputs(STUDENT, 1, grad=True), outputs(TEACHER, 2)).backward()
    assert torch.equal(method.classifier_weight, before) and "classifier_weight" in method.state_dict()


def test_maps_of_one_position_are_warned_of() -> None:
    assert not CATKD(STUDENT, TEACHER).warnings({})
    token = replace(STUDENT, sizes=STUDENT.sizes | {CAM: (1, 1)})
    (warning,) = CATKD(token, TEACHER).warnings({})
    assert warning.startswith("the student's class activation maps have one position")


@pytest.mark.parametrize("hyper", [{"resolution": 0}, {"reading": "memory"}])
def test_wrong_settings_are_refused(hyper: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="resolution must be at least 1|'code' or 'paper'"):
        CATKD(STUDENT, TEACHER, **hyper)  # type: ignore[arg-type]


# The student


@pytest.mark.parametrize("recipe", [{"ema": 0.5, "accumulate": 2}, {"freeze": ["conv1", "fc"]}])
def test_its_student_has_no_bias_and_scores_as_its_maps_alone(recipe: dict[str, object]) -> None:
    """The other members of its pack keep theirs, and it trains as by itself."""
    pack, watcher = train(["student", "catkd"], None, **recipe)
    assert not watcher.failures
    alone, _ = train(["catkd"], None, **recipe)
    assert_same_end(pack["catkd"], alone["catkd"])
    for name, member in pack.items():
        model = member.evaluated_model
        bias = member.trained_tensors()["fc.bias"]
        assert (bias.abs().sum() > 0) == (name == "student")
        if name == "catkd":
            outputs = model.eval()(torch.randn(BATCH, 1, 8, 8), (CAM,))
            torch.testing.assert_close(outputs.logits, outputs.features[CAM].mean((2, 3)))
            assert isinstance(model.fc, nn.Linear) and isinstance(model.fc.bias, nn.Parameter)
            frozen = "fc" in recipe.get("freeze", [])  # type: ignore[operator]
            assert all((p is member.student.fc.weight) is False for p in member.parameters) == frozen

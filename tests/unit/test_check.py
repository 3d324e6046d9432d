"""The check before training: what a first step on random images finds, in which words, and what it lets pass."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from harness.errors import UserError
from harness.planning import check as planned_check
from harness.planning.plan import Planned, plan_sweep
from harness.spec.science import Given
from harness.training.check import Checker
from harness.training.check_order import CheckOrder, CheckResult, RunToCheck, State, read_results
from harness.training.job_order import WeightsFile
from harness.training.tasks import open_task
from harness.training.untrained_weights import write_untrained_weights
from tests.support.sciences import make_science

pytestmark = pytest.mark.usefixtures("quickly_built")
METHODS = """
import os, sys, time
import torch
from methods.base import Distiller

class Base(Distiller):
    weights = {"ce": 1.0, "x": 1.0}
    def forward(self, batch, student, teacher):
        return {"x": self.term(batch, student, teacher)}

class Good(Base):
    def term(self, batch, student, teacher):
        print("a line " * 100_000)
        return (student.logits - teacher.logits).square().mean()

class NoTerm(Base):
    def forward(self, batch, student, teacher):
        return {}

class ExtraTerm(Base):
    def forward(self, batch, student, teacher):
        return {"x": student.logits.sum(), "y": student.logits.sum()}

class Tap(Base):
    def __init__(self, student, teacher):
        super().__init__(student, teacher)
        self.student_taps = ("stage9",)

class Shapes(Base):
    def term(self, batch, student, teacher):
        return (student.embedding - teacher.embedding).square().mean()

class NaN(Base):
    def term(self, batch, student, teacher):
        return (student.logits * 0).log().mean()

class Gradient(Base):
    def term(self, batch, student, teacher):
        return (student.logits * 0).sum().sqrt()

class InPlace(Base):
    def term(self, batch, student, teacher):
        return teacher.logits.zero_().sum() + student.logits.sum()

class NeedsMany(Base):
    def term(self, batch, student, teacher):
        return student.logits.topk(8, dim=0).values.mean()

class NotOne(Base):
    def term(self, batch, student, teacher):
        return student.logits[1].square().mean()

class PerImage(Base):
    def term(self, batch, student, teacher):
        return (student.logits - teacher.logits).square().mean(dim=1)

class Number(Base):
    def term(self, batch, student, teacher):
        return 1.5

class Nothing(Base):
    def forward(self, batch, student, teacher):
        pass

class Silent(Base):
    def term(self, batch, student, teacher):
        raise ValueError

class OnGPU(Base):
    def term(self, batch, student, teacher):
        return student.logits.cuda().square().mean()

class Large(Base):
    def term(self, batch, student, teacher):
        return torch.empty(2**55).sum()

class Keeps(Base):
    def term(self, batch, student, teacher):
        return student.logits.mean() + torch.zeros(70)[batch.indices].sum()

class NeedsEight(Base):
    def term(self, batch, student, teacher):
        return student.logits.topk(8, dim=0).values.mean().reshape(1)

class NeedsTwelve(Base):
    def term(self, batch, student, teacher):
        return student.logits.mean() + batch.images[..., 11, 11].mean()

class Exits(Base):
    def term(self, batch, student, teacher):
        sys.exit("done")

class Hangs(Base):
    def term(self, batch, student, teacher):
        while True:
            try:
                time.sleep(10)
            except Exception:
                pass
""".replace("(Base):\n", '(Base):\n    weights = {"ce": 1.0, "x": 1.0}\n')


@pytest.fixture(autouse=True)
def _methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_methods_to_check.py").write_text(METHODS)
    monkeypatch.delitem(sys.modules, "my_methods_to_check", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def checked(
    use: str, folder: Path, seconds: float = 60.0, processes: int = 1, gpu: bool = False, **options: Any
) -> CheckResult:
    """Check a run of a built-in method, or of one above."""
    options = {"teacher": "digits_net_w8", "batch_size": 64} | options
    if use[0].isupper():
        use = f"my_methods_to_check:{use}"
        options |= {"weights": {"ce": 1.0, "x": 1.0}}
    subset = options.pop("train_subset", None)
    science = make_science(options.pop("student", "digits_net_w4"), use, **options)
    science = replace(science, dataset=replace(science.dataset, train_subset=subset))
    order = CheckOrder([], {}, True, seconds, 1, "")
    return Checker(order, folder).check(RunToCheck(science.to_json(), processes, gpu))


@pytest.mark.parametrize(
    ("use", "cause"),
    [
        ("NoTerm", "ValueError: NoTerm.forward did not return ['x'], which its weights or diagnostics name"),
        ("ExtraTerm", "ValueError: ExtraTerm.forward returned ['y'], which are neither"),
        ("Tap", "ValueError: no tap named 'stage9'; this model has: "),
        ("Shapes", "RuntimeError: The size of tensor a"),
        ("NaN", "the loss is not finite at the first step: "),
        ("Gradient", "gradients are not finite at the first step"),
        ("InPlace", "ValueError: the method changed its batch or the teacher's outputs in place"),
        ("Exits", "SystemExit: done"),
        ("PerImage", "TypeError: PerImage.forward returned a tensor of shape (4,) as 'x'; expected a scalar tensor"),
        ("Number", "TypeError: Number.forward returned float as 'x'; expected a scalar tensor"),
        ("Nothing", "TypeError: Nothing.forward returned NoneType; expected a dict of terms by name"),
        ("Silent", "ValueError ("),
        ("Keeps", "IndexError: index "),
        ("OnGPU", ""),
    ],
)
def test_a_first_step_finds_it(use: str, cause: str, tmp_path: Path) -> None:
    result = checked(use, tmp_path)
    assert result.state == State.FAILED and result.cause.startswith(cause), result
    in_method = use in ("Shapes", "Exits", "Silent", "Keeps", "OnGPU")
    assert ("my_methods_to_check.py:" in result.cause) == in_method, "the line of the user's own code"


def test_images_that_grow_are_looked_at_in_each_size(tmp_path: Path) -> None:
    sizes = {"epochs": 3, "image_size": [[0, 12], [1, 13], [2, 16]], "student": "timm:test_resnet", "teacher": None}
    assert checked("NeedsTwelve", tmp_path, **sizes) == CheckResult(0, State.PASSED)
    result = checked("NeedsTwelve", tmp_path, **sizes | {"image_size": [[0, 8], [2, 16]]})
    assert result.state == State.FAILED
    assert result.cause.startswith("at image_size 8, of [[0, 8], [2, 16]]: IndexError: index 11 is out of bounds")


def test_a_wrong_hyper_parameter_and_a_first_stage_are_found(tmp_path: Path) -> None:
    result = checked("fitnets", tmp_path, params={"tap": "stage7"}, weights={"ce": 1.0, "hint": 1.0})
    assert result.state == State.FAILED and "no tap named 'stage7'" in result.cause
    first = checked("tests.support.user_methods:GivesNaNFirst", tmp_path, teacher=None)
    assert first.cause == "the loss is not finite at the first step: odd is nan, total is nan"


def test_what_this_machine_lacks_is_left_unchecked(tmp_path: Path) -> None:
    assert checked("OnGPU", tmp_path, gpu=True) == CheckResult(0, State.NOT_HERE, "needs a GPU")
    assert checked("Shapes", tmp_path, gpu=True).state == State.FAILED
    assert checked("Large", tmp_path).cause == "needs more memory than this machine gives it"


def test_what_trains_passes(tmp_path: Path) -> None:
    """The steps of a method that needs more images are repeated with as many as it will get."""
    for use in ("Good", "NeedsMany", "student"):
        assert checked(use, tmp_path) == CheckResult(0, State.PASSED)
    assert checked("NeedsMany", tmp_path, batch_size=4).state == State.FAILED
    assert checked("dml", tmp_path, params={"start": "teacher"},
                   weights=dict.fromkeys(("ce", "kl", "peer_ce", "peer_kl"), 1.0)).state == State.PASSED  # fmt: skip


@pytest.mark.parametrize(
    ("subset", "options", "cause"),
    [
        (70, {"batch_size": 23}, "a batch of 1 image, as 70 images in batches of 23 leave: IndexError: "),
        (70, {"batch_size": 35, "accumulate": 18}, "a batch of 1 image, as 70 images in batches of 35, accumulate 18 "),
        (70, {"batch_size": 35, "accumulate": 35}, "a batch of 1 image, as 70 images in batches of 35, accumulate 35 "),
        (70, {"batch_size": 24}, ""),
        (70, {"batch_size": 23, "epoch_steps": 2}, ""),
    ],
)
def test_a_last_batch_of_one_image(subset: int, options: dict[str, int], cause: str, tmp_path: Path) -> None:
    result = checked("NotOne", tmp_path, train_subset=subset, **options)
    assert result.cause.startswith(cause) and (result.state == State.FAILED) == bool(cause), result
    assert not cause or result.cause.endswith((": 24 leaves none", ": 70 leaves none")), result


def test_a_last_batch_too_small_for_a_method(tmp_path: Path) -> None:
    result = checked("NeedsEight", tmp_path, train_subset=70)
    assert result.cause.startswith("a batch of 6 images, as 70 images in batches of 64 leave: RuntimeError: "), result
    assert checked("NeedsEight", tmp_path, train_subset=72).state == State.PASSED


def test_a_method_that_hangs_is_left_unchecked(tmp_path: Path) -> None:
    began = time.monotonic()
    assert checked("Hangs", tmp_path, seconds=0.5).state == State.TOO_SLOW
    assert time.monotonic() - began < 5


def test_given_weights_are_those_of_the_model(tmp_path: Path) -> None:
    science = make_science("digits_net_w4", "kd", weights={"ce": 1.0, "kd": 1.0}, teacher="digits_net_w8")
    task = open_task(science.dataset, science.recipe)
    assert isinstance(science.teacher, Given)
    for model, state in (("digits_net_w8", State.PASSED), ("digits_net_w4", State.FAILED)):
        write_untrained_weights(task, model, file := tmp_path / f"{model}.safetensors")
        sha256 = planned_check.files.sha256(file)
        with_weights = replace(science, teacher=replace(science.teacher, sha256=sha256))
        order = CheckOrder([], {sha256: WeightsFile(str(file))}, False, 60.0, 1, "")
        result = Checker(order, tmp_path).check(RunToCheck(with_weights.to_json(), 1))
        assert result.state == state
    assert f"{file}" in result.cause


def test_results_survive_a_process_that_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "results"
    assert read_results(file) == {}
    for state in (State.BEGUN, State.PASSED):
        CheckResult(0, state).append_to(file)
    CheckResult(1, State.BEGUN).append_to(file)
    with file.open("a") as f:
        f.write('{"run": 1, "st')
    assert {i: result.state for i, result in read_results(file).items()} == {0: State.PASSED, 1: State.BEGUN}


def plan(folder: Path, methods: Any = ("student", "kd")) -> Planned:
    sweep = {
        "dataset": "digits", "recipe": "digits_quick", "methods": methods, "seeds": 2,
        "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}],
    }  # fmt: skip
    (folder / "s.yaml").write_text(yaml.safe_dump(sweep))
    return plan_sweep(folder / "s.yaml", folder / "results")


def check(planned: Planned, monkeypatch: pytest.MonkeyPatch, *states: State, program: str = "") -> int:
    """Check all runs of a plan; the process writes these results and runs a program. Return how often it started."""
    started: list[Any] = []
    popen = planned_check.subprocess.Popen

    def fake(command: list[str], **options: Any) -> Any:
        started.append(command)
        results = json.loads(Path(command[-1]).read_text())["results"]
        for i, state in enumerate(states):
            CheckResult(i, state, "" if state == State.TOO_SLOW else "its cause").append_to(Path(results))
        return popen(["sh", "-c", program], **options)

    with monkeypatch.context() as patch:
        patch.setattr(planned_check.subprocess, "Popen", fake)
        planned_check.check_first_steps(planned, planned.plan.runs, "local")
    return len(started)


def test_what_has_passed_is_not_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(tmp_path)
    good = [State.PASSED] * 3  # the teacher, and two methods of any seed
    assert check(planned, monkeypatch, *good) == 1
    assert check(planned, monkeypatch) == 0
    other = plan(tmp_path, {"student": {}, "kd": {"params": {"temperature": 2}}})
    with pytest.raises(UserError) as error:
        check(other, monkeypatch, State.FAILED)
    assert str(error.value).splitlines()[1:] == ["digits_net_w8 > digits_net_w4: kd: its cause"]
    assert len(list(planned.store.checks.iterdir())) == 3
    assert check(other, monkeypatch, State.PASSED) == 1, "a failure is not kept"


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("kill -9 $$", "its process was ended by SIGKILL (out of memory?)"),
        ("echo no torch >&2; exit 1", "no torch"),
        ("sleep 60", "it takes longer than 0 s"),
    ],
)
def test_a_check_that_cannot_be_done_holds_nothing_up(
    program: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planned_check, "PATIENCE", 0.3)
    planned = plan(tmp_path)
    check(planned, monkeypatch, program=program)
    assert capsys.readouterr().err.endswith(f"the check before training is not complete: {says}; going on without it\n")
    assert not planned.store.root.exists()


def test_what_is_not_checked_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check(plan(tmp_path), monkeypatch, State.NOT_HERE, State.TOO_SLOW, State.BEGUN, program="kill -11 $$")
    assert capsys.readouterr().err.splitlines() == [
        "not checked: teacher digits_net_w8: its cause",
        "not checked: digits_net_w8 > digits_net_w4 / student: takes longer than 60 s for a step",
        "the check before training is not complete: its process was ended by SIGSEGV (at digits_net_w8 > digits_net_w4 "
        "/ kd); going on without it",
    ]


def test_a_method_that_ends_the_process_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="digits_net_w8: it ends its process, with code 3"):
        check(plan(tmp_path), monkeypatch, State.BEGUN, program="exit 3")


@pytest.mark.parametrize(
    "seen, lines", [((1, 2), ["1 of 2 done", "2 of 2 done"]), ((2, 2), ["2 of 2 done"])], ids=["rises", "stays"]
)
def test_the_check_says_how_it_ended_if_it_has_said_how_far_it_is(
    seen: tuple[int, ...],
    lines: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = iter(seen)
    process = Mock(wait=Mock(side_effect=[subprocess.TimeoutExpired("check", 1), 0]))
    passed = lambda _: {i: CheckResult(i, State.PASSED) for i in range(next(numbers))}  # noqa: E731
    monkeypatch.setattr(planned_check, "read_results", passed)
    assert planned_check._wait(process, tmp_path, "{} of 2 done") == 0
    assert capsys.readouterr().err.splitlines() == lines

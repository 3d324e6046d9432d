"""Sweep files as people write them: ranges of seeds, settings without effect, and all mistakes of a file at once."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from harness.errors import UserError
from harness.planning.plan import plan_sweep
from harness.reporting.comparison import Contents
from harness.reporting.tables.text import sweep_notes
from harness.spec.idle_settings import idle_settings
from harness.spec.sweep_plan import Plan
from tests.support.cli import REPO, run_command

BASE: dict[str, Any] = {
    "dataset": "digits",
    "recipe": "digits_quick",
    "methods": {"student": {}, "kd": {}},
    "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}],
    "seeds": 1,
}


def plan(data: dict[str, Any], *sets: str) -> Plan:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "sweep.yaml"
        file.write_text(json.dumps(data))  # which is YAML too
        return plan_sweep(file, Path(folder) / "results", sets=sets).plan


@pytest.mark.parametrize(
    "sets, expected",
    [
        (["methods=[student]", "teachers.seed=5"], ["teachers: no teacher is trained, as no method here has one"]),
        ([], []),
        (["recipe={epochs: 3, lr: 0.1, milestones: [1, 2], gamma: 0.5}"], []),
        (
            ["recipe={epochs: 3, lr: 0.1, milestones: [3, 60]}"],
            ["milestones 3, 60: not before the end of 3 epochs; the learning rate never falls"],
        ),
        (["recipe={epochs: 3, lr: 0.1, milestones: [2, 60]}"], ["milestones 60: not before the end of 3 epochs"]),
        (
            ["recipe={epochs: 3, lr: 0.1, milestones: [2], gamma: 1}"],
            ["milestones: gamma is 1, so that the learning rate never falls"],
        ),
        (["recipe={epochs: 3, lr: 0.1, gamma: 0.2}"], ["gamma 0.2: no milestone is reached"]),
        (["recipe.gamma=0.2"], ["gamma 0.2: schedule cosine has no milestones"]),
        (["recipe.nesterov=true", "recipe.momentum=0"], ["nesterov: the momentum is 0"]),
        (["recipe={epochs: 3, lr: 0.1, optimizer: adamw}"], []),
        (
            ["recipe={epochs: 3, lr: 0.1, optimizer: adamw, momentum: 0.8, nesterov: true}"],
            [
                "momentum 0.8: optimizer adamw does not read it",
                "nesterov true: optimizer adamw does not read it",
            ],
        ),
        (
            ["recipe={epochs: 3, lr: 0.1, betas: [0.9, 0.99], eps: 1e-6}"],
            ["betas [0.9, 0.99]: optimizer sgd does not read it", "eps 1e-06: optimizer sgd does not read it"],
        ),
        (
            ["recipe.weight_decay=0", "recipe.decay_norms_and_biases=false", "recipe.layer_decay=1"],
            [
                "decay_norms_and_biases false: the weight decay is 0",
                "layer_decay 1: every layer has the whole learning rate",
            ],
        ),
        (
            ["recipe={epochs: 3, lr: 0.1, min_lr: 0.01, warmup_lr: 0.01, schedule_by: step}"],
            [
                "min_lr 0.01: schedule step falls by gamma, not to a least rate",
                "warmup_lr 0.01: no warmup_epochs",
                "schedule_by step: without schedule cosine or warmup_epochs, no rate changes within an epoch",
            ],
        ),
        (
            ["recipe={epochs: 3, lr: 0.1, warmup_lr: 0.01, warmup_epochs: 1}"],
            ["warmup_lr 0.01: only schedule_by step starts its warm-up there"],
        ),
        (["recipe.min_lr=0.001", "recipe.warmup_lr=0.01", "recipe.warmup_epochs=1", "recipe.schedule_by=step"], []),
        (
            ["recipe.mix_probability=0.5", "recipe.mix_switch=0.3"],
            ["mix_probability 0.5: neither mixup nor cutmix", "mix_switch 0.3: not both mixup and cutmix"],
        ),
        (
            ["recipe.mixup=0.2", "recipe.mix_switch=0.3", "recipe.mix_probability=0"],
            ["mix_switch 0.3: not both mixup and cutmix", "mixup: mix_probability is 0"],
        ),
        (
            ["recipe={epochs: 3, lr: 0.1, repeats: 2}"],
            ["repeats 2: nothing is random about an image, so that its copies are equal"],
        ),
        (["recipe.eval_every=20"], []),
        (["recipe.eval_every=21"], ["eval_every 21: more than 20 epochs; only the last is evaluated"]),
        (
            ["recipe.epochs=1", "recipe.warmup_steps=23"],
            ["warmup_steps 23: the run has 23 steps and never reaches the full rate"],
        ),
        (["recipe.epochs=1", "recipe.warmup_steps=22"], []),
        (
            ["methods.kd.weights.ce=0", "recipe.label_smoothing=0.1", "teachers.recipe=digits_quick"],
            ["kd: label_smoothing 0.1: the loss weight of ce is 0"],
        ),
        (["methods.kd.weights.kd=0"], ["kd: weights: all but that of ce are 0, so that nothing is distilled"]),
        (
            ["methods.kd.use=lskd", "methods.kd.params={alpha: 2, warmup: 20}"],
            ["kd: params alpha 2.0: used only with base dkd, which is kd"],
        ),
        (
            ["methods.kd.use=rekd", "methods.kd.params={selection: mean, tau: 2}"],
            ["kd: params tau 2.0: used only with selection soft, which is mean"],
        ),
        (
            ["recipe.teacher_top_k=3", "methods={student: , fitnets: }"],
            ["teacher_top_k 3: no method here reads nothing but the teacher's logits"],
        ),
        (["recipe.views={strong: {flip: true}}"], ["views strong: no method here reads it"]),
        (
            ["methods.kd.use=fitnets", "methods.kd.recipe.teacher_top_k=3"],
            ["kd: teacher_top_k 3: is for a method that reads nothing but the teacher's logits"],
        ),
        (
            ["methods.kd.use=ab", "methods.kd.params.first_epochs=0"],
            ["kd: params first_epochs 0: the method distils in its first stage only, so that nothing is distilled"],
        ),
        (
            ["teachers.recipe={base: digits_quick, eval_every: 30}"],
            ["teacher digits_net_w8: eval_every 30: more than 20 epochs; only the last is evaluated"],
        ),
        (  # of two teachers of one model, one
            ["recipe.eval_every=3", "pairs=[{teacher: digits_net_w8, student: digits_net_w4, teacher_epoch: 2}, "
             "{teacher: digits_net_w8, student: digits_net_w4}]"],
            ["teacher digits_net_w8: eval_every 3: more than 2 epochs; only the last is evaluated"],
        ),
        (
            ["teachers.seed=1", f"pairs.0.teacher_weights={{file: x, sha256: {'ab' * 32}}}"],
            ["teachers: no teacher is trained, as every pair has teacher_weights"],
        ),
    ],
)  # fmt: skip
def test_settings_without_effect_are_named(sets: list[str], expected: list[str]) -> None:
    assert list(idle_settings(plan(BASE, *sets))) == expected


def test_settings_without_effect_are_in_the_plan(tmp_path: Path) -> None:
    args = (
        "sweep",
        REPO / "benchmarks/digits_pairs.yaml",
        "--plan",
        "--results",
        tmp_path,
        "--set",
        "recipe.gamma=0.5",
    )
    text = "gamma 0.5: schedule cosine has no milestones"
    assert f"\nwarning: without effect: {text}\n" in run_command(*args).out
    assert json.loads(run_command(*args, "--json").out)["idle_settings"] == [text]


def test_settings_without_effect_are_under_the_tables(tmp_path: Path) -> None:
    contents = Contents.of("table", plan(BASE, "recipe.gamma=0.5"))
    assert "Without effect: gamma 0.5: schedule cosine has no milestones." in sweep_notes(contents)
    contents.write(tmp_path)
    assert Contents.read(tmp_path) == contents
    Contents.of("table", plan(BASE)).write(tmp_path)
    assert "idle_settings" not in (tmp_path / "contents.json").read_text(), "tables from before have the same bytes"


MISTAKES = """\
dataset: digits
recipe: {base: digits_quick, epochs: many}
methods:
  kd: {params: {temprature: 1, temperature: hot}, weights: {kt: 1}}
  kdd:
pairs:
  - {teacher: digits_net_w17, student: digits_net_w4, recipe: {lr: 1}}
seed: 1
"""


@pytest.mark.parametrize(
    "changes, places",
    [
        ({}, ["2 recipe.epochs", "4 methods.kd.params.temprature", "4 methods.kd.params.temperature",
              "4 methods.kd.weights.kt", "5 methods.kdd", "7 pairs.0.teacher", "8 seed", "- seeds"]),
        ({"seed": "seeds", "w17": "w8"}, ["2 recipe.epochs", "4 methods.kd.params.temprature",
              "4 methods.kd.params.temperature", "4 methods.kd.weights.kt", "5 methods.kdd"]),
        ({"seed": "seeds", "w17": "w8", "many": "3", "lr: 1": "lr: fast", "{kt: 1}": "{}", "temprature: 1, ": ""},
         ["4 methods.kd.params.temperature", "5 methods.kdd", "7 pairs.0.recipe.lr"]),
    ],
)  # fmt: skip
def test_all_mistakes_of_a_file_are_named_by_line(changes: dict[str, str], places: list[str], tmp_path: Path) -> None:
    text = MISTAKES
    for old, new in changes.items():
        text = text.replace(old, new)
    file = tmp_path / "s.yaml"
    file.write_text(text)
    result = run_command("sweep", file, "--plan")
    lines = [line.split(": ")[1:3] for line in result.err.splitlines()]
    assert [f"{place.removeprefix(f'{file}').strip(':') or '-'} {key}" for place, key in lines] == places
    assert result.code == 2 and result.out == ""


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"pairs": "a -> b"}, "pairs: expected a list of pairs, each {teacher: NAME, student: NAME}, found 'a -> b'"),
        ({"pairs": [["a", "b"]]}, "pairs.0: expected {teacher: NAME, student: NAME}, found ['a', 'b']"),
        ({"pairs": [{"teacher": "digits_net_w8", "student": ["digits_net_w4"]}]}, "write a pair for each"),
        ({"teacher": "digits_net_w8"}, "unknown key 'teacher'; it is a key of each of pairs: - {teacher: ...}"),
        ({"train_subset": 100}, "it is a key of dataset: dataset.train_subset"),
        ({"teachers": {"epochs": 30}}, "teachers.epochs: unknown key 'epochs'; it is a key of recipe: recipe.epochs"),
        ({"methods": "kd fitnets"}, "write [kd, fitnets]"),
        ({"methods": {"mine": {"use": "own.mine.Mine"}}}, "is it your own? write own.mine:Mine"),
        ({"methods": {"mine": {"use": "mine.py:Mine"}}}, "; write mine:Mine"),
        ({"methods": ["student", {"kd": {}}]}, "write `NAME: {params: ...}` for each, without dashes"),
        ({"methods": {"kd": {"params": {"temperature": "4"}}}}, "expected a number, found '4'; take the quotes away"),
        ({"recipe": {"name": "digits_quick", "epochs": 3}}, "to start from a recipe, write base: digits_quick"),
        ({"recipe": {"digits_quick": {"epochs": 3}}}, "to start from a recipe, write base: digits_quick"),
    ],
)
def test_habits_of_other_tools_are_answered_with_the_valid_form(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as e:
        plan({**BASE, **changes})
    assert message in str(e.value)


def test_of_many_mistakes_the_first_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as e:
        plan({**BASE, "seeds": [-1] * 30})
    assert str(e.value).split("\n")[19:] == [str(e.value).split("\n")[19], "and 10 more mistakes"]


@pytest.mark.parametrize(
    "value, seeds",
    [
        ("0-4", (0, 1, 2, 3, 4)), ("0-1, 7", (0, 1, 7)), ("3,4", (3, 4)), (["0-2", 9], (0, 1, 2, 9)), ("5 - 5", (5,)),
        ("4-0", "expected a range that rises, of at most 10,000 seeds, such as 0-4; found 4-0"),
        (["0-20000"], "expected a range that rises"), ("0-2,1", "seed 1 is listed twice"),
        ("3", "found '3'; take the quotes away; valid: 5, 0-4, [0, 2, 7]"),
        ("0..4", "found '0..4'; valid: 5, 0-4, [0, 2, 7]"), (["0-9999"] * 3000, "expected at most 10,000 entries"),
    ],
)  # fmt: skip
def test_ranges_of_seeds(value: object, seeds: tuple[int, ...] | str) -> None:
    data = {**BASE, "seeds": value}
    if isinstance(seeds, tuple):
        assert plan(data).sweep.seeds == seeds
        return
    with pytest.raises(UserError) as e:
        plan(data)
    assert seeds in str(e.value)


def test_a_wrong_value_of_set_is_named_by_the_option(tmp_path: Path) -> None:
    messages = {
        "recipe.epochs=x": "--set recipe.epochs: expected an integer, found 'x'",
        "recipe.lr=0,05": "--set recipe.lr: expected a number, found '0,05'; a decimal comma? write 0.05",
        "recipe.image_size=two": "--set recipe.image_size: expected an integer or a list, found 'two'",
        "methods.kd.params.temperature=": "--set methods.kd.params.temperature: expected a number, found nothing",
    }
    for text, message in messages.items():
        with pytest.raises(UserError) as e:
            plan({**BASE, "recipe": {"base": "digits_quick"}}, text)
        assert str(e.value) == message
    with pytest.raises(UserError, match=r"^--set seeds: 010 starts with a zero"):
        plan(BASE, "seeds=010")

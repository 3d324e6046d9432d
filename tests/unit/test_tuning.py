"""Tuning through the command line, with invented scores in place of training."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.planning import tuning
from harness.planning.plan import Planned, plan_sweep
from harness.planning.tuning_proposals import propose
from harness.spec.search_space import Dimension
from harness.store import checksums, files, json_files, records
from harness.store.store import Store
from harness.store.tuning_log import Trial, TuningLog
from tests.support.cli import CommandResult, run_command
from tests.support.comparisons import row

KD = {"search": {"params.temperature": [2, 4, 8], "weights.kd": {"log": [0.1, 10]}}}
HINT = {"params": {"tap": "stage1"}, "search": {"weights.hint": {"uniform": [1, 1000]}}}
SWEEP: dict[str, Any] = {
    "name": "small",
    "dataset": "digits",
    "recipe": {"base": "digits_quick", "epochs": 4},
    "methods": {"student": {}, "kd": KD, "fitnets": HINT},
    "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}],
    "seeds": 2,
    "tune": {"trials": 5, "together": 3},
}
Score = Callable[[Any], float | None]  # of a science; None: the run diverges


def highest_weight(science: Any) -> float:
    """Return a score that rises with the weight of what is distilled."""
    return sum(weight for term, weight in science.method.weights.items() if term != "ce") / 100


class Bench:
    """A sweep file, its store, and the runs that were trained."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.sweep = folder, SWEEP
        self.store = Store.at(folder / "results")
        self.trained: list[Any] = []  # sciences
        self.score: Score = highest_weight
        self.fails: Callable[[Any], bool] = lambda science: False
        self.stop_after = 10**9  # calls of the training
        self.calls = 0
        self.checked: Planned | None = None  # by the training
        monkeypatch.setattr(tuning, "train", self.train)

    @property
    def file(self) -> Path:
        path = self.folder / "small.yaml"
        path.write_text(yaml.safe_dump(self.sweep, sort_keys=False))
        return path

    def tune(self, *args: object) -> CommandResult:
        return run_command("tune", self.file, "--results", self.store.root, *args)

    def log(self) -> TuningLog:
        return json_files.read_checked(TuningLog, self.store.tuning("small"))

    def train(self, request: Any, planned: Planned, retry_failed: bool, checked: Any, part: str) -> dict[str, str]:
        self.calls += 1
        self.checked = checked
        notification, before = request.notification, len(self.trained)
        queue_file = self.store.queue("small-tuning-00000000")
        tell = notification.of_stage(planned, set(planned.plan.runs), queue_file, part) if notification else len
        for run_id, state in planned.states().items() if self.calls <= self.stop_after else ():
            science = planned.plan.runs[run_id].science
            if state == "done" or (state == "failed" and not retry_failed):
                continue
            self.trained.append(science)
            if self.fails(science):
                self.store.write_failure(run_id, "code", "it breaks", "", "log")
                continue
            value = self.score(science)
            status = "done" if value is not None else "diverged"
            on = "validation" if science.dataset.validation else "test"
            more = {"status": status, "evaluated_on": on, "science": science.text, "seed": science.seed}
            self.store.records.mkdir(parents=True, exist_ok=True)
            records.write_record(self.store, row(run_id, value, value, **more))
            self.store.failure_file(run_id).unlink(missing_ok=True)
        tell("" if before < len(self.trained) else "no job")
        return planned.states()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_trials_hold_images_out_and_have_seeds_of_their_own_and_the_final_has_neither(bench: Bench) -> None:
    result = bench.tune()
    assert result.code == 0, result.err
    log = bench.log()
    tuned = [s for s in bench.trained if s.dataset.validation]
    final = [s for s in bench.trained if not s.dataset.validation]
    assert {s.seed for s in tuned if s.teacher} == {1000} == set(log.seeds)
    assert {s.dataset.validation for s in tuned} == {140} == {log.validation}, "a tenth, as many of each class"
    assert len([s for s in tuned if not s.teacher]) == 1, "a teacher for the trials, without the held-out images"
    assert len([s for s in final if not s.teacher]) == 3 and {s.seed for s in final} == {0, 1}
    assert [(t.method, t.number, t.round) for t in log.trials if t.method == "kd"] == [
        ("kd", 0, 0), ("kd", 1, 0), ("kd", 2, 0), ("kd", 3, 1), ("kd", 4, 1),
    ]  # fmt: skip
    assert log.trials[0].settings == {"params.temperature": 4.0, "weights.kd": 0.9}, "the entry's own come first"
    assert {t.images for t in log.trials} == {(1442 - 140) * 4}
    best = max((t for t in log.trials if t.method == "kd"), key=lambda t: t.settings["weights.kd"])
    assert log.winner("kd") == best
    kd = next(s for s in final if s.method.use == "kd")
    assert {"params.temperature": kd.method.params["temperature"], "weights.kd": kd.method.weights["kd"]} == (
        best.settings
    )
    assert "best so far" in result.err and "round 2 of 2" in result.err
    assert run_command("verify", "--results", bench.store.root).code == 0


def test_interrupted_it_goes_on_with_the_same_trials_and_trains_nothing_twice(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.tune().code == 0
    whole = bench.log()
    (tmp_path / "other").mkdir()
    other = Bench(tmp_path / "other", monkeypatch)
    other.stop_after = 1
    assert other.tune().code == 1
    assert run_command("verify", "--results", other.store.root).code == 0, "the tables are those of the log"
    assert other.log().trials == tuple(t for t in whole.trials if t.round == 0)
    other.stop_after = 10**9
    other.store.tuning("small").unlink()  # killed before it was written
    result = other.tune()
    assert result.code == 0 and other.log() == whole
    ids = [s.run_id for s in other.trained]
    assert len(ids) == len(set(ids))
    assert other.tune().code == 0 and len(other.trained) == len(ids)


def test_a_longer_tuning_begins_with_the_same_trials(bench: Bench) -> None:
    assert bench.tune("--no-final").code == 0
    before = bench.log()
    bench.trained.clear()
    result = bench.tune("--no-final", "--set", "tune.together=3")
    assert "starts again" not in result.err
    bench.sweep = {**SWEEP, "tune": {"trials": 6, "together": 3}}
    result = bench.tune("--no-final")
    assert "starts again" in result.err
    aside = bench.store.tuning(f"small-{before.identity[:8]}")
    assert json_files.read_checked(TuningLog, aside) == before and str(aside) in result.err
    assert [t.settings for t in bench.log().trials if t.number < 5] == [t.settings for t in before.trials]


def test_a_rung_stops_the_worse_of_a_round_and_spares_the_own_settings(bench: Bench) -> None:
    bench.sweep = {**SWEEP, "tune": {"trials": 6, "together": 3, "rungs": [1, 2], "keep": 0.5}}
    assert bench.tune().code == 0
    for method in ("kd", "fitnets"):
        trials = bench.log().of_method(method)
        by_round = [[t for t in trials if t.round == r] for r in (0, 1)]
        assert [(t.state, t.epochs) for t in by_round[0]][0] == ("done", 4)
        assert sorted(t.epochs for t in by_round[0][1:]) == [1, 4]
        assert sorted(t.epochs for t in by_round[1]) == [1, 1, 4]
        best = max(by_round[1], key=lambda t: t.value or 0)
        assert (best.state, best.images) == ("done", (1442 - 140) * (1 + 2 + 4))
        assert {t.images for t in trials if t.state == "stopped"} == {1442 - 140}
    images = {m: sum(t.images for t in bench.log().of_method(m)) for m in ("kd", "fitnets")}
    assert (
        images["kd"] == images["fitnets"] == json.loads(bench.tune("--plan", "--json").out)["methods"]["kd"]["images"]
    )
    assert {s.recipe.stop_epoch for s in bench.trained if s.dataset.validation} == {None, 1, 2}


def test_a_grid_tries_every_combination_and_an_unequal_budget_is_told(bench: Bench) -> None:
    grid = {"params.temperature": [2, 4, 8], "weights.kd": [0.9, 3]}
    methods = {"kd": {"search": grid}, "fitnets": {**HINT, "search": {"weights.hint": [1, 3]}}}
    bench.sweep = {**SWEEP, "methods": methods, "tune": {"sampler": "grid", "together": 4}}
    result = bench.tune()
    assert result.code == 0, result.err
    kd, fitnets = map(bench.log().of_method, methods)
    assert sorted((t.settings["params.temperature"], t.settings["weights.kd"]) for t in kd) == [
        (t, w) for t in (2, 4, 8) for w in (0.9, 3)
    ]
    assert kd[0].settings == {"params.temperature": 4, "weights.kd": 0.9}, "listed, so that it is not tried again"
    assert [t.settings["weights.hint"] for t in fitnets] == [100, 1, 3]
    assert "warning: unequal budgets: kd is tuned more" in result.err
    assert "Unequal budgets of tuning: more images than most for kd" in result.out


def test_failed_and_diverged_trials_lose_and_end_nothing(bench: Bench) -> None:
    bench.score = lambda s: None if s.method.weights.get("kd", 0) > 2 else highest_weight(s)
    bench.fails = lambda s: s.method.weights.get("hint", 0) > 500
    assert bench.tune().code == 0
    log = bench.log()
    states = {t.number: (t.state, t.value) for t in log.of_method("kd") if t.settings["weights.kd"] > 2}
    assert states and set(states.values()) == {("diverged", None)}
    failed = [t for t in log.of_method("fitnets") if t.settings["weights.hint"] > 500]
    assert failed and {(t.state, t.value, t.images) for t in failed} == {("failed", None, (1442 - 140) * 4)}
    assert len(log.trials) == 10 and log.winner("kd") and log.winner("fitnets")
    told = run_command("status", bench.file, "--results", bench.store.root, "--failures").out
    for trial in failed:
        assert f"  {trial.run_ids[0]}  tuning: trial {trial.number} of fitnets" in told.splitlines()
    assert told.startswith(f"{len(failed)} failed, 1 cause\n"), "the entry's own settings and those that won did not"
    bench.fails = lambda s: False
    before = len(bench.trained)
    assert bench.tune().code == 0 and len(bench.trained) == before
    assert bench.tune("--retry-failed").code == 0
    assert not [t for t in bench.log().trials if t.state == "failed"]
    assert bench.log().winner("fitnets") != log.winner("fitnets")


def test_without_a_trial_to_the_end_the_own_settings_stay(bench: Bench) -> None:
    bench.fails = lambda s: bool(s.dataset.validation) and s.method.use == "kd"
    result = bench.tune("--no-final", "--json")
    assert result.code == 1 and json.loads(result.out)["tuning"]["untuned"] == ["student"]
    assert "kd: 5 trials, none of which was trained to the end" in result.err
    bench.trained.clear()
    assert bench.tune().code == 0
    assert {s.method.weights["kd"] for s in bench.trained if s.method.use == "kd"} == {0.9}


def test_all_rounds_together_are_told_once(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notify = ("--notify", 'echo "$KD_EVENT $KD_SWEEP: ${KD_SUMMARY%, *}" >> told')
    assert f"stuck, this runs: {notify[1]}" in bench.tune("--plan", *notify).out
    assert bench.tune("--notify", "a '").error.startswith("--notify: expected a command for the shell, which says: ")
    bench.fails = lambda s: bool(s.dataset.validation) and s.method.use == "fitnets"
    bench.stop_after = 2
    assert bench.tune(*notify).code == 1
    head = f"small: kd: small on {os.uname().nodename}: tuning:"
    failed, stuck = (tmp_path / "told").read_text().splitlines()
    assert failed.startswith(f"failed {head} first failure, in round 1 of 2: digits_net_w8 > digits_net_w4 / fitnets")
    assert failed.endswith("): it breaks") and stuck == f"stuck {head} stuck in the final runs: no job"
    bench.stop_after = 10**9
    assert bench.tune(*notify).code == 0
    assert (tmp_path / "told").read_text().splitlines()[2:] == [
        f"done {head} all done, 10 trials, 5 of them failed, 7 of 7 final runs done"
    ]


def test_of_equal_trials_the_earliest_wins(bench: Bench) -> None:
    bench.score = lambda science: 50.0
    assert bench.tune("--no-final").code == 0
    assert {bench.log().winner(m).number for m in ("kd", "fitnets")} == {0}  # type: ignore[union-attr]


def test_the_written_sweep_has_the_final_runs_wherever_its_recipes_and_weights_lie(bench: Bench) -> None:
    (bench.folder / "recipes").mkdir()
    (bench.folder / "recipes" / "mine.yaml").write_text("epochs: 3\nlr: 0.1\n")
    (bench.folder / "recipes" / "other.yaml").write_text("epochs: 3\nlr: 0.1\n")
    (bench.folder / "weights.pth").write_bytes(b"0")
    given = {**SWEEP["pairs"][0], "teacher_weights": {"file": "weights.pth"}}
    pair = {"teacher": "digits_net_w8", "student": "digits_net_w16", "methods": {"kd": {"weights": {"ce": 2}}}}
    bench.sweep = {**SWEEP, "recipe": "mine", "pairs": [given, pair]}
    bench.sweep["methods"] = {**SWEEP["methods"], "kd": {**KD, "recipe": {"base": "mine", "lr": 0.2}}}
    for options in ((), ("--set", "recipe={base: mine, momentum: 0.5}", "--only", "method=kd", "--only", "seed=1")):
        bench.trained.clear()
        result = bench.tune(*options, "--json")
        assert result.code == 0, result.err
        tuned = Path(json.loads(result.out)["tuned"])
        assert (tuned.parent / "recipes" / "mine.yaml").exists()
        assert not (tuned.parent / "recipes" / "other.yaml").exists()
        planned = plan_sweep(tuned, bench.store.root)
        assert planned.name == json.loads(result.out)["sweep"]
        final = {s.run_id for s in bench.trained if not s.dataset.validation}
        assert final and final <= set(planned.plan.runs) and set(planned.states().values()) == {"done"}
        assert "without effect" not in run_command("sweep", tuned, "--results", bench.store.root, "--plan").err
    for command in (("status", bench.file), ("transfer", "--to", "digits", "--sweep", bench.file)):
        told = run_command(*command, "--results", bench.store.root).err
        assert "name " in told and "tuned.yaml for those that the tuning chose" in told
    plan = run_command("sweep", bench.file, "--results", bench.store.root, "--plan").out
    assert plan.count("only `python -m harness.tune` reads them") == 1


def test_the_written_sweep_of_a_long_name_with_overrides_can_be_read(bench: Bench) -> None:
    bench.sweep = {**SWEEP, "name": "n" * 64}
    tuned = json.loads(bench.tune("--set", "recipe.epochs=3", "--json").out)["tuned"]
    assert set(plan_sweep(Path(tuned), bench.store.root).states().values()) == {"done"}


def test_settings_that_a_sweep_file_may_not_have_are_not_proposed(bench: Bench) -> None:
    search = {"recipe.min_lr": {"log": [0.01, 10]}, "recipe.batch_size": {"log": [16, 256]}}
    recipe = {**SWEEP["recipe"], "schedule": "cosine", "milestones": []}
    bench.sweep = {**SWEEP, "recipe": recipe, "methods": {"kd": {"search": search}}}
    assert bench.tune("--no-final").code == 0
    trials = bench.log().of_method("kd")
    assert len(trials) == 5 and all(t.settings["recipe.min_lr"] <= 0.2 for t in trials)
    assert all(isinstance(t.settings["recipe.batch_size"], int) for t in trials)


def test_a_search_is_set_on_the_command_line_by_its_key(bench: Bench) -> None:
    option = "methods.kd.search.params.temperature"
    log = json.loads(bench.tune("--no-final", "--json", "--set", f"{option}=[2, 16]").out)["tuning"]
    assert {trial["settings"]["params.temperature"] for trial in log["trials"] if trial["method"] == "kd"} <= {2, 4, 16}
    assert bench.tune("--set", "methods.kd.search.weights.kd.lg=[1, 2]").error.startswith(
        "--set methods.kd.search.weights.kd.lg: unknown key 'lg'; did you mean 'log'?"
    )


def test_before_the_first_round_each_listed_value_takes_a_step_and_is_named(bench: Bench) -> None:
    taps = {"params.tap": ["stage1", "stage9"], "weights.hint": [1, 10]}
    kd = {"recipe": {"schedule": "cosine", "milestones": [], "min_lr": 0.01}, "search": {"recipe.nesterov": [True]}}
    bench.sweep = {**SWEEP, "methods": {"kd": kd, "fitnets": {**HINT, "search": taps}}}
    bench.stop_after = 0
    assert bench.tune().code == 1 and bench.checked
    labels = [run.label.split(" / ")[1] for run in bench.checked.plan.runs.values() if run.science.teacher]
    search = "methods.fitnets.search.params.tap"
    assert labels == ["kd", "fitnets", "methods.kd.search.recipe.nesterov True", f"{search} stage9"]
    bench.stop_after = 10**9
    assert bench.tune("--no-check").code == 0 and bench.checked is None


def test_a_final_seed_is_none_of_the_tuning(bench: Bench) -> None:
    bench.sweep = {**SWEEP, "seeds": [0, 1000]}
    assert bench.tune("--no-final").code == 0 and bench.log().seeds == (1001,)
    runs = plan_sweep(Path(bench.store.tuned_sweep("small")), bench.store.root).plan
    cell = next(cell for cell in runs.cells if cell.method == "kd")
    added = cell.to_json() | {"seed": 1001, "run_id": runs.runs[cell.run_id].science.with_seed(1001).run_id}
    files.replace_json(bench.store.added_seeds("small"), checksums.seal_value([added]))
    assert "seed 1001 has served the tuning" in bench.tune().err


def test_a_damaged_log_is_refused(bench: Bench) -> None:
    assert bench.tune("--no-final").code == 0
    path, log = bench.store.tuning("small"), bench.log()
    path.write_text(path.read_text().replace('"number": 1', '"number": 7'))
    assert bench.tune().error.startswith(f"{path}: damaged: its content does not match its checksum")
    trials = (replace(log.trials[1], settings={"weights.kd": 1e9, "params.temperature": 2.0}), *log.trials[1:])
    files.replace_json(path, checksums.seal_value(asdict(replace(log, trials=trials))))
    assert bench.tune().error.startswith(f"{path}: damaged: a trial has other settings than the search")
    path.write_text(json.dumps(asdict(replace(log, trials=(replace(log.trials[0], value=99.0), *log.trials[1:])))))
    assert "trial 0 of kd has another score than the records of its runs" in bench.tune().error
    verified = run_command("verify", "--results", bench.store.root)
    assert verified.code == 1 and "trial 0 of kd has another score" in verified.out


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tune": None}, "tune: is required and missing, for example"),
        ({"methods": ["student", "kd"]}, "methods: none of them has a `search`"),
        ({"tune": {"trials": 3, "rungs": [4]}}, "tune.rungs: expected epochs before the last one, 4, found 4"),
        ({"tune": {"trials": 3, "validation": 55}}, "tune.validation: validation must be a multiple of 10"),
        ({"tune": {"sampler": "grid"}}, "kd.search.weights.kd: sampler grid tries every combination of lists"),
        ({"tune": {"sampler": "grid", "trials": 3}}, "tune: trials: sampler grid tries every combination"),
        ({"tune": {"trials": 3, "keep": 0.3}}, "tune: keep is without effect where no rungs are stated"),
        ({"tune": {}}, "tune: trials is required and missing"),
        ({"dataset": {"name": "digits", "validation": 50}}, "dataset.validation: the final runs are evaluated on"),
        ({"methods": {"kd": KD, "kd.1": {"use": "kd"}}}, "methods.kd.1: a trial of kd has this name"),
        (
            {
                "recipe": {"base": "digits_quick", "epoch_steps": 5},
                "methods": {"kd": {"search": {"recipe.batch_size": [16, 64]}}},
            },
            "kd.search.recipe.batch_size: with epoch_steps it decides how many images a trial trains on",
        ),
    ],
)
def test_a_mistake_in_a_tuning_is_told(bench: Bench, change: dict[str, Any], message: str) -> None:
    bench.sweep = {**SWEEP, **change}
    assert message in bench.tune().err
    assert not bench.store.root.exists()


@pytest.mark.parametrize(
    "search, message",
    [
        ({"params.temprature": [2]}, "search.params.temprature: unknown hyper-parameter of kd 'temprature'; did you"),
        ({"weight.kd": [2]}, "search.weight.kd: unknown part of an entry 'weight'; did you mean 'weights'?"),
        ({"params.": [2]}, "search.params.: unknown hyper-parameter of kd ''"),
        ({"weights.kd": [2, True]}, "search.weights.kd: expected a number, found true"),
        ({"weights.kd": []}, "search.weights.kd: expected at least one value"),
        ({"weights.kd": [1, 1.0]}, "search.weights.kd: 1.0 is listed twice"),
        ({"weights.kd": 3}, "search.weights.kd: expected a list or a mapping of keys to values, found 3"),
        ({"weights.kd": {"log": [0, 1]}}, "search.weights.kd: log: expected numbers above 0"),
        ({"weights.kd": {"log": [2, 1]}}, "search.weights.kd: expected the lowest number before a higher one"),
        ({"weights.kd": {}}, "search.weights.kd: expected one of log and uniform, found neither"),
        ({"weights.kd": {"lg": [1, 2]}}, "search.weights.kd.lg: unknown key 'lg'; did you mean 'log'?"),
        ({"recipe.lrr": [1]}, "search.recipe.lrr: unknown key of recipe 'lrr'; did you mean 'lr'?"),
        ({"recipe.flip": [True]}, "search.recipe.flip: with another flip than the others a method is not comparable"),
        ({"recipe.epochs": [3]}, "search.recipe.epochs: decides how many images"),
        ({"recipe.momentum": {"uniform": [0.5, 2]}}, "search.recipe.momentum: must be less than 1, found 2"),
        ({"recipe.batch_size": {"log": [2.5, 9]}}, "search.recipe.batch_size: expected integers as lowest and"),
        ({"recipe.schedule": {"log": [1, 2]}}, "search.recipe.schedule: takes no number"),
    ],
)
def test_a_mistake_in_a_search_is_told_by_every_command(bench: Bench, search: Any, message: str) -> None:
    bench.sweep = {**SWEEP, "methods": {"student": {"wights": {}}, "kd": {"search": search}}}
    result = run_command("sweep", bench.file, "--results", bench.store.root, "--plan")
    assert result.code == 2 and message in result.err and "methods.student.wights" in result.err


def test_a_pair_cannot_state_what_is_searched(bench: Bench) -> None:
    search = {"weights.kd": [1, 2], "recipe.lr": [0.1]}
    for place, searched, changes in (
        ("pairs.0.methods.kd.weights.kd", "weights.kd", {"methods": {"kd": {"weights": {"kd": 1}}}}),
        ("pairs.0.recipe.lr", "recipe.lr", {"recipe": {"lr": 0.1}}),
        ("pairs.0.recipe.base", "recipe.lr", {"recipe": {"base": "digits_quick"}}),
        ("pairs.0.methods.kd.recipe.base", "recipe.lr", {"methods": {"kd": {"recipe": {"base": "digits_quick"}}}}),
    ):
        bench.sweep = {**SWEEP, "methods": {"kd": {"search": search}}, "pairs": [{**SWEEP["pairs"][0], **changes}]}
        assert f"{place}: methods.kd searches {searched}, to no effect here" in bench.tune().err
    bench.sweep["pairs"] = [{**SWEEP["pairs"][0], "methods": {"kd": {"search": search}}}]
    assert "pairs.0.methods.kd.search: is for an entry" in bench.tune().err


def trials(space: dict[str, Dimension], sampler: str, seed: int, count: int = 12) -> list[dict[str, Any]]:
    """Return what is proposed in rounds of 4, when larger values are better."""
    known: list[Trial] = []
    tried: list[dict[str, Any]] = []

    def accept(settings: dict[str, Any]) -> bool:
        is_new = settings not in tried
        tried.extend([settings] * is_new)
        return is_new

    while len(known) < count and (proposed := propose(space, known, 4, sampler, seed + len(known), accept)):
        known += [Trial("m", 0, 0, settings, (), 1, 1, sum(settings.values()), "done") for settings in proposed]
    return [t.settings for t in known]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_equal_seeds_propose_equal_settings_of_the_search(sampler: str) -> None:
    space = {"a": Dimension(low=0.1, high=10, is_log=True), "b": Dimension(low=1, high=50, is_integer=True)}
    proposed = trials(space, sampler, 1)
    assert proposed == trials(space, sampler, 1) != trials(space, sampler, 2)
    assert proposed == trials(dict(reversed(space.items())), sampler, 1), "whichever key the file lists first"
    assert all(0.1 <= s["a"] <= 10 and float(f"{s['a']:.3g}") == s["a"] for s in proposed)
    assert all(type(s["b"]) is int and 1 <= s["b"] <= 50 for s in proposed)
    listed = {"a": Dimension((1, 2, 3)), "b": Dimension((1, 2))}
    every = trials(listed, sampler, 1)
    assert len(every) == 6 and sorted(map(str, every)) == sorted(
        str({"a": a, "b": b}) for a in (1, 2, 3) for b in (1, 2)
    )


def test_a_narrow_range_has_as_many_values_as_a_wide_one() -> None:
    for low, high in ((0.99, 0.9999), (0.001, 0.1)):
        tried = trials({"a": Dimension((), low, high)}, "random", seed=0, count=40)
        assert len({settings["a"] for settings in tried}) == 40
    assert Dimension((), 0.99, 0.9999).rounded(0.99123456) == 0.99123
    assert Dimension((), 0.1, 10.0).rounded(0.123456) == 0.123


def test_tpe_comes_nearer_to_the_best_than_chance() -> None:
    space = {"a": Dimension(low=0, high=1), "b": Dimension(low=0, high=1)}
    tpe, random = ([trials(space, name, 100 * i, 24)[12:] for i in range(5)] for name in ("tpe", "random"))
    assert sum(sum(s.values()) for of_seed in tpe for s in of_seed) > 1.2 * sum(
        sum(s.values()) for of_seed in random for s in of_seed
    )


def test_without_optuna_the_extra_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "optuna is not installed: pip install 'kd-harness[tune]', or use sampler: grid" in bench.tune().err

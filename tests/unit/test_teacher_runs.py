"""Teachers that are runs of the sweep, several teachers and early-stopped ones: texts, identity, packs and errors."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from harness.errors import UserError
from harness.models.renormalisation import Renormalisation
from harness.models.taps import describe_taps
from harness.models.zoo import build_model
from harness.planning.cost.makespan import Job, makespan
from harness.planning.plan import Planned, plan_sweep
from harness.spec.normalisation import Normalisation
from harness.spec.science import Given, Science, Several, Trained
from harness.spec.sweep_plan import Cell, Plan
from harness.spec.teacher_order import teacher_levels
from harness.spec.teacher_reference import TeacherReference, split_outside_brackets
from harness.store import files
from harness.training.check import Checker
from harness.training.check_order import CheckOrder, CheckResult, RunToCheck, State
from harness.training.job_order import WeightsFile
from harness.training.tasks import open_task
from harness.training.teacher_ensemble import TeacherEnsemble, combined_spec, ensemble
from harness.training.untrained_weights import write_untrained_weights
from slurm import commands
from slurm.cluster import Cluster
from slurm.queue import Queue, QueuedJob
from tests.support import packs, user_methods
from tests.support.cli import run_command
from tests.support.leaderboard_records import put, record
from tests.support.sciences import make_science

W4, W8, W16, W32 = (f"digits_net_w{width}" for width in (4, 8, 16, 32))
BY_KD = {"run": {"student": W8, "method": "kd"}}
BASE: dict[str, Any] = {"dataset": "digits", "recipe": "digits_quick", "methods": {"student": {}, "kd": {}}, "seeds": 1}
CHAIN: list[dict[str, Any]] = [{"teacher": BY_KD, "student": W4}, {"teacher": W32, "student": W8}]


def pairs(*pairs: Any, **changes: Any) -> dict[str, Any]:
    return {**BASE, "pairs": list(pairs), **changes}


def plan(data: dict[str, Any]) -> Plan:
    with TemporaryDirectory() as folder:
        return planned_file(Path(folder), data).plan


def run_ids(cells: list[Cell]) -> dict[tuple[str, str, str, int], str]:
    return {(*cell.line, cell.seed): cell.run_id for cell in cells}


@pytest.mark.parametrize(
    "value, text",
    [
        (W8, W8),
        (BY_KD, f"{W8} by kd"),
        ({"run": {"student": W8, "method": "kd", "seed": 2, "teacher": W32}}, f"{W8} by kd with seed 2 from {W32}"),
        ([W8, {"name": W4}], f"{W8} + {W4}"),
        ([W32, BY_KD], f"{W32} + {W8} by kd"),
        ({"run": {"student": W8, "method": "kd", "teacher": [W32, W16]}}, f"{W8} by kd from ({W32} + {W16})"),
        (
            {"run": {"student": W8, "method": "kd", "teacher": f"{W32} after epoch 3"}},
            f"{W8} by kd from ({W32} after epoch 3)",
        ),
        (
            {"run": {"student": W4, "method": "kd", "teacher": {"run": {"student": W8, "method": "kd", "seed": 1}}}},
            f"{W4} by kd from {W8} by kd with seed 1",
        ),
        ([{"name": "m", "params": {"a": "x) + (y", "b": 2}}, W4], f'm(a="x) + (y", b=2) + {W4}'),
        (f"({W8} + {W4}) after epoch 3", f"({W8} + {W4}) after epoch 3"),
    ],
)
def test_a_teachers_text_is_read_back(value: Any, text: str) -> None:
    reference = TeacherReference.of(value)
    assert reference.text == text and TeacherReference.parse(text) == reference


def test_a_selection_may_have_commas_in_brackets() -> None:
    assert split_outside_brackets('m(a=1, b=","),n', ",") == ['m(a=1, b=",")', "n"]


def test_a_chain_is_one_run_after_the_other_and_each_trains_once() -> None:
    chain = plan(pairs(*CHAIN, seeds=[0, 1]))
    ids = run_ids(chain.cells)
    assistant, student = ids[W32, W8, "kd", 0], ids[f"{W8} by kd", W4, "kd", 0]
    science = chain.runs[student].science
    assert science.teacher == Trained(W8, assistant), "the cell of the comparison is the teacher"
    assert chain.runs[student].label == f"{W8} by kd > {W4} / kd / seed 0"
    place = {run_id: i for i, pack in enumerate(chain.packs) for run_id in pack.run_ids}
    assert len(place) == len(chain.runs) == 1 + 8
    (teacher,) = chain.runs[assistant].science.teacher_runs
    assert place[teacher] < place[assistant] < place[student]
    packs = [chain.packs[place[run_id]] for run_id in (teacher, assistant, student)]
    assert packs[1].run_ids == (assistant,), "in a process of its own, as it may be waited for"
    assert [pack.needs for pack in packs[1:]] == [before.run_ids[0] for before in packs[:2]]


def test_a_chains_ids_change_with_the_assistants_method() -> None:
    plain = run_ids(plan(pairs(CHAIN[1])).cells)
    chain = run_ids(plan(pairs(*CHAIN)).cells)
    assert plain.items() <= chain.items(), "who learns from a run does not change it"
    colder = {"params": {"temperature": 2}}
    changed = run_ids(plan(pairs(*CHAIN, methods={"student": {}, "kd": colder})).cells)
    other = pairs(CHAIN[0], {**CHAIN[1], "methods": {"kd": colder}})
    assistants = run_ids(plan(other).cells)
    line = (f"{W8} by kd", W4, "kd", 0)
    assert len({ids[line] for ids in (chain, changed, assistants)}) == 3
    assert chain[f"{W8} by kd", W4, "student", 0] == assistants[f"{W8} by kd", W4, "student", 0]


def test_a_chain_of_any_length() -> None:
    links = [{"teacher": W32, "student": W4}]
    for student in (W8, W16) * 15:
        run = {"student": links[-1]["student"], "method": "kd", "teacher": links[-1]["teacher"]}
        links.append({"teacher": TeacherReference.of({"run": run}).text, "student": student})
    planned = plan(pairs(*reversed(links), methods=["kd"]))
    levels = teacher_levels({k: run.science.teacher_runs for k, run in planned.runs.items()})
    assert sorted(levels.values()) == list(range(32))
    order = [levels[k] for pack in planned.packs for k in pack.run_ids]
    assert order == sorted(order), "teachers come first, though the file lists them last"


def test_only_keeps_what_a_chain_needs(tmp_path: Path) -> None:
    planned = planned_file(tmp_path, pairs(*CHAIN, seeds=2), f"teacher={W8} by kd", "method=kd", "seed=1")
    assert [run.label for run in planned.plan.runs.values()] == [
        f"teacher {W32} / seed 0",
        f"{W32} > {W8} / kd / seed 0",
        f"{W8} by kd > {W4} / kd / seed 1",
    ]


def planned_file(folder: Path, data: dict[str, Any], *only: str) -> Planned:
    (folder / "s.yaml").write_text(json.dumps(data))
    return plan_sweep(folder / "s.yaml", folder / "results", only=only)


def run_of(**keys: Any) -> dict[str, Any]:
    return {"teacher": {"run": {"student": W8, "method": "kd", **keys}}, "student": W4}


@pytest.mark.parametrize(
    "data, message",
    [
        (pairs(CHAIN[0], {"teacher": {"run": {"student": W4, "method": "kd"}}, "student": W8}), "a circle, in which"),
        (pairs({"teacher": {"run": {"student": W4, "method": "kd"}}, "student": W4}), "a circle, in which"),
        (pairs(*CHAIN, {"teacher": W16, "student": W8}), f"such a run: {W32} > {W8}; {W16} > {W8}; tell them apart"),
        (pairs(run_of(teacher=W16), CHAIN[1]), f"run.teacher: unknown teacher of {W8} '{W16}'"),
        (pairs(run_of(method="kdd"), CHAIN[1]), "run.method: unknown method of this sweep 'kdd'; did you mean 'kd'"),
        (pairs(run_of(student=W16), CHAIN[1]), f"run.student: unknown student '{W16}'"),
        (pairs(run_of(sede=1), CHAIN[1]), "unknown key of run 'sede'; did you mean 'seed'"),
        (pairs(run_of(seed="x"), CHAIN[1]), "run.seed: expected a seed, found 'x'"),
        (pairs({**CHAIN[0], "teacher_epoch": 3}, CHAIN[1]), "teacher_epoch: is for teachers that the sweep trains"),
        (pairs({**CHAIN[0], "teacher_weights": {"file": "f"}}, CHAIN[1]), "is for models; this teacher is a run"),
        (pairs(*CHAIN, methods={"student": {}, "kd": {"use": "simkd"}}), "so that it cannot teach"),
        (pairs({"teacher": [W8], "student": W4}), "expected a list of at least two teachers"),
        (pairs({"teacher": {"runs": {"student": W8}}, "student": W4}), "{run: {student: NAME, method: NAME}} or a "),
        (pairs({"teacher": [W8, W8], "student": W4}), f"{W8} stands twice for the same weights"),
        (pairs({"teacher": [W8, 3], "student": W4}), "expected a model's name, {name: NAME, params: "),
        (pairs({"teacher": [W8, W16], "student": W4, "teacher_weights": {"file": "f"}}), "expected a list of 2"),
        (pairs({"teacher": [W8, W16], "student": W4, "teacher_weights": [None]}), "expected a list of 2, as there are"),
        (
            pairs({"teacher": [W8, W16], "student": W4, "teacher_weights": [{"fil": "f"}, None]}),
            "pairs.0.teacher_weights.0.fil: unknown key 'fil'; did you mean 'file'",
        ),
        (pairs({"teacher": W8, "student": W4, "teacher_weights": 5}), "teacher_weights: expected a mapping of keys"),
        (
            pairs({"teacher": [W8, W16], "student": W4, "methods": {"kd": {"use": "crd"}}}),
            f"crd reads more of a teacher than its logits, of which alone there is a mean of {W8} + {W16}; defined for",
        ),
        (
            pairs({"teacher": [W8, W16], "student": W4}, methods=["wkd_l"]),
            "wkd_l reads more of a teacher than its logits",
        ),
        (pairs({"teacher": W8, "student": W4, "teacher_epoch": 21}), "at most the teachers' epochs, 20, found 21"),
        (
            {**pairs(CHAIN[1]), "recipe": {"base": "digits_quick", "stop_epoch": 21}},
            "stop_epoch must be at most epochs, 20",
        ),
    ],
)
def test_a_wrong_teacher_is_refused_in_words(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        plan(data)
    assert message in str(error.value)


def test_a_student_without_a_teacher_may_teach_whoever_its_pair_is() -> None:
    """Pairs with the same student have one such run, so that nothing has to be stated to tell them apart."""
    run = {"student": W8, "method": "student", "seed": 4}
    planned = plan(pairs({"teacher": {"run": run}, "student": W4}, CHAIN[1], {"teacher": W16, "student": W8}))
    (seed,) = (r.science.seed for r in planned.runs.values() if r.science.student == W8 and r.science.seed)
    assert seed == 4


def test_born_again_networks_need_no_further_key() -> None:
    planned = plan(pairs({"teacher": W8, "student": W8}, {"teacher": BY_KD, "student": W8}))
    ids = run_ids(planned.cells)
    assert planned.runs[ids[f"{W8} by kd", W8, "kd", 0]].science.teacher_runs == (ids[W8, W8, "kd", 0],)


def test_several_teachers_are_waited_for_and_told_apart(tmp_path: Path) -> None:
    sha256 = "ab" * 32
    weights = [None, {"file": "f", "sha256": sha256}, None]
    three = {"teacher": [W32, W16, BY_KD], "student": W4, "teacher_weights": weights}
    planned = planned_file(tmp_path, pairs(three, CHAIN[1]))
    ids = run_ids(planned.plan.cells)
    student = planned.plan.runs[ids[f"{W32} + {W16} + {W8} by kd", W4, "kd", 0]]
    assistant = ids[W32, W8, "kd", 0]
    teacher = student.science.teacher
    assert isinstance(teacher, Several) and teacher.teachers[1:] == (Given(W16, sha256), Trained(W8, assistant))
    assert Science.from_text(student.science.text) == student.science
    pack = next(pack for pack in planned.plan.packs if student.run_id in pack.run_ids)
    assert pack.all_needs == student.science.teacher_runs and len(pack.all_needs) == 2
    jobs = tuple(
        QueuedJob.from_sciences({k: planned.plan.runs[k].science for k in p.run_ids}, p.needs, p.also_needs)
        for p in planned.plan.packs
    )
    path = tmp_path / "results" / "queues" / "q.json"
    Queue(str(tmp_path / "results"), jobs, 1, 1, None, {}, None).write(path)
    assert Queue.read(path).jobs == jobs
    stated = [job["also_needs"] for job in json.loads(path.read_text())["packs"] if "also_needs" in job]
    assert stated == [[assistant]], "queues of single teachers are read by earlier versions"
    cell = next(cell for cell in planned.plan.cells if cell.run_id == student.run_id)
    assert cell.needed_runs == pack.all_needs and cell.teacher_run is None
    assert [key for key in cell.to_json() if key not in Cell(*cell.line, 0, "x", None).to_json()] == ["teacher_runs"]


def test_an_early_stopped_teacher_is_a_run_of_its_own() -> None:
    early = [{"teacher": W8, "student": W4, **({"teacher_epoch": epoch} if epoch else {})} for epoch in (None, 5, 20)]
    planned = plan(pairs(*early, methods=["kd"]))
    names = [W8, f"{W8} after epoch 5", f"{W8} after epoch 20"]
    assert [cell.teacher for cell in planned.cells] == names
    last, fifth, all_epochs = (planned.runs[c.run_id].science.teacher_runs[0] for c in planned.cells)
    assert fifth != last == all_epochs, "a teacher that ends where the recipe does is the usual one"
    recipe = planned.runs[fifth].science.recipe
    assert (recipe.epochs, recipe.stop_epoch, recipe.last_epoch) == (20, 5, 5)
    again = plan(pairs({"teacher": names[1], "student": W4}, methods=["kd"]))
    assert again.cells == planned.cells[1:2], "a table's text names it too"


def test_a_chains_jobs_end_one_after_the_other() -> None:
    jobs = [Job(("c",), "b", 3.0), Job(("d",), "a", 1.0), Job(("b",), "a", 2.0), Job(("a",), None, 1.0)]
    assert makespan(jobs, 2) == 6.0
    assert makespan([Job(("c",), "a", 1.0, ("b",)), Job(("a",), None, 1.0), Job(("b",), None, 4.0)], 2) == 5.0
    assert teacher_levels({"c": ("b", "a"), "b": ("a",), "a": ("gone",)}) == {"a": 0, "b": 1, "c": 2}


@pytest.mark.usefixtures("quickly_built")
def test_an_ensemble_averages_logits_and_keeps_each_teachers_outputs() -> None:
    torch.manual_seed(0)
    models = [build_model(name, 10, in_channels=1).eval() for name in (W8, W4)]
    dataset, own = Normalisation((0.3,), (0.4,)), Normalisation((0.0,), (1.0,))
    models[1].renormalisation = Renormalisation(dataset, own)
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        outputs = TeacherEnsemble(models)(images, ("0.stage1", "1.stem"))
        alone = [model(images) for model in models]
    assert torch.equal(outputs.logits, (alone[0].logits + alone[1].logits) / 2)
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(outputs.teachers, alone, strict=True))
    assert outputs.features.keys() == {"0.stage1", "1.stem"} and outputs.embedding.numel() == 0
    assert torch.equal(outputs.features["0.stage1"], outputs.teachers[0].features["stage1"])
    spec = combined_spec([describe_taps(model, (1, 8, 8)) for model in models])
    assert spec.channels["1.stage1"] == outputs.teachers[1].features.get("stage1", torch.empty(1, 4)).shape[1]


@pytest.mark.usefixtures("quickly_built")
def test_captured_steps_train_with_several_teachers_as_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ensemble([packs.make_teacher(packs.CPU), packs.make_teacher(packs.CPU)])
    monkeypatch.setattr(packs, "make_teacher", lambda device: both)
    uses = ["kd", f"{user_methods.__name__}:EachTeacher"]
    capture = packs.Counted()
    (eager, _), (captured, watcher) = (packs.train(uses, c, accumulate=2) for c in (None, capture))
    assert not watcher.failures and capture.replays
    for use in uses:
        packs.assert_same_end(eager[use], captured[use])


@pytest.mark.usefixtures("quickly_built")
def test_the_check_before_training_knows_several_teachers(tmp_path: Path) -> None:
    task = open_task(make_science(W4).dataset, make_science(W4).recipe)
    file = tmp_path / "w8.safetensors"
    write_untrained_weights(task, W8, file)
    given = Given(W8, files.sha256(file))
    weights = {given.weights_id: WeightsFile(str(file))}
    kd = make_science(W4, "kd", {"temperature": 4.0}, {"ce": 0.1, "kd": 0.9}, batch_size=64)
    science = replace(kd, teacher=Several((Trained(W16, "0" * 16), given)))
    order = CheckOrder([], weights, True, 60.0, 1, str(tmp_path / "results"))
    assert Checker(order, tmp_path).check(RunToCheck(science.to_json(), 1)) == CheckResult(0, State.PASSED)
    wrong = replace(given, model=W4)
    broken = replace(science, teacher=Several((Trained(W16, "0" * 16), wrong)))
    order = replace(order, weights={wrong.weights_id: WeightsFile(str(file))})
    assert Checker(order, tmp_path).check(RunToCheck(broken.to_json(), 1)).state == State.FAILED


def test_a_clusters_jobs_wait_for_all_their_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teachers are submitted before those who learn from them, in whatever order a queue lists them."""
    planned = planned_file(tmp_path, pairs({"teacher": [W16, BY_KD], "student": W4}, CHAIN[1], methods=["kd"]))
    jobs = [
        QueuedJob.from_sciences({k: planned.plan.runs[k].science for k in p.run_ids}, p.needs, p.also_needs)
        for p in reversed(planned.plan.packs)
    ]
    profile, queue_file = tmp_path / "p.yaml", tmp_path / "results" / "queues" / "q.json"
    profile.write_text("{}")
    Queue(str(tmp_path / "results"), tuple(jobs), 4, 1, None, {}, str(profile)).write(queue_file)
    monkeypatch.setattr(commands, "most_array_tasks", lambda: 10)
    cluster = Cluster(queue_file)
    submitted, dependencies = list[str](), list[str]()
    for group, teacher_runs in cluster._groups(jobs):
        assert set(teacher_runs) <= set(submitted)
        dependencies.append(cluster._submission("n", group, tmp_path, False, teacher_runs).dependency)
        for run_id in (run_id for job in group for run_id in job.run_ids):
            submitted.append(run_id)
            cluster.known.live[run_id] = commands.JobState(f"{len(submitted)}_0", "n", "PENDING", "None")
    assert dependencies == ["", "afterany:2_0", "afterany:1_0:3_0"]


def test_a_teacher_whose_weights_are_gone_is_named_and_nothing_learns_from_it(tmp_path: Path) -> None:
    planned = planned_file(tmp_path, pairs({"teacher": W16, "student": W4}, {"teacher": W32, "student": W8}))
    store, (lost, kept) = planned.store, (cell.teacher_run for cell in planned.plan.cells if cell.method == "kd")
    assert lost and kept
    for run_id in (lost, kept):
        science = planned.plan.runs[run_id].science
        put(store, record(science, 90.0))
        store.run(run_id).mkdir(parents=True)
    store.student_weights(kept).touch()
    said = (
        f"teacher {W16}: the record of its run {lost} is here but its weights are not ({store.student_weights(lost)})"
    )
    command = "sweep", tmp_path / "s.yaml", "--results", store.root
    (line,) = (line for line in run_command(*command, "--plan").out.splitlines() if line.startswith("teacher "))
    assert line.startswith(f"{said}: 1 run to do cannot learn from it")
    refused = run_command(*command)
    assert refused.code == 2 and refused.err.splitlines()[-1].startswith(f"error: {said}") and not store.failed_ids()
    assert not (store.root / "queues").exists()
    assert "teacher " not in run_command(*command, "--plan", "--only", f"teacher={W32}").out

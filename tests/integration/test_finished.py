"""A finished sweep: metrics, curves, costs, pairing of methods, number of jobs at once, teachers first."""

import json
import stat
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

import harness
from harness import rng
from harness.data.load.source import open_source
from harness.spec import methods
from harness.spec.science import Science
from harness.store import ownership
from harness.store.schema import FIDELITY
from harness.training.member import History
from tests.support.bench import BATCH, EPOCHS, IMAGES, METHODS, STEPS, SWEEP, USER_METHODS, Bench, teacher_run
from tests.support.fidelity import plain_fidelity

TEST = {"test_top1", "test_top5", "test_loss"}


@pytest.mark.parametrize("method", METHODS)
def test_last_and_best_are_both_stored(finished: Bench, method: str) -> None:
    for seed in (0, 1, 2):
        row = finished.row(finished.cells()[method, seed].run_id)
        curve = {(c["epoch"], c["name"]): c["value"] for c in row["curves"]}
        top1 = [curve[epoch, "test_top1"] for epoch in range(1, EPOCHS + 1)]
        assert row["last_top1"] == top1[-1]
        assert row["best_top1"] == max(top1) == curve[row["best_epoch"], "test_top1"]
        assert row["best_epoch"] == 1 + top1.index(max(top1)), "the first of equally good epochs"
        for when, epoch in (("last", EPOCHS), ("best", row["best_epoch"])):
            assert row[f"{when}_top5"] == curve[epoch, "test_top5"] >= row[f"{when}_top1"]
            assert row[f"{when}_loss"] == curve[epoch, "test_loss"] > 0


def test_best_is_the_first_of_the_best_epochs() -> None:
    history = History()
    for epoch, top1 in enumerate((10.0, 30.0, 30.0, 20.0), start=1):
        history.epoch = epoch
        history.add({"top1": top1, "top5": 50.0 + epoch, "loss": 1.0 + epoch}, "top1", "test")
    assert history.last == {"top1": 20.0, "top5": 54.0, "loss": 5.0}
    assert history.best == {"top1": 30.0, "top5": 52.0, "loss": 3.0}
    assert history.best_epoch == 2


@pytest.mark.parametrize("method", METHODS)
def test_every_term_has_one_value_per_epoch(finished: Bench, method: str) -> None:
    row = finished.row(finished.cells()[method, 0].run_id)
    names = [c["name"] for c in row["curves"]]
    terms = {f"train_{term}" for term in (*methods.describe_method(method).weights, "total")}
    assert terms | TEST <= set(names)
    for name in set(names):
        assert [c["epoch"] for c in row["curves"] if c["name"] == name] == list(range(1, EPOCHS + 1)), name
    weights = json.loads(row["science"])["method"]["weights"]
    for epoch in range(1, EPOCHS + 1):
        value = {c["name"]: c["value"] for c in row["curves"] if c["epoch"] == epoch}
        total = sum(weight * value[f"train_{term}"] for term, weight in weights.items())
        assert value["train_total"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("method", ["student", "kd"])
def test_fidelity_is_that_of_the_saved_weights(finished: Bench, method: str) -> None:
    """All 190 training images are compared, as there are more test images."""
    row = finished.row(finished.cells()[method, 0].run_id)
    models = [harness.load_model(k, finished.store.root) for k in (row["run_id"], teacher_run(finished))]
    science = Science.from_text(row["science"])
    source = open_source(science.dataset, science.recipe, None, torch.device("cpu"))
    evaluated, targets = zip(*source.evaluation().batches(slice(None)), strict=True)
    images = {"last": evaluated, "train": source.unaugmented(torch.arange(IMAGES))}
    labels = {"last": torch.cat(targets).numpy(), "train": source.train_targets.numpy()}
    for part, batches in images.items():
        shown = torch.cat(list(batches))
        with torch.no_grad():
            student, teacher = (model.net(shown).logits.numpy() for model in models)
        expected = plain_fidelity(student, teacher, labels[part])
        measured = {k: value for k in FIDELITY if (value := row[f"{part}_{k}"]) is not None}
        assert measured.keys() == ({"ece"} if method == "student" else {*FIDELITY})
        assert measured == pytest.approx({k: expected[k] for k in measured}, rel=1e-4), part
        assert row[f"{part}_top1"] == pytest.approx(100 * (student.argmax(1) == labels[part]).mean())


@pytest.mark.parametrize("method", METHODS)
def test_costs_are_positive_and_add_up(finished: Bench, method: str) -> None:
    row = finished.row(finished.cells()[method, 0].run_id)
    parts = {p: row[f"cost_{p}_s"] for p in ("data", "teacher", "student", "method", "evaluation")}
    assert all(seconds > 0 for part, seconds in parts.items() if part != "teacher")
    assert (parts["teacher"] > 0) == (method != "student")
    assert row["cost_total_s"] == pytest.approx(sum(parts.values()))
    assert row["pack_size"] == len(METHODS)
    assert row["peak_memory_bytes"] > 2**20
    # the shares of a pack's members are parts of one process's time
    cells = finished.cells()
    pack = [finished.row(cells[m, 0].run_id) for m in METHODS]
    lasted = (max(r["finished_at"] for r in pack) - min(r["started_at"] for r in pack)).total_seconds()
    assert sum(r["cost_total_s"] for r in pack) < lasted


def test_methods_of_one_seed_start_from_the_same_student(bench: Bench) -> None:
    """Compare initial weights after one step with a vanishing learning rate."""
    recipe = {"epochs": 1, "batch_size": 2048, "lr": 1e-12, "weight_decay": 0}
    bench.sweep = {**bench.sweep, "recipe": recipe, "seeds": [0, 1]}
    cells = bench.cells()
    assert bench.train(teacher_run(bench)) == 0
    first = {}
    for seed in (0, 1):
        bench.train(*(cells[m, seed].run_id for m in METHODS))
        weights = [load_file(bench.store.student_weights(cells[m, seed].run_id)) for m in METHODS]
        for other in weights[1:]:
            for name, value in weights[0].items():
                if not name.endswith(("running_mean", "running_var")):
                    torch.testing.assert_close(other[name], value, rtol=0, atol=1e-6)
        first[seed] = weights[0]["fc.weight" if "fc.weight" in weights[0] else "conv1.weight"]
    assert not torch.allclose(first[0], first[1], atol=1e-2)


def test_methods_of_one_seed_see_the_same_images_in_the_same_order(bench: Bench) -> None:
    names = ("first", "second")
    entries = {name: {"use": f"{USER_METHODS}:Notes", "params": {"name": name}} for name in names}
    bench.sweep = {**bench.sweep, "methods": entries, "seeds": [0, 1]}
    cells = bench.cells()
    seen = {}
    for method, seed in cells:
        assert bench.train(cells[method, seed].run_id) == 0
        seen[method, seed] = (bench.folder / f"seen-{method}").read_text()
        (bench.folder / f"seen-{method}").unlink()
    assert seen["first", 0] == seen["second", 0]
    assert seen["first", 1] == seen["second", 1]
    lines = {seed: [line.split() for line in seen["first", seed].splitlines()] for seed in (0, 1)}
    assert len(lines[0]) == len(lines[1]) == EPOCHS * STEPS
    assert not {tuple(line) for line in lines[0]} & {tuple(line) for line in lines[1]}
    for seed in (0, 1):
        firsts = [int(line[0]) for line in lines[seed]]
        orders = [rng.random_permutation(seed, epoch, IMAGES)[::BATCH].tolist() for epoch in range(EPOCHS)]
        assert firsts == [i for order in orders for i in order]


def test_at_most_so_many_packs_at_once_and_teachers_first(finished: Bench) -> None:
    cells, trained = finished.cells(), finished.row(teacher_run(finished))
    packs = []
    for seed in (0, 1, 2):
        rows = [finished.row(cells[m, seed].run_id) for m in METHODS]
        assert len({r["started_at"] for r in rows}) == 1, "one process"
        packs.append((rows[0]["started_at"], max(r["finished_at"] for r in rows)))
    assert all(start > trained["finished_at"] for start, _ in packs)
    changes = sorted([(start, 1) for start, _ in packs] + [(end, -1) for _, end in packs])
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    assert most == 2
    assert all(a[0] < b[0] for a, b in pairwise(sorted(packs)))


def test_everything_was_trained_once_and_nothing_is_left_half_written(finished: Bench) -> None:
    for run_id in finished.plan().plan.runs:
        assert len(finished.store.attempts(run_id)) == 1 == finished.row(run_id)["attempts"]
    assert not list(finished.store.root.rglob("*.tmp"))
    assert STEPS == -(-finished.row(teacher_run(finished))["train_size"] // BATCH)


@pytest.mark.parametrize(("limit", "warned"), [("0", True), ("100", False)])
def test_what_a_method_warns_of_is_in_log_record_and_table(bench: Bench, limit: str, warned: bool) -> None:
    bench.sweep = {**SWEEP, "methods": {"warns": {"use": f"{USER_METHODS}:Warns"}}, "seeds": 2}
    (bench.folder / "limit").write_text(limit)
    result = bench.run("sweep")
    assert result.returncode == 0, result.stderr
    run_id = bench.cells()["warns", 0].run_id
    assert bench.row(run_id)["warnings"] == (["still\nbad"] if warned else [])
    table = (bench.store.table_folder("small") / "table.md").read_text()
    assert ("warns: still bad (2 of 2 runs)." in table) == warned
    log = bench.run("status", "--logs", run_id).stdout
    assert log.count("WARNING still") == (EPOCHS if warned else 0)


def test_files_and_folders_have_the_permissions_that_the_umask_leaves(finished: Bench) -> None:
    """Also weights, whose library makes its files private; a queue's file says what jobs do, and is its owner's."""
    umask = ownership.current_umask()
    for path in finished.store.root.rglob("*"):
        default = 0o777 if path.is_dir() else 0o644 if path.match("queues/*.json") else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == default & ~umask, path

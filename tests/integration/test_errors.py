"""Wrong input of every kind: one message that names the place, with exit code 2 and nothing half-written.

A fault that only a run can notice is stored as its failure: `sweep` shows it with exit code 1, and `status --failures`
explains it.
"""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.support.bench import SELDOM, Bench, teacher_run
from tests.support.cli import process, run_command
from tests.support.disks import FILLS, PAIRS, WEIGHTS, tmpfs

SWEEP: dict[str, Any] = {
    "dataset": "digits",
    "recipe": {"base": "digits_quick", "epochs": 1},
    "methods": {"student": {}, "kd": {"params": {"temperature": 2.0}}},
    "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4", "methods": {"kd": {}}}],
    "seeds": 1,
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KD_DATA", raising=False)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SWEEP, sort_keys=False))
    return tmp_path


def changed(change: Any) -> str:
    data = json.loads(json.dumps(SWEEP))
    change(data)
    return yaml.safe_dump(data, sort_keys=False)


def put(*path: Any) -> Any:
    """Return a change that sets data[path[0]][path[1]]... = path[-1]."""

    def change(data: Any) -> None:
        for key in path[:-2]:
            data = data[key]
        data[path[-2]] = path[-1]

    return change


GIVEN = {"file": "none.pth"}
WRONG_FILES = {
    "method": (put("methods", "kdd", {}), "methods.kdd: unknown method 'kdd'; did you mean 'kd'? Valid: "),
    "use": (put("methods", "kd", "use", "rekdd"), "methods.kd: unknown method 'rekdd'; did you mean 'rekd'?"),
    "optimizer": (put("methods", "dot", {}), "methods.dot: dot is an optimizer, not a method: expected it in a recipe"),
    "module": (put("methods", "kd", "use", "no.such:M"), "methods.kd: method 'no.such:M': no module 'no.such' on the"),
    "class": (put("methods", "kd", "use", "methods.kd:KDD"), "unknown class 'KDD'; did you mean 'KD'?"),
    "teacher": (put("pairs", 0, "teacher", "digits_net_w9"), "pairs.0.teacher: no model named 'digits_net_w9'; nea"),
    "student": (put("pairs", 0, "student", "resnet21"), "pairs.0.student: no model named 'resnet21'; nearest: "),
    "shapes": (put("pairs", 0, "student", "resnet20"), "pairs.0.student: resnet20 is for 3x32x32 images, dataset"),
    "dataset": (put("dataset", "digit"), "dataset.name: unknown dataset 'digit'; did you mean 'digits'?"),
    "subset": (
        put("dataset", {"name": "digits", "train_subset": 15}),
        "dataset: train_subset must be a multiple of 10",
    ),
    "validation": (
        put("dataset", {"name": "digits", "train_subset": 1400, "validation": 100}),
        "at most 1300 without the images for validation",
    ),
    "key": (put("method", ["kd"]), "method: unknown key 'method'; did you mean 'methods'?"),
    "pair key": (put("pairs", 0, "teachr", "x"), "pairs.0.teachr: unknown key 'teachr'; did you mean 'teacher'?"),
    "entry key": (put("methods", "kd", "parms", {}), "methods.kd.parms: unknown key 'parms'; did you mean 'params'?"),
    "hyper-parameter": (
        put("methods", "kd", "params", "temprature", 4),
        "methods.kd.params.temprature: unknown hyper-parameter of kd 'temprature'; did you mean 'temperature'?",
    ),
    "its type": (
        put("methods", "kd", "params", "temperature", "hot"),
        "methods.kd.params.temperature: expected a number, found 'hot'",
    ),
    "choice": (
        put("methods", "rekd", {"params": {"selection": "sofd"}}),
        "methods.rekd.params.selection: unknown value 'sofd'; did you mean 'soft'?",
    ),
    "loss term": (
        put("methods", "kd", "weights", {"kt": 1}),
        "methods.kd.weights.kt: unknown loss term of kd 'kt'; did you mean 'kd'? Valid: ce, kd",
    ),
    "no loss": (put("methods", "kd", "weights", {"ce": 0, "kd": 0}), "methods.kd: every loss term has weight 0"),
    "entry of a pair": (
        put("pairs", 0, "methods", "kdd", {}),
        "pairs.0.methods.kdd: unknown method of this sweep 'kdd'; did you mean 'kd'? Valid: kd, student",
    ),
    "param of a pair": (
        put("pairs", 0, "methods", "kd", "params", {"x": 1}),
        "pairs.0.methods.kd.params.x: unknown hyper-parameter of kd 'x'. Valid: temperature",
    ),
    "recipe": (put("recipe", "digits_quik"), "recipe: unknown recipe 'digits_quik'; did you mean 'digits_quick'?"),
    "recipe key": (put("recipe", "epoch", 3), "recipe.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
    "recipe type": (put("recipe", "epochs", "many"), "recipe.epochs: expected an integer, found 'many'"),
    "recipe's key": (put("epochs", 3), "epochs: unknown key 'epochs'; it is a key of recipe: recipe.epochs"),
    "misspelt key": (
        lambda data: data.update(method=data.pop("methods")),
        "method: unknown key 'method'; did you mean 'methods'?",
    ),
    "hyper-parameter as key": (
        put("methods", "kd", "temperature", 4),
        "kd.temperature: unknown key 'temperature'. Valid: params, recipe, search, use, weights; hyper-parameters go",
    ),
    "methods": (put("methods", [{"kd": {}}]), "methods: expected a list of names, or a mapping of names to settings"),
    "recipe range": (put("recipe", "lr", -1), "recipe.lr: must be greater than 0, found -1"),
    "milestones": (put("recipe", "milestones", [3]), "recipe: milestones belong to schedule 'step'"),
    "type": (put("pairs", "x"), "pairs: expected a list of pairs, each {teacher: NAME, student: NAME}, found 'x'"),
    "seeds": (put("seeds", "three"), "seeds: expected a number of seeds or a list, found 'three'"),
    "seed": (put("seeds", [0, 0]), "seeds: seed 0 is listed twice"),
    "missing key": (lambda data: data.pop("recipe"), "recipe: is required and missing"),
    "weights": (
        put("pairs", 0, "teacher_weights", GIVEN),
        "pairs.0.teacher_weights: weights none.pth: no such file; n",
    ),
    "weights of nobody": (
        put("pairs", 0, "teacher_weights", {"file": "~nobody-here/x"}),
        "pairs.0.teacher_weights: weights '~nobody-here/x': Could not determine home directory",
    ),
    "weights' name": (
        put("pairs", 0, "teacher_weights", {"file": "x" * 5000}),
        "xxx...: File name too long",
    ),
    "sha256": (
        put("pairs", 0, "teacher_weights", {"file": "file", "sha256": "ab" * 32}),
        f"pairs.0.teacher_weights: weights {{home}}/file: sha256 is {hashlib.sha256(b'x').hexdigest()}, "
        f"the sweep file states {'ab' * 32}",
    ),
    "mean alone": (
        put("pairs", 0, "teacher_weights", {"file": "file", "mean": 0.5}),
        "pairs.0.teacher_weights: mean is stated without std: state both",
    ),
    "a share": (
        put("pairs", 0, "teacher_weights", {"file": "file", "top1": 0.71}),
        "pairs.0.teacher_weights.top1: is in %; 0.71 looks like a share: write 71",
    ),
    "pixels to 255": (
        put("pairs", 0, "teacher_weights", {"file": "file", "mean": [123.675, 116.28, 103.53], "std": 58.395}),
        "pairs.0.teacher_weights.mean: expected numbers for pixels from 0 to 1, found 123.675: divide mean and std by",
    ),
    "std of 0": (
        put("pairs", 0, "teacher_weights", {"file": "file", "mean": 0.5, "std": 0}),
        "pairs.0.teacher_weights.std.0: must be at least 0.000001, found 0",
    ),
    "channels": (
        put("pairs", 0, "teacher_weights", {"file": "file", "mean": [0.5, 0.5, 0.5], "std": 0.5}),
        "pairs.0.teacher_weights: mean: expected one number, found 3 numbers",
    ),
    "sha256's form": (
        put("pairs", 0, "teacher_weights", {"file": "file", "sha256": "ab"}),
        "pairs.0.teacher_weights.sha256: expected 64 digits of 0-9 and a-f, found 'ab'",
    ),
}


@pytest.mark.parametrize("change, message", WRONG_FILES.values(), ids=WRONG_FILES)
@pytest.mark.parametrize("args", [("sweep",), ("sweep", "--plan", "--json"), ("status",)], ids=" ".join)
def test_wrong_files(home: Path, change: Any, message: str, args: tuple[str, ...]) -> None:
    text = changed(change)
    (home / "s.yaml").write_text(text)
    name, *options = args
    error = run_command(name, "s.yaml", *options).error
    assert message.replace("{home}", str(home)) in error
    place, _, rest = error.partition(": ")
    keys = [part for part in rest.partition(":")[0].split(".") if not part.isdigit()]
    if "is required" not in error:
        line = text.splitlines()[int(place.removeprefix("s.yaml:")) - 1]
        expected = "dataset" if keys == ["dataset", "name"] else keys[-1]  # `dataset: X` is short for its name
        assert line.strip("- ").partition(":")[0] == expected, f"{place} is {line!r}"
    assert sorted(p.name for p in home.iterdir()) == ["file", "folder", "s.yaml"], "something was written"


WRONG_ARGS = {
    "no file": (["none.yaml"], "none.yaml: no such file"),
    "a folder": (["folder"], "folder: is a folder, expected a YAML file"),
    "only": (["s.yaml", "--only", "method=kdd"], "--only 'method=kdd': unknown method 'kdd'; did you mean 'kd'?"),
    "only field": (["s.yaml", "--only", "metod=kd"], "unknown field 'metod'; did you mean 'method'?"),
    "only form": (["s.yaml", "--only", "kd"], "--only 'kd': expected FIELD=VALUE"),
    "only seed": (["s.yaml", "--only", "seed=7"], "--only 'seed=7': unknown seed '7'. Valid: 0"),
    "set form": (["s.yaml", "--set", "seeds"], "--set 'seeds': expected key.path=value, e.g. recipe.epochs=10"),
    "set key": (["s.yaml", "--set", "recipe.epoch=3"], "recipe.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
    "set value": (["s.yaml", "--set", "recipe.epochs=x"], "recipe.epochs: expected an integer, found 'x'"),
    "set yaml": (["s.yaml", "--set", "seeds=[1"], "--set seeds: not valid YAML"),
    "set into text": (["s.yaml", "--set", "seeds.x=1"], "--set seeds.x: seeds holds 1, which has no keys"),
    "set position": (["s.yaml", "--set", "pairs.4.teacher=x"], "--set pairs.4.teacher: '4' is not a position in pairs"),
    "set odd digit": (["s.yaml", "--set", "pairs.\u00b2.teacher=x"], "is not a position in pairs"),
    "set two": (["s.yaml", "--set", "seeds=1\nx: 2"], "expected one value"),
    "cluster": (["s.yaml", "--cluster", "locl"], "--cluster: unknown cluster 'locl'; did you mean 'local'?"),
    "option": (["s.yaml", "--onyl", "x"], "No such option: --onyl"),
    "number": (["s.yaml", "--max-parallel", "0"], "'--max-parallel': Input should be greater than or equal to 1"),
    "no argument": ([], "Missing argument 'file'"),
    "data root": (["s.yaml", "--data", "none"], "data root none: no such folder; name the folder that holds it with"),
    "results is a file": (["s.yaml", "--results", "file"], "{home}/file/records: Not a directory"),
    "results below a file": (["s.yaml", "--results", "file/x"], "{home}/file/x/records: Not a directory"),
    "results' name too long": (["s.yaml", "--results", "x" * 300], "File name too long"),
    "results in no file system": (["s.yaml", "--results", "/proc/nowhere"], "/proc/nowhere: No such file or directory"),
}


@pytest.mark.parametrize("args, message", WRONG_ARGS.values(), ids=WRONG_ARGS)
def test_wrong_arguments(home: Path, args: list[str], message: str) -> None:
    result = run_command("sweep", *args)
    if "--results" in args:  # the plan was printed before
        result = replace(result, err=result.err[result.err.rindex("error: ") :])
    assert message.replace("{home}", str(home)) in result.error
    assert sorted(p.name for p in home.iterdir()) == ["file", "folder", "s.yaml"], "something was written"


def test_the_console_script_names_the_nearest_command(home: Path) -> None:
    assert "No such command 'swep'. Did you mean 'sweep'?" in process("-m", "harness", "swep").error
    usage = process("-m", "harness")
    assert usage.code == 2 and "sweep" in usage.out and usage.err == ""


def test_missing_data_and_weights_leave_the_store_unchanged(home: Path) -> None:
    """The files that jobs need are checked before anything is written, so earlier failures stay."""
    weights = {"file": "none.pth", "sha256": "ab" * 32}
    pair = {"teacher": "resnet56", "student": "resnet20", "teacher_weights": weights}
    sweep = {"dataset": "cifar100", "recipe": "cifar100_short", "methods": ["kd"], "pairs": [pair], "seeds": 1}
    (home / "s.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    assert run_command("sweep", "s.yaml", "--plan").code == 0, "a plan needs no data"
    run_id = json.loads(run_command("status", "s.yaml", "--json").out)[0]["run_id"]
    failure = home / "results/failures" / f"{run_id}.json"
    failure.parent.mkdir(parents=True)
    failure.write_text("{}")
    for data, message in (
        (
            [],
            "dataset 'cifar100' needs data: name the folder that holds it with --data DIR or the environment variable",
        ),
        (["--data", "folder"], f"dataset 'cifar100': no folder {home}/folder/cifar-100-python; name the folder"),
    ):
        result = run_command("sweep", "s.yaml", "--retry-failed", *data)
        assert result.code == 2 and result.err.splitlines()[-1].startswith(f"error: {message}"), result
        assert [p.name for p in (home / "results").iterdir()] == ["failures"] and failure.exists()
    (home / "folder/cifar-100-python").mkdir()
    for name in ("train", "test"):
        (home / "folder/cifar-100-python" / name).touch()
    result = run_command("sweep", "s.yaml", "--retry-failed", "--data", "folder")
    assert result.err.splitlines()[-1].startswith("error: s.yaml: weights none.pth: no such file in ")
    assert [p.name for p in (home / "results").iterdir()] == ["failures"] and failure.exists()


def test_wrong_input_of_evaluate(home: Path) -> None:
    def evaluate(**changes: Any) -> str:
        options = {"dataset": "digits", "model": "digits_net_w4", "weights": "w.pth", **changes}
        return run_command("evaluate", *(part for k, v in options.items() for part in (f"--{k}", v))).error

    assert "unknown dataset 'digit'; did you mean 'digits'?" in evaluate(dataset="digit")
    assert "no model named 'digits_net_w5'; nearest: digits_net_w" in evaluate(model="digits_net_w5")
    assert "--weights w.pth: no such file" in evaluate()
    assert "dataset 'cifar100' needs data" in evaluate(dataset="cifar100", model="resnet20")
    assert "digits_net_w4 is for 1x8x8 images, dataset cifar100 has 3x32x32" in evaluate(dataset="cifar100")
    assert "digits_net_w4 is for 1x8x8 images, dataset digits has 1x32x32" in evaluate(size=32)
    assert "--resize has no effect on digits" in evaluate(resize=32)
    result = run_command("evaluate", "--run", "abc", "--size", 32, "--mean", "0.5")
    assert "--size and --mean: for --weights; a run states them" in result.error
    contents: dict[str, Any] = {
        "a list": [torch.zeros(1)],
        "numbers": {"x": 1.0},
        "keys that are no text": {1: torch.zeros(1)},
        "a pickled function": {"x": os.system},
    }
    for what, content in contents.items():
        torch.save(content, "w.pth")
        assert "weights w.pth: " in evaluate(), what
    torch.save({"conv.weight": torch.zeros(1)}, "w.pth")
    assert "weights w.pth: not the weights of digits_net_w4: " in evaluate()


def test_damaged_weights_are_one_message_however_damaged(finished: Bench, home: Path) -> None:
    import random

    from harness.models.checkpoints import WeightsError, load_weights
    from harness.models.zoo import build_model

    source = finished.store.student_weights(teacher_run(finished))
    state = load_file(source)
    torch.save(state, "whole.pth")
    torch.save(state, "old.pth", _use_new_zipfile_serialization=False)
    net, rng = build_model("digits_net_w8", 10, 1), random.Random(0)
    load_weights(net, "digits_net_w8", source)
    for i in range(150):
        whole = Path(["whole.pth", "old.pth", str(source)][i % 3]).read_bytes()
        at = rng.randrange(min(len(whole), 3000 if i % 2 else len(whole)))
        damage, content = [
            ("cut", whole[:at]),
            ("bytes changed", whole[:at] + bytes(rng.randrange(256) for _ in range(4)) + whole[at + 4 :]),
            ("noise", rng.randbytes(at)),
            ("empty", b""),
        ][i // 3 % 4]
        file = Path("w.safetensors" if i % 3 == 2 else "w.pth")
        file.write_bytes(content)
        try:
            load_weights(net, "digits_net_w8", file)
        except WeightsError as e:
            assert str(e).startswith(f"weights {file}: ") and len(str(e)) < 400
        else:
            assert damage == "bytes changed", f"{damage} at {at} was read"  # perhaps in a tensor's values


@pytest.fixture
def weights(bench: Bench, finished: Bench) -> dict[str, Any]:
    """Put the small sweep's trained teacher next to the sweep file and return how to state it."""
    source = finished.store.student_weights(teacher_run(finished))
    shutil.copy(source, bench.folder / "t.safetensors")
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    return {"file": "t.safetensors", "sha256": sha256, "top1": finished.row(teacher_run(finished))["last_top1"]}


def causes(bench: Bench) -> dict[str, str]:
    """Return the cause that status prints, by the run's label."""
    return {label: row.get("cause", "") for label, row in bench.states().items()}


def test_teachers_that_are_not_what_the_file_states(bench: Bench, weights: dict[str, Any]) -> None:
    """Each wrong teacher is a failure with its own cause, and the good pair is trained."""
    state = load_file(bench.folder / "t.safetensors")
    torch.save({"model": state}, bench.folder / "t.pth")
    whole = (bench.folder / "t.pth").read_bytes()
    (bench.folder / "cut.pth").write_bytes(whole[: len(whole) // 2])
    classifier = next(k for k, v in state.items() if v.dim() == 2)
    save_file({**state, classifier: state[classifier] * -1}, bench.folder / "other.safetensors")
    student = "digits_net_w4"
    cases = {
        "digits_net_w8": {**weights},
        "digits_net_w16": {"file": "t.pth"},
        "digits_net_w32": {"file": "cut.pth"},
        student: {"file": "t.safetensors"},
    }
    bench.sweep = {**SWEEP, "methods": {"kd": {}}}
    bench.sweep["pairs"] = [{"teacher": t, "student": student, "teacher_weights": w} for t, w in cases.items()]
    wrong = {"file": "other.safetensors", "top1": weights["top1"]}
    bench.sweep["pairs"].append({"teacher": "digits_net_w8", "student": "digits_net_w8", "teacher_weights": wrong})

    result = bench.run("sweep")
    assert result.returncode == 1 and "Traceback (most recent call last)" not in result.stdout
    recorded = causes(bench)
    folder = bench.folder.resolve()
    expected = {
        "digits_net_w8 > digits_net_w4": "",
        "digits_net_w16 > digits_net_w4": f"weights {folder}/t.pth: not the weights of digits_net_w16: ",
        "digits_net_w32 > digits_net_w4": f"weights {folder}/cut.pth: is cut short or damaged",
        "digits_net_w4 > digits_net_w4": f"weights {folder}/t.safetensors: not the weights of digits_net_w4: ",
        "digits_net_w8 > digits_net_w8": f"teacher digits_net_w8 from {folder}/other.safetensors: measured top-1 ",
    }
    for pair, cause in expected.items():
        assert recorded[f"{pair} / kd / seed 0"].startswith(cause), recorded
        assert cause or not recorded[f"{pair} / kd / seed 0"]
    failures = bench.run("status", "--failures").stdout
    assert failures.startswith("4 failed, 4 causes\n")
    for cause in filter(None, expected.values()):
        assert cause in failures and cause in result.stderr
    assert result.stdout.count("Without a record: 4 of 5 runs: digits_net_w16 > digits_net_w4; ") == 1, (
        "under the table"
    )
    assert result.stderr.count("\nfailed: ") == 4, "each cause once"
    rerun = bench.run("sweep")
    assert rerun.returncode == 1 and "4 failed" in rerun.stderr and "FAILED" not in rerun.stderr, "no silent retry"


def test_weights_that_change_after_planning(bench: Bench, weights: dict[str, Any]) -> None:
    bench.sweep = {**SWEEP, "methods": {"kd": {}}}
    bench.sweep["pairs"] = [{"teacher": "digits_net_w8", "student": "digits_net_w4", "teacher_weights": weights}]
    planned = bench.plan()
    (run_id,) = planned.plan.runs
    from harness.training.job import run_job
    from harness.training.job_order import JobOrder

    bench.store.write_science(run_id, planned.plan.runs[run_id].science)
    files = planned.weights_files([run_id])
    with (bench.folder / "t.safetensors").open("ab") as f:
        f.write(b"x")
    run_job(JobOrder(str(bench.store.root), (run_id,), None, files, 1), log=str(bench.folder / "log"))
    failure = bench.store.failure(run_id)
    assert failure and failure.kind == "data"
    assert f"sha256 is {hashlib.sha256((bench.folder / 't.safetensors').read_bytes()).hexdigest()}" in failure.cause
    assert f"expected {weights['sha256']}" in failure.cause


def test_settings_a_method_refuses_are_its_own_failure(with_teacher: Bench) -> None:
    with_teacher.sweep = {
        **with_teacher.sweep,
        "methods": {"student": {}, "cold": {"use": "kd", "params": {"temperature": -1}}},
        "seeds": 1,
    }
    result = with_teacher.run("sweep")
    assert result.returncode == 1
    assert "cold / seed 0: FAILED: ValueError: temperature must be positive, not -1.0" in result.stderr
    assert "student / seed 0: top-1 " in result.stderr
    assert "1 x code: ValueError: temperature must be positive" in with_teacher.run("status", "--failures").stdout


def test_a_corrupt_record_stops_the_report_not_the_others(bench: Bench, finished: Bench) -> None:
    shutil.copytree(finished.folder, bench.folder, dirs_exist_ok=True)
    record = bench.store.record(bench.cells()["kd", 1].run_id)
    record.write_bytes(b"PAR1" + os.urandom(2000) + b"PAR1")
    result = bench.run("sweep")
    assert result.returncode == 2 and result.stdout == ""
    assert f"error: {record}: not a readable record (" in result.stderr and "Traceback" not in result.stderr
    record.unlink()
    assert "1 to do, " in bench.run("sweep", "--plan").stdout, "what the message advises"


def test_a_results_folder_that_cannot_be_written(home: Path) -> None:
    with tmpfs(home / "results", "ro"):
        result = run_command("sweep", "s.yaml")
        assert result.code == 2 and result.out == ""
        cause = "you may not write to it: its file system is read-only"
        assert result.err.splitlines()[-1].startswith(f"error: {home}/results: {cause}")
        assert run_command("status", "s.yaml").code == 0
        assert run_command("report", "s.yaml").code == 0


def test_a_full_disk_while_submitting(home: Path) -> None:
    with tmpfs(home / "results", "size=64k"):
        Path("results/filler").write_bytes(b"x" * (64 << 10))
        result = run_command("sweep", "s.yaml")
        assert result.code == 2 and result.out == ""
        assert "no space left on the disk (writing science.json)" in result.err.splitlines()[-1]
        assert not [p for p in Path("results").rglob("*") if p.is_file() and p.name != "filler"], "half-written"


@pytest.mark.parametrize(
    "left, every, file",
    [
        (WEIGHTS // 2, SELDOM, "student.safetensors"),
        (WEIGHTS + (16 << 10), SELDOM, "{run}.parquet"),
        (WEIGHTS // 2, 0, "student.safetensors"),
    ],
    ids=["weights", "record", "checkpoint"],
)
def test_a_full_disk_while_a_job_writes(bench: Bench, left: int, every: float, file: str) -> None:
    """A full disk fails a run when it writes weights or its record, but not when it writes a checkpoint.

    Nothing half-written remains. With space again, a retry finishes the run.
    """
    (bench.folder / "filling.py").write_text(FILLS)
    (bench.folder / "fill").touch()
    bench.sweep = {**SWEEP, "methods": {"fills": {"use": "filling:Fills", "params": {"left": left}}}, "pairs": PAIRS}
    bench.checkpoint_seconds = every
    with tmpfs(bench.folder / "results", "size=2m"):
        result = bench.run("sweep")
        assert result.returncode in (1, 2) and "Traceback (most recent" not in result.stderr.partition("FAILED")[0]
        (row,) = bench.states().values()
        if row["state"] == "failed":
            assert row["kind"] == "disk" and row["cause"] in result.stderr
            assert f"no space left on the disk (writing {file.format(run=row['run_id'])}" in row["cause"]
        else:  # the disk has no space even for the failure
            assert result.returncode == 2 and "no space left" in result.stderr.splitlines()[-1]
        assert not list((bench.folder / "results").rglob("*.tmp"))
        assert not bench.store.record(row["run_id"]).exists()
        (bench.folder / "fill").unlink()
        (bench.folder / "results/filler").unlink()
        rerun = bench.run("sweep", "--retry-failed")
        assert rerun.returncode == 0, rerun.stderr

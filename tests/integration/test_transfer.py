"""``python -m harness.transfer``: linear probes of finished runs, kept in the store and read again."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.store import checksums, files
from harness.training import linear_probe
from tests.support.bench import Bench, teacher_run
from tests.support.cli import on_a_terminal, run_command

KEPT = "transfer/digits_6000b9393a3f3f11"
ONLY = ("--only", "method=student,kd", "--only", "seed=0,1", "--teacher")
L2_WEIGHTS = (0.1, 0.001)


@pytest.fixture(scope="module")
def probed(finished: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, dict[str, Any]]]:
    """A copy of the finished store with the probes of two lines and their teacher."""
    bench = Bench(tmp_path_factory.mktemp("transfer"))
    shutil.copytree(finished.store.root, bench.store.root)
    before = {path: path.read_bytes() for path in bench.store.records.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_probe, "L2_WEIGHTS", L2_WEIGHTS)  # fewer, as each takes its time
        result = transfer(bench, *ONLY, "--json")
        assert result.code == 0, result.err
        assert before == {path: path.read_bytes() for path in bench.store.records.iterdir()}
        yield bench, json.loads(result.out)
    bench.clean_up()


def transfer(bench: Bench, *args: str) -> Any:
    store = ("--results", bench.store.root)
    return run_command("transfer", "--sweep", sweep_file(bench), *store, "--to", "digits", *args)


def sweep_file(bench: Bench) -> Path:
    bench.command("status")
    return bench.folder / "sweep.yaml"


def no_probe(*_: object) -> None:
    raise UserError("it is probed again")


def test_a_sweeps_runs_are_probed(probed: tuple[Bench, dict[str, Any]]) -> None:
    bench, table = probed
    lines = {line["method"]: line for line in table["lines"]}
    assert lines.keys() == {"student", "kd", "teacher"}
    assert (lines["kd"]["pair"], lines["kd"]["n"]) == ("digits_net_w8 > digits_net_w4", 2)
    assert (lines["teacher"]["pair"], lines["teacher"]["n"]) == ("digits_net_w8", 1)
    (teacher,) = lines["teacher"]["networks"]
    assert teacher["network"] == teacher_run(bench)
    for line in lines.values():
        assert line["mean"] == pytest.approx(sum(n["top1"] for n in line["networks"]) / line["n"])
        for network in line["networks"]:
            record = bench.row(network["network"])
            assert network["weights_sha256"] == record["weights_sha256"] and network["seed"] == record["seed"]
            # A new last layer on all images serves at least as well as the one that was trained on 190 of them.
            assert record["last_top1"] - 2 < network["top1"] <= 100
            assert network["converged"] and network["l2"] in L2_WEIGHTS
            assert (network["train_images"], network["test_images"]) == (1442, 355)


def test_kept_results_are_read_again(probed: tuple[Bench, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    bench, table = probed
    monkeypatch.setattr(linear_probe, "probe", no_probe)
    assert json.loads(transfer(bench, *ONLY, "--json").out) == table
    assert transfer(bench, "--only", "method=crd").error.endswith("it is probed again")
    run = next(line for line in table["lines"] if line["method"] == "kd")["networks"][1]
    printed = run_command("transfer", run["network"][:9], "--results", bench.store.root, "--to", "digits").out
    cells = [cell.strip() for cell in printed.splitlines()[2].split("|")]
    assert cells[1:5] == ["digits_net_w8 > digits_net_w4", "kd", "1", f"{run['top1']:.2f}"]
    assert "content 6000b9393a3f3f11. Top-1 of the test images in %" in printed
    assert "kd: was trained on digits itself: no transfer to other data." in printed
    with on_a_terminal(60):
        fitted = transfer(bench, *ONLY).out
    assert max(map(len, fitted.splitlines())) <= 60 and "|" not in fitted
    assert f"{run['top1']:.2f}"[:1] in fitted and "No room for " in fitted and "no transfer to other" in fitted


def test_other_results_are_computed_anew(probed: tuple[Bench, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    bench, _ = probed
    file = bench.store.root / KEPT / f"{teacher_run(bench)}.json"
    content = file.read_bytes()
    value = checksums.open_value(json.loads(content))
    command = ("transfer", teacher_run(bench), "--results", bench.store.root, "--to", "digits", "--json")
    with monkeypatch.context() as patch:
        patch.setattr(linear_probe, "probe", no_probe)
        assert run_command(*command).code == 0
        for change in ({"weights_sha256": "ab" * 32}, {"protocol": 99}, {"network": "ab"}):
            files.replace_json(file, checksums.seal_value({**value, **change}))
            assert run_command(*command).error == "it is probed again"
    file.write_bytes(content.replace(b'"converged": true', b'"converged": false'))
    result = run_command(*command)
    assert result.err == f"note: {file}: damaged: its content does not match its checksum; left out\n"
    assert json.loads(result.out)["lines"][0]["networks"][0]["top1"] == value["top1"]
    assert file.read_bytes() == content


def test_mistakes_are_told(probed: tuple[Bench, dict[str, Any]], tmp_path: Path) -> None:
    bench, _ = probed
    run, store = teacher_run(bench), ("--results", bench.store.root)
    for words, message in (
        (("--to", "digits"), "expected RUN, one or several, or --sweep FILE"),
        ((run,), "Missing option '--to'"),
        ((run, "--to", "digitz"), "--to digitz: unknown dataset 'digitz'; did you mean 'digits'?"),
        ((run, "--to", "coco"), "--to coco: it is for detection; expected one of cifar10,"),
        ((run, "--to", "digits", "--folder", "x"), "--to digits: folder is only for"),
        ((run, "--to", "digits", "--only", "seed=0"), "--only goes with --sweep"),
        (("0" * 16, "--to", "digits"), "RUN: unknown finished run '0000000000000000'"),
        ((run, "--to", "imagefolder", "--data", tmp_path), "dataset 'imagefolder': no folder"),
    ):
        assert message in run_command("transfer", *words, *store).error
    weights = bench.store.student_weights(bench.cells()["rekd", 0].run_id)
    weights.unlink()
    assert f"{weights}" in transfer(bench, "--only", "method=rekd").error
    (tmp_path / "other").mkdir()
    other = ("--results", tmp_path / "other", "--sweep", sweep_file(bench))
    assert "none of its runs is finished in" in run_command("transfer", "--to", "digits", *other).error

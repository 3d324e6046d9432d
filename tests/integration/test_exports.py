"""Exports of ``report``: event files for TensorBoard, and a bundle for readers of a paper."""

import contextlib
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from harness.planning.plan import plan_sweep
from harness.reporting.tables import digests
from harness.store import records
from tests.support.bench import EPOCHS, METHODS, SWEEP, Bench, teacher_run
from tests.support.cli import process, run_command

# Event files ---------------------------------------------------------------------------------------------------------


def read_events(folder: Path) -> Any:
    """Read a folder with TensorBoard's own reader."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    events = accumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def test_event_files_hold_what_the_records_hold(finished: Bench, tmp_path: Path) -> None:
    result = finished.call("report", "--tensorboard", tmp_path)
    assert result.code == 0, result.err
    listed = [Path(line) for line in result.out.splitlines()]
    assert sorted(listed) == sorted(p for p in tmp_path.rglob("*") if p.is_file()) and len(listed) == 16
    folders = {(m, s): tmp_path / f"small/digits_net_w8-digits_net_w4/{m}/seed-{s}" for m, s in finished.cells()}
    run_ids = {folders[key]: cell.run_id for key, cell in finished.cells().items()}
    run_ids[tmp_path / "small/teachers/digits_net_w8"] = teacher_run(finished)
    for folder, run_id in run_ids.items():
        row, events = finished.row(run_id), read_events(folder)
        expected: dict[str, list[tuple[int, np.float32]]] = {}
        for point in row["curves"]:
            tag = re.sub("^(train|test)_", r"\1/", point["name"])
            expected.setdefault(tag, []).append((point["epoch"], np.float32(point["value"])))
        assert {"train/ce", "test/top1"} <= set(expected)
        scalars = {
            tag: [(e.step, np.float32(e.value)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
        }
        rates = scalars.pop("train/lr")
        assert scalars == expected, "to the last bit of a float32"
        assert [epoch for epoch, _ in rates] == list(range(1, EPOCHS + 1))
        assert rates[0][1] == np.float32(json.loads(row["science"])["recipe"]["lr"]) > rates[1][1]
        text = events.Tensors("settings")
        text_shown = text[0].tensor_proto.string_val[0].decode()
        assert json.loads(text_shown.split("```")[1].removeprefix("json")) == json.loads(row["science"])


def test_settings_are_hyper_parameters(finished: Bench, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.plugins.hparams import metadata

    finished.call("report", "--tensorboard", tmp_path, "--only", "method=crd", "--only", "seed=1")
    (folder,) = tmp_path.glob("*/digits_net_w8-digits_net_w4/crd/seed-1")
    content = read_events(folder).PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["seed"].number_value == 1 and start.hparams["method"].string_value == "crd"
    assert (
        start.hparams["params.negatives"].number_value == 64 and start.hparams["recipe.epochs"].number_value == EPOCHS
    )
    assert start.hparams["recipe.nesterov"].WhichOneof("kind") == "bool_value"
    assert metadata.SESSION_END_INFO_TAG in content


def test_the_same_record_gives_the_same_bytes_and_any_run_can_be_named(finished: Bench, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run_id = finished.cells()["rekd", 2].run_id
    args = ("--results", finished.store.root, "--run", run_id[:10], "--tensorboard")
    result = run_command("report", *args, tmp_path / "first")
    assert result.code == 0, result.err
    result = process("-m", "harness.report", *args, tmp_path / "second")  # another process
    assert result.code == 0, result.err
    (first,), (second,) = (sorted((tmp_path / name / run_id).iterdir()) for name in ("first", "second"))
    assert first.name == second.name and first.read_bytes() == second.read_bytes()
    assert first.name.endswith(run_id), "and no host's name, as tensorboard's own writer has it there"
    assert str(finished.folder).encode() not in first.read_bytes()


def test_mistakes_are_reported_and_nothing_is_written(finished: Bench, bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    unknown = finished.call("report", "--tensorboard", out, "--run", "0123456789abcdef")
    assert "--run: unknown finished run '0123456789abcdef'" in unknown.error
    assert finished.call("report", "--run", "0").error == "--run goes with --tensorboard"
    for option in ("--tensorboard", "--bundle"):
        assert "no run has a record yet" in bench.call("report", option, out).error
    whole = run_command("report", "--bundle", out, "--results", finished.store.root)
    assert whole.error == "--bundle holds one sweep's results: name its file"
    program = (
        "import sys; sys.modules['tensorboard'] = None; from harness.console.app import main; "
        f"sys.argv = ['harness', 'report', 'sweep.yaml', '--tensorboard', {str(out)!r}]; main()"
    )
    missing = process("-c", program, cwd=finished.folder)
    assert missing.error == "--tensorboard needs tensorboard: pip install 'kd-harness[tensorboard]'"
    assert not out.exists()


def test_exports_import_no_torch(finished: Bench, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    program = (
        "import sys; from harness.console.app import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'tensorflow'} & set(sys.modules), 'heavy'\n"
    )
    args = ("report", "sweep.yaml", "--tensorboard", tmp_path / "events", "--bundle", tmp_path / "b.zip")
    result = process("-c", program, *args, cwd=finished.folder)
    assert result.code == 0, result.err


def test_no_name_in_a_table_leads_out_of_the_folder_that_is_written(finished: Bench, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    store = shutil.copytree(finished.store.root, tmp_path / "in" / "results")
    file = store / "tables/small/contents.json"
    contents = json.loads(file.read_text())
    names = ("../../../../../../evil", "..", "/evil" * 60)
    contents["cells"] = [cell | {"method": name} for cell, name in zip(contents["cells"], names, strict=False)]
    contents["cells"][0] |= {"teacher": "..", "student": "../../../evil"}
    file.write_text(json.dumps(contents))
    (file.parent / digests.FILE).unlink()  # as whoever plants the other leaves it out
    out = tmp_path / "out"
    options = ("--out", "--figures", "--tensorboard")
    result = run_command("report", "--results", store, *(word for o in options for word in (o, out / "of" / o)))
    assert result.code == 0, result.err
    result = run_command("leaderboard", "--results", store, "--out", out / "board.html")
    assert result.code == 0, result.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    assert sorted(p.name for p in out.iterdir()) == ["board.html", "of"]
    for option in options:
        assert [p.name for p in (out / "of" / option).iterdir()] == ["small"]
    assert len(list((out / "of" / "--tensorboard" / "small").rglob("events*"))) == 5, "with two teachers"


# The bundle ----------------------------------------------------------------------------------------------------------


def bundled(bench: Bench, out: Path, *args: str) -> Path:
    """Return the folder into which the bundle is unpacked."""
    result = bench.call("report", "--bundle", out, *args)
    assert result.code == 0, result.err
    assert result.out == f"{out}\n"
    with zipfile.ZipFile(out) as packed:
        assert packed.testzip() is None
        packed.extractall(out.with_suffix(""))
    return out.with_suffix("")


@pytest.fixture(scope="module")
def bundle(finished: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked bundle of the whole sweep, next to its zip file."""
    return bundled(finished, tmp_path_factory.mktemp("bundle") / "b.zip")


def test_an_unpacked_bundle_verifies_and_reports_a_change(finished: Bench, bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "b"))
    result = run_command("verify", "--results", folder)
    assert result.code == 0, result.out
    table = finished.store.table_folder("small")
    for path in table.iterdir():
        packed = folder / "tables/small" / path.name
        if path.name.startswith("table."):
            assert packed.read_bytes() == path.read_bytes(), path.name
        elif path.suffix in (".md", ".tex", ".html"):  # with the command for each cell, here from the bundle's own file
            assert packed.read_bytes() == path.read_bytes().replace(b"sweep.yaml", b"small/resolved.yaml"), path.name
    assert {p.name for p in (folder / "tables/small").iterdir()} == {p.name for p in table.iterdir()} - {digests.FILE}
    assert {p.stem for p in (folder / "records").iterdir()} == set(finished.plan().plan.runs)
    for path in (folder / "records").iterdir():
        (row,) = pq.read_table(path).to_pylist()
        assert row == finished.row(path.stem) | {"host": "host1"}
    pytest.importorskip("matplotlib")
    assert {"curves_digits_net_w8_digits_net_w4.svg", "pareto_digits_net_w8_digits_net_w4.pdf"} <= {
        p.name for p in (folder / "figures").iterdir()
    }
    changed = folder / "records" / f"{finished.cells()['kd', 0].run_id}.parquet"
    rows = pq.read_table(changed)
    at = rows.schema.get_field_index("last_top1")
    rows = rows.set_column(at, rows.schema.field(at), [[99.0]]).replace_schema_metadata()
    changed.write_bytes(records.file_content(rows))
    assert run_command("verify", "--results", folder).code == 1


def test_the_same_records_give_the_same_bundle(finished: Bench, bundle: Path, tmp_path: Path) -> None:
    """A bundle depends neither on its time of writing, nor on the process, nor on compaction."""
    other = Bench(tmp_path / "other")
    shutil.copytree(finished.folder, other.folder)
    assert run_command("compact", "--results", other.store.root, "--grace", "0").code == 0
    assert not list(other.store.records.glob("*.parquet"))
    assert other.run("report", "--bundle", str(tmp_path / "second.zip")).returncode == 0
    assert bundle.with_suffix(".zip").read_bytes() == (tmp_path / "second.zip").read_bytes()


def test_nothing_in_it_names_a_place_or_a_user(finished: Bench, bench: Bench, tmp_path: Path) -> None:
    """A bundle states no path or user, even if the sweep file names a file by its absolute path."""
    weights = bench.folder / "private" / "teacher.safetensors"
    weights.parent.mkdir()
    shutil.copy2(finished.store.student_weights(teacher_run(finished)), weights)
    pair = {**SWEEP["pairs"][0], "teacher_weights": {"file": str(weights)}}
    copied = {**pair, "student": "digits_net_w8", "teacher_weights": {"file": str(shutil.copy2(weights, bench.folder))}}
    methods = {"student": {}, "kd": {}}
    note = f"trained in {bench.folder}, and at ann@secret.org:/secret/exp"
    bench.sweep = {**SWEEP, "name": "given", "methods": methods, "pairs": [pair, copied], "seeds": [0], "note": note}
    bench.take(finished, run_id := finished.cells()["student", 0].run_id)
    rows = pq.read_table(bench.store.record(run_id))
    at = rows.schema.get_field_index("host")
    rows = rows.set_column(at, rows.schema.field(at), [["node7.secret.org"]])
    at = rows.schema.get_field_index("warnings")
    rows = rows.set_column(at, rows.schema.field(at), pa.array([["no /secret/cache"]], rows.schema.field(at).type))
    at = rows.schema.get_field_index("retries")
    retries = pa.array([["retried on another node than secret1", "retried with 2 GB"]], rows.schema.field(at).type)
    rows = rows.set_column(at, rows.schema.field(at), retries)
    bench.store.record(run_id).write_bytes(records.file_content(rows.replace_schema_metadata()))
    bench.command("report")
    file, name = bench.folder / "sweep.yaml", f"pairs.0.teacher_weights.file={weights}"
    file.write_text(f"# of {bench.folder}/private/old.yaml, see ~secret/log\n{file.read_text()}")
    args = (file, "--results", bench.store.root, "--set", name, "--bundle", tmp_path / "b.zip")
    assert run_command("report", *args).code == 0
    folder = tmp_path / "b"
    with zipfile.ZipFile(tmp_path / "b.zip") as packed:
        packed.extractall(folder)
    secret = ["secret", str(bench.folder), str(tmp_path), "private", str(Path.home()) + "/", sys.prefix]
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content = str(pq.read_table(path).to_pylist()).encode()
        for name in secret:
            assert name.encode() not in content, (path, name)
    assert (folder / "sweep.yaml").read_text().startswith("# of old.yaml, see log\n")
    assert "Retried: on another node (1 run), with 2 GB (1 run)." in next(folder.glob("tables/*/table.md")).read_text()
    resolved = yaml.safe_load((folder / "resolved.yaml").read_text())
    assert resolved["note"].endswith("and at exp")
    assert resolved["pairs"][0]["teacher_weights"]["file"] == "teacher.safetensors"
    # The sha256 in the file gives the same runs: planning does not need the weights themselves.
    planned = plan_sweep(folder / "resolved.yaml", tmp_path / "none")
    assert set(planned.plan.runs) == set(bench.plan().plan.runs)


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--set", "recipe.lr=0.01", "--set", f"teachers.recipe={SWEEP['recipe']}"),  # the teacher is there
        ("--only", "method=kd,rekd"),
        ("--set", "seeds=1", "--only", "method=kd"),
    ],
)
def test_its_commands_make_the_same_sweep(finished: Bench, bundle: Path, tmp_path: Path, args: tuple[str, ...]) -> None:
    folder = bundled(finished, tmp_path / "b.zip", *args) if args else bundle
    sweep, report, verify = (folder / "commands.txt").read_text().splitlines()
    (packed,) = (path.name for path in (folder / "tables").iterdir())
    assert sweep.startswith(f"harness sweep {packed}/resolved.yaml") and verify.startswith("harness verify")
    above = tmp_path / "above"
    shutil.copytree(folder, above / packed)
    with contextlib.chdir(above):  # nothing is run inside of a folder that was sent
        result = run_command("sweep", *sweep.split()[2:], "--plan", "--json")
    assert result.code == 0, result.err
    original = json.loads(finished.call("sweep", "--plan", "--json", *args).out)
    planned = json.loads(result.out)
    assert {k: planned[k] for k in ("sweep", "runs", "cells")} == {k: original[k] for k in ("sweep", "runs", "cells")}
    settings = json.loads((folder / "settings.json").read_text())
    contents = json.loads((folder / f"tables/{planned['sweep']}/contents.json").read_text())
    assert {k for line in settings for k in line["runs"].values()} == {c["run_id"] for c in contents["cells"]}
    only = [word for option, word in zip(args, args[1:], strict=False) if option == "--only"]
    replanned = plan_sweep(folder / "resolved.yaml", tmp_path / "none", only=only)
    assert {c.run_id for c in replanned.plan.cells} == {c["run_id"] for c in contents["cells"]}
    assert report.endswith("--bundle bundle.zip --results results")


def test_the_environment_is_that_of_the_runs(finished: Bench, bundle: Path) -> None:

    environment = json.loads((bundle / "environment.json").read_text())
    rows = records.read_records(finished.store, finished.store.done_ids()).to_pylist()
    for package, version in json.loads(rows[0]["versions"]).items():
        assert environment["versions"][package] == {version: len(rows)}
    assert environment["git_commit"] == {rows[0]["git_commit"]: len(METHODS) * 3 + 1}
    assert environment["threads"] == {str(rows[0]["threads"]): len(rows)}
    readme = (bundle / "README.txt").read_text()
    assert "small: 16 of 16 runs" in readme and "harness verify --results small" in readme
    for line in readme.splitlines():
        if match := re.match(r"(\S+)   +\w", line):
            assert (bundle / match[1]).exists(), match[1]

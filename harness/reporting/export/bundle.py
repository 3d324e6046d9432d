"""A sweep's results as one zip file to attach to a paper: the same records give the same bytes.

Unpacked it is a store, whose tables ``harness.verify`` rebuilds from the records. Hosts have numbers in place of names,
and absolute paths are cut to their last part: nothing says where or by whom the runs were trained.
"""

import json
import shlex
import shutil
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from harness.errors import UserError
from harness.reporting import comparison, figures, statistics
from harness.reporting.comparison import Contents
from harness.reporting.export.own_files import FOLDER as OWN_FILES
from harness.reporting.export.own_files import write_own_files
from harness.reporting.export.private_paths import as_written, without_paths, without_paths_in
from harness.reporting.tables import digests, table_folder
from harness.spec import sweep_file
from harness.spec.sweep_plan import Plan
from harness.store import files, provenance, record_stream, records
from harness.store.run_notes import without_nodes
from harness.store.store import Store

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can have
_CONSTRAINTS = Path(__file__).resolve().parents[3] / "constraints.txt"  # of a checkout
_ENVIRONMENT = ("git_commit", "git_dirty", "hardware", "threads", "processes", "versions")
# In a table's contents, that may name paths.
_TEXTS = ("note", "dataset_label", "idle_settings", "teachers_alone", "tuning")
# Keys of a pair.
_GIVEN = ("teacher_weights", "student_backbone", "teacher_backbone", "student_weights", "teacher_init")
_README = """{name}: {done} of {runs} runs of a sweep of the knowledge distillation harness

tables/{name}/     the comparison in every format, and its records (Parquet)
figures/           the figures that the records allow, SVG and PDF
records/           a Parquet file per run: settings, metrics, curves by epoch, cost, provenance
sweep.yaml         the sweep file as it was written
resolved.yaml      the same with --set applied and its recipes written out: it needs no other file
settings.json      every setting of every line of the table, defaults too, with its runs
{tuning}environment.json   commit, packages and hardware that the runs were trained with, and how many with each
commands.txt       the commands that make this file again, in the folder above
{own}
To check that the tables follow from the records, with the harness that wrote them ({version}), unpack all this into
a folder {name}/, and in the folder above it:

    harness verify --results {name}

Never start Python inside a folder that you were sent: it imports modules from there.
To read the records: harness.open_store("{name}"), or any reader of Parquet.
"""
_TUNING = """tuning/            every trial of the tuning that chose the settings
"""
_OWN = """code/              modules of the authors' own, which these commands import: read them before you run them
"""


def write_bundle(
    out: Path, contents: Contents, plan: Plan, store: Store, only: Sequence[str], mix_protocols: bool
) -> list[str]:
    """Write the bundle, atomically. ``only``, ``mix_protocols``: the command's options.

    Returns:
        The parts that are not in it, and why.

    Raises:
        UserError: no run has a record yet, or one is damaged.
    """
    run_ids = contents.run_ids()
    facts = records.read_records(store, run_ids, ("run_id", "host", *_ENVIRONMENT))
    if not len(facts):
        raise UserError(f"{contents.name}: --bundle: no run has a record yet")
    hosts = {host: f"host{i}" for i, host in enumerate(sorted(set(facts.column("host").to_pylist())), 1)}
    with tempfile.TemporaryDirectory(prefix="harness-bundle-") as scratch:
        folder, left_out = Path(scratch), list[str]()
        unpacked = _unpacked(contents)
        tables = Store(folder).table_folder(unpacked.name)
        compared = table_folder.write_tables(unpacked, store, tables, partial(_without_places, hosts=hosts))
        (tables / digests.FILE).unlink()  # of this store, not of the unpacked one
        if contents.tuning:
            log = Store(folder).tuning(unpacked.name)
            log.parent.mkdir()
            shutil.copyfile(store.tuning(contents.name), log)
        try:
            figures.write_figures(compared, store, folder / "figures")
        except UserError as e:
            left_out.append(f"no figures: {e}")
        left_out += write_own_files((run.science for run in plan.runs.values()), folder)
        own = (folder / OWN_FILES).is_dir()
        commit, _ = provenance.git_state()
        release = metadata.version("kd-harness")
        version = f"{release}, commit {commit}" if commit else release
        parts = {"tuning": _TUNING * bool(contents.tuning), "own": _OWN * own}
        readme = _README.format(name=contents.name, done=len(facts), runs=len(run_ids), version=version, **parts)
        # With --only, the unpacked sweep's name gets the same mark again.
        name = plan.sweep.name if only else contents.name
        texts = {
            "README.txt": readme,
            "commands.txt": _commands(contents, only, mix_protocols, own),
            "sweep.yaml": as_written(Path(plan.document.source).read_text(encoding="utf-8"), plan.document.data),
            "resolved.yaml": yaml.safe_dump(_resolved(plan, name), sort_keys=False, allow_unicode=True),
            "settings.json": json.dumps(_settings(contents, plan), indent=1, sort_keys=True) + "\n",
            "environment.json": json.dumps(_environment(facts), indent=1, sort_keys=True) + "\n",
        }
        if _CONSTRAINTS.exists():
            texts["constraints.txt"] = _CONSTRAINTS.read_text(encoding="utf-8")
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        with_record = facts.column("run_id").to_pylist()
        of_runs = _record_files(store, with_record, folder, hosts)
        files.replace(out, lambda path: _zip(folder, of_runs, path))
        return left_out


def _record_files(
    store: Store, run_ids: Sequence[str], folder: Path, hosts: Mapping[str, str]
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each run's file, by name. ``folder``: for large sweeps' records on their way."""
    for rows in record_stream.stream_in_order(store, run_ids, folder):
        renamed = _without_places(rows, hosts)
        for i, run_id in enumerate(rows.column("run_id").to_pylist()):
            yield f"records/{run_id}.parquet", records.file_content(renamed.slice(i, 1).combine_chunks())


def _zip(folder: Path, record_files: Iterable[tuple[str, bytes]], path: Path) -> None:
    """Write the files of a folder and those of the records, by name."""
    texts = sorted(p for p in folder.rglob("*") if p.is_file())
    before = [file for file in texts if file < folder / "records"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in chain(_contents(folder, before), record_files, _contents(folder, texts[len(before) :])):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type, info.external_attr, info.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
            packed.writestr(info, content)


def _contents(folder: Path, paths: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        yield path.relative_to(folder).as_posix(), path.read_bytes()


def _without_places(rows: pa.Table, hosts: Mapping[str, str]) -> pa.Table:
    """Return records, or columns of them, without the paths in warnings and with names in place of hosts, or none."""
    columns = {
        "host": lambda values: [hosts[host] for host in values],
        "warnings": lambda values: [[without_paths(text) for text in texts] for texts in values],
        "retries": lambda values: [list(dict.fromkeys(map(without_nodes, texts))) for texts in values],
    }
    for name in columns.keys() & set(rows.schema.names):
        at = rows.schema.get_field_index(name)
        values = columns[name](rows.column(name).to_pylist())
        rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
    return rows


def _unpacked(contents: Contents) -> Contents:
    """Return what the bundle's tables show: the paper's commands are for the folder above the unpacked one."""
    texts = {name: without_paths_in(getattr(contents, name), is_text=True) for name in _TEXTS}
    return replace(contents, file=f"{contents.name}/resolved.yaml", sets=(), **texts)


def _environment(rows: pa.Table) -> dict[str, dict[str, Any]]:
    """Return column -> value -> number of runs trained with it; for packages, a version of each name."""
    counts: dict[str, Any] = {name: Counter() for name in _ENVIRONMENT}
    counts["versions"] = defaultdict(Counter)
    for name in _ENVIRONMENT:
        for value, runs in Counter(rows.column(name).to_pylist()).items():
            if name == "versions":
                for package, version in json.loads(value).items():
                    counts[name][package][version] += runs
            else:
                counts[name][str(value)] += runs
    return counts


def _settings(contents: Contents, plan: Plan) -> list[dict[str, Any]]:
    """Return for each line of the table its runs by seed, and their science without the seed."""
    return [
        {
            **line._asdict(),
            "teacher_run": cells[0].teacher_run,
            **({"teacher_runs": cells[0].teacher_runs} if cells[0].teacher_runs else {}),
            "runs": {str(cell.seed): cell.run_id for cell in cells},
            "science": plan.runs[cells[0].run_id].science.without_seed(),
        }
        for line, cells in contents.lines().items()
    ]


def _commands(contents: Contents, only: Sequence[str], mix_protocols: bool, own: bool) -> str:
    """Return the commands that make the bundle again, in the folder above the one where it is unpacked.

    ``own``: some of its code is the user's own.
    """
    options = [word for part in only for word in ("--only", part)]
    if contents.baseline != comparison.BASELINE:
        options += ["--baseline", contents.baseline]
    if contents.margin != statistics.MARGIN:
        options += ["--margin", str(contents.margin)]
    arguments = shlex.join([f"{contents.name}/resolved.yaml", *options, *["--mix-protocols"] * mix_protocols])
    lines = (f"sweep {arguments}", f"report {arguments} --bundle bundle.zip", "verify")
    added = "".join(f"# seeds that sweep --until-decided has added: {line}\n" for line in contents.added)
    path = f"PYTHONPATH={shlex.quote(f'{contents.name}/{OWN_FILES}')} " * own
    # `verify` runs nothing of the bundle, and so needs none of its modules.
    return "".join(f"{'' if line == 'verify' else path}harness {line} --results results\n" for line in lines) + added


def _resolved(plan: Plan, name: str | None) -> dict[str, Any]:
    """Return the sweep file's content with recipes in place of their names, and weights by their sha256."""
    data = json.loads(json.dumps(plan.document.data))
    data["name"] = name
    data["recipe"] = sweep_file.load_recipe(data["recipe"], plan.document, ("recipe",))
    teachers = data.get("teachers") or {}
    if teachers.get("recipe") is not None:
        teachers["recipe"] = sweep_file.load_recipe(teachers["recipe"], plan.document, ("teachers", "recipe"))
    given = (weights for pair in data["pairs"] for key in _GIVEN for weights in _as_list(pair.get(key)))
    for weights in filter(None, given):
        source = next(weights[key] for key in ("file", "url", "name") if key in weights)
        weights.setdefault("sha256", plan.sha256_of_source[source])
    resolved: dict[str, Any] = without_paths_in(data)
    return resolved


def _as_list(weights: Any) -> list[Any]:
    """Return the weights of several teachers, or those of one."""
    return weights if isinstance(weights, list) else [weights]

"""``python -m benchmarks.published.build published.csv``: build the committed CSV files from the collected numbers.

Every row of the input gets a protocol and our names next to the printed ones, or goes to excluded.csv with the reason.
A source, dataset, model or method that names.py and protocols.py do not list is an error.
"""

import argparse
import csv
import io
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.published import names
from benchmarks.published.protocols import SOURCES, Exclusion, Rule
from harness.errors import EXIT_BAD_INPUT, UserError, shorten, unknown

ROWS = 1937  # of the collection; if it has changed, check the new rows, then change this number
ADDED = tuple(Path(__file__).with_name(name) for name in ("heterogeneous.csv", "mrkd.csv"))  # of the same columns
COLUMNS = (
    "benchmark", "dataset", "teacher", "student", "method", "metric", "value", "std", "epochs", "source", "note",
)  # fmt: skip
METRICS = {  # as printed -> the quantity, and the epoch if the metric's name states it
    "top1": ("top1", ""), "top1_best": ("top1", "best"), "top1_last": ("top1", "last"), "top5": ("top5", ""),
    "top1_err": ("top1_err", ""), "top5_err": ("top5_err", ""), "AP": ("AP", ""), "APs": ("APs", ""),
    "APm": ("APm", ""), "APl": ("APl", ""),
}  # fmt: skip
NUMBER_COLUMNS = (
    "benchmark", "teacher", "student", "method", "settings", "metric", "value", "std", "protocol", "recipe_change",
    "teacher_value", "printed_teacher", "printed_student", "printed_method", "note",
)  # fmt: skip
PROTOCOL_COLUMNS = (
    "dataset", "protocol", "label", "epoch", "epochs", "recipe", "origin", "source", "note", "framework", "schedule",
)  # fmt: skip
# From recipes.md: with crd_240ep these students use lr 0.01. In a sweep file it is a setting of the pair.
SMALL_STUDENTS, SMALL_LR = ("MobileNetV2", "ShuffleV1", "ShuffleV2"), "lr=0.01"
Row = dict[str, str]


def read_collection(path: Path) -> list[Row]:
    """Return the collected rows, and after them those that this package adds.

    Raises:
        UserError: a file is not readable, has unexpected columns or number of rows, or a value that is not a number.
    """
    rows = _read_rows(path)
    if len(rows) != ROWS:
        raise UserError(f"{path}: has {len(rows)} rows, expected {ROWS}: check what changed, then change ROWS")
    return [*rows, *(row for file in ADDED for row in _read_rows(file))]


def _read_rows(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8") as f:
            table = csv.DictReader(f)
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{path}: {getattr(e, 'strerror', None) or e}") from None
    if tuple(table.fieldnames or ()) != COLUMNS or any(None in r or None in r.values() for r in rows):
        raise UserError(f"{path}: expected the columns {', '.join(COLUMNS)} in every row")
    for number, row in enumerate(rows, 2):
        for key in ("value", "std"):
            if (row[key] or key == "value") and not re.fullmatch(r"\d{1,2}(\.\d+)?", row[key]):
                raise UserError(f"{path}:{number}: {key}: expected a number below 100, found {shorten(row[key])}")
    return rows


def build_files(rows: Iterable[Row]) -> dict[str, str]:
    """Return the texts of the files by name.

    Raises:
        UserError: a name is unknown, rows of one protocol differ in its description, a row is duplicated, or rows
            excluded as repeats differ from the numbers that they should repeat.
    """
    rows = list(rows)
    ruled = [(row, _rule(row)) for row in rows]
    _check_unique(rows)
    _check_repeats(ruled)
    teachers = {(row["source"], *_cell(row)): row["value"] for row in rows if row["method"] == names.TEACHER}
    numbers: dict[str, list[Row]] = {name: [] for name in names.DATASETS.values()}
    protocols: dict[tuple[str, str], Row] = {}
    excluded = []
    for row, rule in ruled:
        if isinstance(rule, Exclusion):
            excluded.append({**row, "reason": rule.reason})
            continue
        dataset = names.DATASETS[row["dataset"]]
        protocol = _protocol(row, rule, dataset)
        if protocols.setdefault((dataset, protocol["protocol"]), protocol) != protocol:
            raise UserError(f"protocol {protocol['protocol']}: two rules or sources describe it differently")
        numbers[dataset].append(_number(row, rule, protocol, teachers))
    assert sum(map(len, numbers.values())) + len(excluded) == len(rows), "a row was lost"
    texts = {f"{dataset}.csv": _csv(NUMBER_COLUMNS, of_dataset) for dataset, of_dataset in numbers.items()}
    texts["protocols.csv"] = _csv(PROTOCOL_COLUMNS, protocols.values())
    texts["excluded.csv"] = _csv((*COLUMNS, "reason"), excluded)
    return texts


def _rule(row: Row) -> Rule | Exclusion:
    checks: tuple[tuple[str, str, Iterable[str]], ...] = (
        ("dataset", row["dataset"], names.DATASETS),
        ("source", row["source"], SOURCES),
        ("metric", row["metric"], METRICS),
        ("method", row["method"], names.METHODS),
        ("teacher", row["teacher"], names.models_of(row)),
        ("student", row["student"], names.models_of(row)),
    )
    if names.DATASETS.get(row["dataset"]) == "coco":
        checks += (
            ("benchmark", row["benchmark"], names.FRAMEWORKS),
            ("epochs", row["epochs"], names.SCHEDULES),
        )
    for kind, value, valid in checks:
        if value not in valid:
            raise UserError(f"{unknown(kind, value, valid)} (of {row['teacher']} > {row['student']}, {row['source']})")
    for rule in SOURCES[row["source"]]:
        if rule.when.fits(row):
            return rule
    raise UserError(f"source {row['source']!r}: no rule for method {row['method']!r} ({row['note']!r})")


def _cell(row: Row) -> tuple[str, str, str, str]:
    return row["dataset"], row["teacher"], row["student"], METRICS[row["metric"]][0]


def _check_unique(rows: list[Row]) -> None:
    seen: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = tuple(row[c] for c in COLUMNS if c not in ("benchmark", "std"))
        if key in seen:
            raise UserError(f"duplicated: {row['teacher']} > {row['student']}, {row['method']} of {row['source']}")
        seen[key] = row


def _check_repeats(ruled: list[tuple[Row, Rule | Exclusion]]) -> None:
    """Check that numbers excluded as repeats of another source's equal them."""
    numbers = {(rule.id, *_cell(row), row["method"]): row["value"] for row, rule in ruled if isinstance(rule, Rule)}
    for row, rule in ruled:
        if isinstance(rule, Exclusion) and rule.repeats:
            original = numbers.get((rule.repeats, *_cell(row), row["method"]))
            if original is None or float(original) != float(row["value"]):
                raise UserError(
                    f"{row['teacher']} > {row['student']}, {row['method']} of {row['source']}: {row['value']} does not "
                    f"repeat {rule.repeats}, which has {original}"
                )


def _protocol(row: Row, rule: Rule, dataset: str) -> Row:
    epoch = METRICS[row["metric"]][1]
    if epoch and epoch != rule.epoch:
        raise UserError(f"protocol {rule.id}: {row['metric']} of {row['source']} is not of the {rule.epoch} epoch")
    is_teacher = row["method"] == names.TEACHER
    epochs = row["epochs"] + "ep" * row["epochs"].isdecimal()
    parts = [rule.id, re.sub(r"\W+", "_", epochs).strip("_"), "teachers" if is_teacher else ""]
    return {
        "dataset": dataset,
        "protocol": "_".join(p for p in parts if p),
        "label": rule.label,
        "epoch": rule.epoch,
        "epochs": row["epochs"],
        "recipe": "" if is_teacher or dataset != "cifar100" else rule.recipe,
        "origin": rule.origin,
        "source": row["source"],
        "note": rule.note,
        "framework": names.FRAMEWORKS[row["benchmark"]] if dataset == "coco" else "",
        "schedule": names.SCHEDULES[row["epochs"]] if dataset == "coco" else "",
    }


def _number(row: Row, rule: Rule, protocol: Row, teachers: dict[tuple[str, ...], str]) -> Row:
    method, settings = names.METHODS[row["method"]]
    if not rule.plain:
        method, settings = "", ""
    if method == "crd" and (tau := re.search(r"tau (\d\.\d+)", row["note"])):
        settings = f"temperature={tau[1]}"
    models = names.models_of(row)
    student = models[row["student"]]
    changes = [SMALL_LR] * (student in SMALL_STUDENTS) + [settings] * settings.startswith("optimizer=")
    teacher_value = rule.teacher_value
    if rule.teachers is not None and not teacher_value:
        teacher_value = teachers.get((rule.teachers or row["source"], *_cell(row)), "")
    return {
        "benchmark": row["benchmark"],
        "teacher": models[row["teacher"]],
        "student": student,
        "method": method,
        "settings": settings,
        "metric": METRICS[row["metric"]][0],
        "value": row["value"],
        "std": row["std"],
        "protocol": protocol["protocol"],
        "recipe_change": " ".join(changes) if protocol["recipe"] == "crd_240ep" else "",
        "teacher_value": teacher_value,
        "printed_teacher": row["teacher"],
        "printed_student": row["student"],
        "printed_method": row["method"],
        "note": "; ".join(filter(None, (row["note"], names.NOTES.get((row["dataset"], row["method"]))))),
    }


def _csv(columns: Iterable[str], rows: Iterable[Row]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published.build", description=__doc__)
    parser.add_argument("source", type=Path, help="published.csv, the collected numbers")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder (default: this package's)")
    options = parser.parse_args()
    try:
        texts = build_files(read_collection(options.source))
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return EXIT_BAD_INPUT
    for name, text in texts.items():
        (options.out / name).write_text(text, encoding="utf-8")
        print(f"{options.out / name}: {len(list(csv.reader(text.splitlines()))) - 1} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m benchmarks.published.build published.csv``: the committed CSV files from the collected numbers.

Every row of the input is kept, with a protocol and with our names beside the printed ones, or stands in excluded.csv
with the reason. A source, dataset, model or method that names.py and protocols.py do not know is an error.
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

ROWS = 1937  # of the collection; another number means that it changed: look at what is new, then change this
COLUMNS = (
    "benchmark", "dataset", "teacher", "student", "method", "metric", "value", "std", "epochs", "source", "note",
)  # fmt: skip
METRICS = {  # as printed -> the quantity, and the epoch where the metric's own name says it
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
# recipes.md: with crd_240ep these students take lr 0.01. A sweep file says so with its pair.
SMALL_STUDENTS, SMALL_LR = ("MobileNetV2", "ShuffleV1", "ShuffleV2"), "lr=0.01"
Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """The collected rows.

    Raises:
        UserError: not readable, other columns or another number of rows than expected, a value that is no number.
    """
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
    if len(rows) != ROWS:
        raise UserError(f"{path}: has {len(rows)} rows, expected {ROWS}: look at what changed, then change ROWS")
    return rows


def build(rows: Iterable[Row]) -> dict[str, str]:
    """The files' texts by name.

    Raises:
        UserError: a name that is not known, a protocol with unlike rows, a row that stands twice, an exclusion whose
            rows are not what its reason says.
    """
    rows = list(rows)
    ruled = [(row, _rule(row)) for row in rows]
    _check_once(rows)
    _check_repeats(ruled)
    teachers = {(row["source"], *_place(row)): row["value"] for row in rows if row["method"] == names.TEACHER}
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
            raise UserError(f"protocol {protocol['protocol']}: two rules or sources make it another one each")
        numbers[dataset].append(_number(row, rule, protocol, teachers))
    kept = sum(map(len, numbers.values()))
    assert kept + len(excluded) == len(rows), "a row was lost"
    texts = {f"{dataset}.csv": _csv(NUMBER_COLUMNS, found) for dataset, found in numbers.items()}
    texts["protocols.csv"] = _csv(PROTOCOL_COLUMNS, protocols.values())
    texts["excluded.csv"] = _csv((*COLUMNS, "reason"), excluded)
    return texts


def _rule(row: Row) -> Rule | Exclusion:
    known: tuple[tuple[str, str, Iterable[str]], ...] = (
        ("dataset", row["dataset"], names.DATASETS),
        ("source", row["source"], SOURCES),
        ("metric", row["metric"], METRICS),
        ("method", row["method"], names.METHODS),
        ("teacher", row["teacher"], names.MODELS.get(row["dataset"], {})),
        ("student", row["student"], names.MODELS.get(row["dataset"], {})),
    )
    if names.DATASETS.get(row["dataset"]) == "coco":
        known += (
            ("benchmark", row["benchmark"], names.FRAMEWORKS),
            ("epochs", row["epochs"], names.SCHEDULES),
        )
    for kind, value, valid in known:
        if value not in valid:
            raise UserError(f"{unknown(kind, value, valid)} (of {row['teacher']} > {row['student']}, {row['source']})")
    for rule in SOURCES[row["source"]]:
        if rule.when.fits(row):
            return rule
    raise UserError(f"source {row['source']!r}: no rule for method {row['method']!r} ({row['note']!r})")


def _place(row: Row) -> tuple[str, str, str, str]:
    return row["dataset"], row["teacher"], row["student"], METRICS[row["metric"]][0]


def _check_once(rows: list[Row]) -> None:
    seen: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = tuple(row[c] for c in COLUMNS if c not in ("benchmark", "std"))
        if key in seen:
            raise UserError(f"stands twice: {row['teacher']} > {row['student']}, {row['method']} of {row['source']}")
        seen[key] = row


def _check_repeats(ruled: list[tuple[Row, Rule | Exclusion]]) -> None:
    """That numbers left out because they repeat another source's do so."""
    known = {(rule.id, *_place(row), row["method"]): row["value"] for row, rule in ruled if isinstance(rule, Rule)}
    for row, rule in ruled:
        if isinstance(rule, Exclusion) and rule.repeats:
            found = known.get((rule.repeats, *_place(row), row["method"]))
            if found is None or float(found) != float(row["value"]):
                raise UserError(
                    f"{row['teacher']} > {row['student']}, {row['method']} of {row['source']}: {row['value']} does not "
                    f"repeat {rule.repeats}, which has {found}"
                )


def _protocol(row: Row, rule: Rule, dataset: str) -> Row:
    said = METRICS[row["metric"]][1]
    if said and said != rule.epoch:
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
    models = names.MODELS[row["dataset"]]
    student = models[row["student"]]
    value = rule.teacher_value
    if rule.teachers is not None and not value:
        value = teachers.get((rule.teachers or row["source"], *_place(row)), "")
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
        "recipe_change": SMALL_LR if protocol["recipe"] == "crd_240ep" and student in SMALL_STUDENTS else "",
        "teacher_value": value,
        "printed_teacher": row["teacher"],
        "printed_student": row["student"],
        "printed_method": row["method"],
        "note": row["note"],
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
        texts = build(read(options.source))
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return EXIT_BAD_INPUT
    for name, text in texts.items():
        (options.out / name).write_text(text, encoding="utf-8")
        print(f"{options.out / name}: {len(list(csv.reader(text.splitlines()))) - 1} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The fidelity of students: its values, and the tables and figures of records with and without it."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch import Tensor

from harness.planning.plan import plan_sweep
from harness.reporting import comparison as comparisons
from harness.reporting.comparison import Comparison
from harness.reporting.figures import fidelity as figure
from harness.reporting.figures.style import render
from harness.reporting.tables import formats
from harness.store import records
from harness.store.schema import FIDELITY, FIDELITY_COLUMNS
from harness.training.distributed.ranks import Ranks
from harness.training.fidelity import FidelityReference, TrainingImages, fidelity
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher, measure_teacher
from methods.base import Outputs, TapSpec
from tests.support.cli import run_command
from tests.support.comparisons import SWEEP, contents, row, table
from tests.support.fidelity import plain_fidelity

SIZES = [256, 100]


def random_logits(seed: int, scale: float = 3.0) -> list[Tensor]:
    return list((scale * torch.randn(sum(SIZES), 10, generator=torch.Generator().manual_seed(seed))).split(SIZES))


def test_values_are_those_of_a_plain_computation() -> None:
    student, teacher, targets = random_logits(0), random_logits(1), torch.arange(sum(SIZES)) % 10
    teacher = [s + 0.7 * t for s, t in zip(student, teacher, strict=True)]  # they agree on some
    values = fidelity(student, teacher, targets)
    expected = plain_fidelity(torch.cat(student).numpy(), torch.cat(teacher).numpy(), targets.numpy())
    assert tuple(values) == FIDELITY == tuple(expected) and 20 < expected["agreement"] < 95
    assert values == pytest.approx(expected, rel=1e-12)
    alone = fidelity(student, None, targets)
    assert alone == {"agreement": None, "kl_t1": None, "kl_t4": None, "ece": values["ece"]}


def test_a_student_equal_to_its_teacher_agrees_without_divergence() -> None:
    logits = random_logits(0, scale=300.0)  # most probabilities underflow
    values = fidelity(logits, logits, torch.zeros(sum(SIZES), dtype=torch.int64))
    assert (values["agreement"], values["kl_t1"], values["kl_t4"]) == (100.0, 0.0, 0.0)


def test_sums_of_ranks_are_those_of_one_process() -> None:
    student, teacher, targets = random_logits(0), random_logits(1), torch.arange(sum(SIZES)) % 10
    whole, sums = fidelity(student, teacher, targets), []

    class Both(Ranks):
        def all_reduce_sum(self, tensors: Any) -> None:
            sums.append(tensors[0].clone())
            if len(sums) == 2:
                tensors[0] += sums[0]

    ranks = Both()
    fidelity(student[:1], teacher[:1], targets[:256], ranks)
    assert fidelity(student[1:], teacher[1:], targets[256:], ranks) == pytest.approx(whole, rel=1e-12)


def of_positions(read: list[list[int]]) -> Any:
    def images(positions: Tensor) -> Iterator[Tensor]:
        read.append(positions.tolist())
        yield from positions.float()[:, None].split(2)

    return images


@pytest.mark.parametrize(("most", "expected"), [(4, [0, 2, 5, 7]), (10, list(range(10))), (99, list(range(10)))])
def test_training_images_are_spread_over_the_set(most: int, expected: list[int]) -> None:
    read: list[list[int]] = []
    images = TrainingImages(of_positions(read), torch.arange(10), most)
    assert images.targets.tolist() == expected
    batches = list(images.batches(slice(1, None)))
    assert read == [expected[1:]] and all(torch.equal(x[:, 0], t.float()) for x, t in batches)
    assert torch.cat([t for _, t in batches]).tolist() == expected[1:]


def test_the_teachers_logits_are_kept_from_its_evaluation() -> None:
    class Net(torch.nn.Module):
        calls = 0

        def forward(self, images: Tensor) -> Outputs:
            Net.calls += 1
            return Outputs(images @ torch.ones(1, 3), images)

    class Images:
        name, targets = "test", torch.arange(4) % 3

        def batches(self, mine: slice) -> Iterator[tuple[Tensor, Tensor]]:
            yield torch.arange(4.0)[mine, None], self.targets[mine]

    task, on, other = Classification(3, (1, 1, 1)), Images(), Images()
    unmeasured = Teacher(Net(), "net", SimpleNamespace(), "", None, TapSpec({}, {}, 1, 3))  # type: ignore[arg-type]
    teacher = measure_teacher(unmeasured, on, task)
    trained = TrainingImages(of_positions([]), torch.arange(4) % 3, 2)
    assert Net.calls == 1
    reference = FidelityReference.of(teacher, trained, on, task)
    assert Net.calls == 2 and reference.evaluated is teacher.logits, "only training images are new"
    FidelityReference.of(teacher, trained, other, task)
    assert Net.calls == 4


# tables and figures --------------------------------------------------------------------------------------------------


def measured(agreement: float | None, **more: Any) -> dict[str, float | None]:
    values = dict.fromkeys(FIDELITY_COLUMNS, 0.25) | {"last_agreement": agreement, "train_agreement": agreement}
    return values | more


def of_both_kinds() -> tuple[Comparison, pa.Table]:
    """Return a comparison whose student has no teacher, and whose records of fitnets are an earlier harness's."""
    known = {"student": measured(None), "kd": measured(80.0), "crd": measured(90.0), "fitnets": {}}
    tops = {"student": 60.0, "kd": 63.0, "crd": 62.0, "fitnets": 61.0}
    rows = [row(f"{m}-{s}", tops[m] + s, 65.0, **known[m]) for m in known for s in (0, 1)]
    rows[3] |= {"last_agreement": 82.0}
    return comparisons.compare(contents(tuple(known), 2), table(rows)), table(rows)


def lines(text: str) -> dict[str, list[str]]:
    cells = (
        [c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| t > s")
    )
    return {line[1]: line[2:] for line in cells}


def test_the_table_has_means_over_seeds_of_records_that_have_them() -> None:
    compared, _ = of_both_kinds()
    text = formats.fidelity_text(compared, "md")
    of_method = lines(text)
    constant = ["0.2500 ± 0.0000"] * 2 + ["0.25 ± 0.00"]
    assert of_method["kd"] == [
        "63.50 ± 0.71", "81.00 ± 1.41", *constant, "0.25 ± 0.00", "80.00 ± 0.00", *constant, "2"
    ]  # fmt: skip
    assert of_method["student"][1] == "" and of_method["student"][4] == "0.25 ± 0.00"
    assert of_method["fitnets"] == ["61.50 ± 0.71", *[""] * 9, "2"]
    assert "Not measured, in runs of an earlier harness and of detectors: t > s, fitnets." in text
    fields = {r["method"]: r for r in csv.DictReader(io.StringIO(formats.fidelity_text(compared, "csv")))}
    assert (fields["kd"]["last_agreement_mean"], fields["kd"]["last_agreement_n"]) == ("81.0", "2")
    assert fields["fitnets"]["train_ece_mean"] == "" and fields["student"]["run_ids"] == "student-0 student-1"
    assert "<td>81.00 ± 1.41</td>" in formats.fidelity_text(compared, "html")
    assert r"81.00 ± 1.41 &" in formats.fidelity_text(compared, "tex").replace("$\\pm$", "±")


def test_tables_have_the_columns_if_records_do() -> None:
    compared, rows = of_both_kinds()
    old = comparisons.compare(contents(("fitnets",), 2), rows.slice(6))
    new_csv, old_csv = formats.csv_text(compared), formats.csv_text(old)
    old_header, new_header = (text.splitlines()[0].removesuffix(",seeds_to_tell") for text in (old_csv, new_csv))
    assert new_header.startswith(old_header) and "train_kl_t4_std" in new_header
    assert "agreement" not in old_csv and not old.has_fidelity and compared.has_fidelity
    named = comparisons.name_rows(old.contents, old.contents.cells, rows.slice(6), FIDELITY_COLUMNS)
    assert not set(FIDELITY_COLUMNS) & set(named.schema.names)
    data = comparisons.comparison_dict(compared)["rows"]
    assert data[1]["fidelity"]["last_agreement"] == {"mean": 81.0, "std": pytest.approx(2**0.5), "n": 2}
    assert data[3]["fidelity"] == {}


def test_the_command_prints_and_writes_the_table_which_verify_rebuilds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    retried = ["retried with 2 GB after running out of memory with 1"]
    for i, (run_id, run) in enumerate(planned.plan.runs.items()):
        more = {"science": run.science.text, "retries": retried * (i < 2), **measured(80.0)}
        records.write_record(planned.store, row(run_id, 60.0, 61.0, **more))
    printed = run_command("report", "small.yaml", "--fidelity").out
    assert "80.00 ± 0.00" in printed
    table = run_command("report", "small.yaml").out
    assert "agreement" not in table and "\nRetried: with 2 GB after running out of memory with 1 (2 runs).\n" in table
    assert run_command("report", "small.yaml", "--fidelity", "--out", "tables").code == 0
    retries = pq.read_table("tables/small/records.parquet").column("retries").to_pylist()
    assert retries.count(retried) == 1, "the other is the teacher's"
    file = Path("tables/small/fidelity.md")
    assert file.read_text() == printed
    verify = ("verify", "--results", "results", "--tables", "tables")
    assert run_command(*verify).code == 0
    file.write_text(printed.replace("80.00", "81.00"))
    result = run_command(*verify)
    assert result.code == 1 and "fidelity.md: line 3" in result.out
    assert run_command("report", "small.yaml", "--fidelity", "--paper").error.startswith("--paper and --fidelity")


def test_the_figure_has_a_mark_for_each_method_with_a_teacher() -> None:
    compared, rows = of_both_kinds()
    (drawing,) = figure.drawings(compared)
    svg = render(drawing, "svg")["svg"].decode()
    assert ">kd</text>" in svg and ">crd</text>" in svg and ">agreement with t (%)</text>" in svg
    assert ">student</text>" not in svg and ">fitnets</text>" not in svg
    assert not list(figure.drawings(comparisons.compare(contents(("fitnets",), 2), rows.slice(6))))

"""The files of the GPU program: findings, mosaics in two parts, the saved store, the summary and the history."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.gpu import history, mosaics, saved_store
from benchmarks.gpu.findings import Findings
from benchmarks.gpu.history import Figures
from benchmarks.gpu.kernels import covered
from benchmarks.gpu.summary import MOST_LINES, summary
from harness.data.load.cifar import read_arrays
from harness.errors import UserError
from harness.store.store import Store


def add_machine(findings: Findings, card: str = "Card A", **values: object) -> None:
    usual = {"cuda": "13.0", "cudnn": 1, "python": "3.12.3", "cores": 16, "commit": "abc"}
    findings.add("card", "machine", card=card, torch="2.11.0", **usual | values)


def add_ours(findings: Findings, rate: float, members: int = 1) -> None:
    usual = {"pair": "a -> b", "precision": "bf16", "methods": ["kd"], "share_of_matrix_peak": 0.1,
             "memory_mib": 100.0 * members, "minutes_of_240_epochs": 5.0}  # fmt: skip
    findings.add("throughput", "ours", members=members, images_per_s_of_all=rate, **usual)


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    findings = Findings.of(tmp_path)
    assert findings.read() == []
    findings.add("card", "copy", gb_per_s=1.0)
    with findings.path.open("a") as file:
        file.write('{"stage": "card", "ki')
    assert [f["kind"] for f in findings.read()] == ["copy"]
    findings.add("card", "copy to device", gb_per_s=1.0)
    with findings.path.open("a") as file:
        file.write('{"stage": "card"}\n[]\n')
    assert [f["kind"] for f in findings.read()] == ["copy", "copy to device"]


def test_a_stage_is_finished_by_its_last_end(tmp_path: Path) -> None:
    findings = Findings.of(tmp_path)
    assert not findings.is_finished("row")
    findings.add("row", "end", finished=False)
    assert not findings.is_finished("row")
    findings.add("row", "end", finished=True)
    assert findings.is_finished("row") and not findings.is_finished("card")


def test_mosaics_that_arrive_in_two_folders(tmp_path: Path) -> None:
    """Each tile is an image, row by row; mosaics here have 2 x 3 tiles, not 100 x 100."""
    rng = np.random.default_rng(0)
    tiles = {(split, i): rng.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
             for split, count in mosaics.SPLITS.items() for i in range(count)}  # fmt: skip
    first, second = tmp_path / "data" / "a", tmp_path / "data" / "b"
    for number, ((split, i), images) in enumerate(tiles.items()):
        folder = first if number < 3 else second
        folder.mkdir(parents=True, exist_ok=True)
        pixels = images.reshape(2, 3, 3, 32, 32).transpose(0, 3, 1, 4, 2).reshape(64, 96, 3)
        Image.fromarray(pixels).save(folder / f"{split}_{i}.webp", lossless=True)
    root = tmp_path / "data"
    assert mosaics.missing(root) == ["labels.npz"]
    np.savez(second / "labels.npz", y_train=np.arange(30) % 7, y_test=np.arange(6))
    assert mosaics.missing(root) == [] and mosaics.missing(first) == [
        "labels.npz",
        "train_3.webp",
        "train_4.webp",
        "test_0.webp",
    ]
    mosaics.unpack(root, tmp_path / "out")
    data = read_arrays(tmp_path / "out")
    assert np.array_equal(data.train_images, np.concatenate([tiles["train", i] for i in range(5)]))
    assert np.array_equal(data.test_images, tiles["test", 0])
    assert data.train_targets.tolist() == [i % 7 for i in range(30)]
    small = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    small.save(first / "train_0.webp", lossless=True)
    with pytest.raises(UserError, match="mosaics of train below .* have 25 images, labels.npz 30 labels"):
        mosaics.unpack(root, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (first / "train_1.webp").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"mosaics of CIFAR-100 below .* cannot be read: .*train_1.webp"):
        mosaics.unpack(root, tmp_path / "other")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Make a store with a record, two checkpoints of a run, and the weights of another."""
    store = Store(tmp_path / "work" / "store")
    for path, size in {
        store.record("done"): 100,
        store.run("done") / "student.safetensors": 30_000,
        store.checkpoints("open") / "epoch-000001-step-000000.safetensors": 40_000,
        store.checkpoints("open") / "epoch-000002-step-000000.safetensors": 40_001,
        store.run("open") / "science.json": 10,
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    (tmp_path / "out").mkdir()
    return store


def contents(store: Store) -> dict[str, bytes]:
    return {str(p.relative_to(store.root)): p.read_bytes() for p in store.root.rglob("*") if p.is_file()}


def elsewhere(tmp_path: Path) -> Store:
    (tmp_path / "other").mkdir(exist_ok=True)
    return Store(tmp_path / "other" / "store")


OLD, NEW = (f"runs/open/checkpoints/epoch-00000{i}-step-000000.safetensors" for i in (1, 2))


def test_a_saved_store_comes_back_with_its_newest_checkpoints(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives here are small, so that files go on from one to the next."""
    monkeypatch.setattr(saved_store, "PART_BYTES", 33_000)
    assert saved_store.save(store, tmp_path / "out") == []
    parts = sorted((tmp_path / "out").iterdir())
    assert [part.name for part in parts] == [f"store.{i}" for i in range(4)]
    assert all(part.stat().st_size <= 33_000 for part in parts)
    back = elsewhere(tmp_path)
    assert saved_store.restore(tmp_path / "out", back)
    expected = contents(store)
    del expected[OLD]
    assert contents(back) == expected
    assert contents(store).keys() > expected.keys() and saved_store.restore(tmp_path / "out", store)
    assert OLD in contents(store), "the store that was last saved there is the newer one"


def test_a_store_of_another_save_gives_way(store: Store, tmp_path: Path) -> None:
    saved_store.save(store, tmp_path / "out")
    stale = elsewhere(tmp_path)
    stale.record("stale").parent.mkdir(parents=True)
    stale.record("stale").write_bytes(b"")
    assert saved_store.restore(tmp_path / "out", stale)
    assert NEW in contents(stale) and "records/stale.parquet" not in contents(stale)


def test_what_does_not_fit_is_left_out_in_order_of_value(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_store, "PART_BYTES", 28_000)
    assert saved_store.save(store, tmp_path / "out") == ["runs/done/student.safetensors"]
    monkeypatch.setattr(saved_store, "PART_BYTES", 15_000)
    assert saved_store.save(store, tmp_path / "out") == [NEW, "runs/done/student.safetensors"]
    back = elsewhere(tmp_path)
    assert saved_store.restore(tmp_path / "out", back)
    assert contents(back).keys() == {"records/done.parquet", "runs/open/science.json"}


@pytest.mark.parametrize("damage", ["cut", "missing", "mixed"])
def test_of_a_damaged_archive_every_whole_file_comes_back(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """`mixed`: the program was ended when it had replaced the first file, and a new record was in it."""
    monkeypatch.setattr(saved_store, "PART_BYTES", 33_000)
    saved_store.save(store, tmp_path / "out")
    last = max((tmp_path / "out").iterdir())
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:5000])
    elif damage == "missing":
        last.unlink()
    else:
        store.record("new").write_bytes(b"new")
        (tmp_path / "next").mkdir()
        saved_store.save(store, tmp_path / "next")
        (tmp_path / "next" / "store.0").replace(tmp_path / "out" / "store.0")
    back = elsewhere(tmp_path)
    assert not saved_store.restore(tmp_path / "out", back)
    assert {"records/done.parquet", "runs/open/science.json"} <= contents(back).keys()
    assert ("records/new.parquet" in contents(back)) == (damage == "mixed")


def test_the_summary_is_short_whatever_was_found(tmp_path: Path) -> None:
    findings = Findings.of(tmp_path)
    assert summary(findings) == []
    add_machine(findings)
    findings.add("tests", "test", test="tests/gpu/test_a.py::test_b", result="failed")
    for members in range(1, 100):
        add_ours(findings, 1000.0, members)
    rates = {"images_per_s": 250.0, "images_per_s_of_all": 250.0}
    findings.add("throughput", "plain", pair="a -> b", precision="bf16", processes=1, **rates)
    for i in range(30):
        findings.add("row", "failed", run=f"run {i}", why="out of memory")
    findings.add("row", "table", lines=[f"| row {i} |" for i in range(50)])
    findings.add("coco", "end", finished=False, why="no time was left")
    lines = summary(findings)
    assert 40 < len(lines) <= MOST_LINES and all(len(line) <= 160 for line in lines)
    assert sum("more lines: see results.jsonl" in line for line in lines) == 2
    assert "stage coco: not finished: no time was left" in lines and "| row 0 |" in lines
    assert "tests: 1 failed" in lines and "  tests/gpu/test_a.py::test_b: failed" in lines
    assert any("pack of 2" in line and "4.00 x" in line and "10.0 %" in line and "200 MiB" in line for line in lines)
    ((_, each),) = history.memory_per_member(findings.read())
    assert each == 100


def test_figures_are_compared_with_the_newest_of_the_same_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "FOLDER", tmp_path / "history")
    history.FOLDER.mkdir()
    findings = Findings.of(tmp_path)
    add_machine(findings)
    add_ours(findings, 1000.0)
    add_ours(findings, 500.0, 8)
    now = Figures.of(findings)
    assert now is not None and now.figures["a -> b in bf16, pack of 8, images/s"] == 500.0
    assert summary(findings)[-1] == "history: none of Card A yet"
    for card, date, rate in (
        ("Card A", "2026-01-01", 1.0),
        ("Card A", "2026-02-01", 400.0),
        ("Card B", "2026-03-01", 2.0),
    ):
        earlier = {**now.figures, "a -> b in bf16, pack of 8, images/s": rate}
        Figures(card, "2.10.0", "def", date, earlier).write(history.FOLDER / f"{card} {date}.json")
    text = summary(findings)
    assert "history: 5 figures as on 2026-02-01 (torch 2.10.0, commit def), 1 changed" in text
    assert text[-1] == "  1.25 x a -> b in bf16, pack of 8, images/s"


def test_kept_figures_can_be_read() -> None:
    for path in history.FOLDER.glob("*.json"):
        assert Figures.read(path).figures, path


def test_findings_of_another_card_are_left_out_but_not_its_training(tmp_path: Path) -> None:
    findings = Findings.of(tmp_path)
    add_machine(findings)
    add_ours(findings, 1000.0)
    findings.add("row", "done", run="a", top1=70.0)
    add_machine(findings)
    assert len(findings.read()) == 4
    add_machine(findings, "Card B")
    assert [(f["stage"], f.get("card")) for f in findings.read()] == [("row", None), ("card", "Card B")]
    add_ours(findings, 500.0)
    assert [f["kind"] for f in findings.read()] == ["done", "machine", "ours"]


def test_overlapping_kernels_count_once() -> None:
    assert covered([(0, 2), (1, 3), (5, 6), (5.2, 5.4)]) == 4
    assert covered([]) == 0


def test_a_history_file_of_another_kind_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "FOLDER", tmp_path)
    (tmp_path / "a.json").write_text('{"card": "Card A"}')
    (tmp_path / "b.json").write_text("[")
    assert history.newest("Card A") is None

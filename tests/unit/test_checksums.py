"""Every bit counts: records, compacted parts, JSON files, tables and prepared data with a bit changed."""

import json
import os
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

from harness.data import beton, content
from harness.data.load.arrays import WrongData
from harness.data.manifest import Manifest
from harness.errors import UserError
from harness.store import checksums, compaction, files, json_files, records, weight_cache
from harness.store.generations import INDEX
from harness.store.schema import SCHEMA_VERSION
from harness.store.store import Store
from tests.support.cli import run_command
from tests.support.comparisons import invented_id, row
from tests.torture import flips


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a generation of four runs, and a later record."""
    store = Store(tmp_path / "results")
    for i in range(4):
        put(store, i)
    assert compaction.compact(store, 0) == 4
    put(store, 4)
    return store


def put(store: Store, number: int, **more: object) -> Path:
    curves = [{"epoch": e, "name": "test_top1", "value": number + e / 7} for e in range(9)]
    run_id, more = invented_id(number), {"schema_version": SCHEMA_VERSION, "curves": curves, **more}
    assert records.write_record(store, row(run_id, 50.0 + number, 60.0, **more))
    return store.record(run_id)


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def read(store: Store) -> list[dict[str, object]]:
    return records.read_records(store, store.done_ids()).to_pylist()


def test_no_flipped_bit_of_a_record_is_believed(store: Store) -> None:
    path, random = store.record(invented_id(4)), Random(0)
    whole = path.read_bytes()
    for bit in random.sample(range(8 * len(whole)), 300):
        path.write_bytes(flipped(whole, bit))
        with pytest.raises(UserError, match="not a readable record"):
            records.read_loose(store, path.stem)
    path.write_bytes(whole)
    assert len(read(store)) == 5


@pytest.mark.parametrize("name", [INDEX, "*.parquet"])
def test_no_flipped_bit_of_compacted_records_is_believed(store: Store, name: str) -> None:
    (path,) = store.all_runs.resolve().rglob(name)
    before, whole, random = read(store), path.read_bytes(), Random(0)
    for count, bit in enumerate(random.sample(range(8 * len(whole)), 300)):
        path.write_bytes(flipped(whole, bit))
        os.utime(path, (count, count))
        try:
            assert read(store) == before, bit
        except UserError as e:
            assert str(path) in str(e)


def test_compaction_leaves_a_record_that_fails_its_checksum(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    path = store.record(invented_id(4))
    whole = path.read_bytes()
    at = whole.index(b"test_top1")
    path.write_bytes(whole[:at] + b"l" + whole[at + 1 :])
    assert compaction.compact(store, 0) == 0
    assert path.exists() and f"{path}: not a readable record" in (said := capsys.readouterr().err)
    assert "It stays where it is" in said


def test_a_record_of_today_without_a_checksum_is_refused_and_an_earlier_one_is_counted(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store.record(invented_id(4))
    pq.write_table(pq.ParquetFile(path).read().replace_schema_metadata(), path)
    with pytest.raises(UserError, match="it carries no checksum"):
        read(store)
    path.unlink()
    earlier = put(store, 5, schema_version=checksums.SINCE - 1)
    pq.write_table(pq.ParquetFile(earlier).read().replace_schema_metadata(), earlier)
    assert len(read(store)) == 5 and (note := "has records without a checksum") in capsys.readouterr().err
    json_files.print_note.cache_clear()
    result = run_command("verify", "--results", store.root)
    assert result.code == 0 and note in result.err and "5 records (1 without a checksum)" in result.out
    json_files.print_note.cache_clear()
    assert compaction.compact(store, 0) == 1 and f"harness.compact --results {store.root}" in capsys.readouterr().err
    json_files.print_note.cache_clear()
    assert len(read(store)) == 5 and not capsys.readouterr().err  # compaction has added it


def test_verify_names_each_damaged_file(store: Store) -> None:
    damaged, run_id = put(store, 5), invented_id(0)
    damaged.write_bytes(flipped(damaged.read_bytes(), 4000))
    weights = store.student_weights(run_id)
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    result = run_command("verify", "--results", store.root)
    assert result.code == 1 and "5 records, weights of 1 run" in result.out
    assert f"DAMAGED {damaged}" in result.out and f"DAMAGED {weights}: sha256 is" in result.out
    shutil.rmtree(weights.parent)
    damaged.unlink()
    assert run_command("verify", "--results", store.root).code == 0


@pytest.mark.parametrize("value", [{"a": [1, 0.1, "ü"]}, [{"a": 1}, {"b": None}], []])
def test_json_values_keep_their_checksum(tmp_path: Path, value: object) -> None:
    text = json.dumps(checksums.seal_value(value))
    assert checksums.open_value(json.loads(text)) == value == checksums.open_value(value)
    if value:
        with pytest.raises(checksums.WrongChecksum):
            checksums.open_value(json.loads(text.replace("1", "2", 1)))


def test_the_note_of_another_download_is_not_believed(tmp_path: Path) -> None:
    cache, urls = weight_cache.WeightCache(tmp_path), ("https://a/x.pth", "https://b/x.pth")
    for url in urls:
        files.replace_json(cache._source(url), checksums.seal_value({"url": urls[0], "sha256": "0" * 64}))
    assert [cache.known_sha256(url) for url in urls] == ["0" * 64, None]


def test_flips_says_what_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "check_value", lambda content, stated: None)
    assert any(outcome.lost for outcome in islice(flips.trials(tmp_path, Random(1)), 300))


# compaction's own files ----------------------------------------------------------------------------------------------


def as_folder(path: Path) -> None:
    path.mkdir()
    (path / "mine.parquet").write_text("mine")


def as_file(path: Path) -> None:
    path.write_text("mine")


def as_link(path: Path) -> None:
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("make", [as_folder, as_file, as_link])
def test_compaction_keeps_what_is_not_its_own(
    store: Store, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    store.all_runs.unlink()
    own = [store.compact / name for name in ("2024", ".notes.tmp", ".old.gone")]
    for path in own:
        as_folder(path)
    make(store.all_runs)
    before = os.path.lexists(store.all_runs), store.all_runs.is_symlink(), store.all_runs.is_dir()
    assert compaction.compact(store, 0) == 1
    assert (os.path.lexists(store.all_runs), store.all_runs.is_symlink(), store.all_runs.is_dir()) == before
    assert all((path / "mine.parquet").exists() for path in own) and len(store.done_ids()) == 5
    assert f"{store.all_runs}: not written by compaction" in capsys.readouterr().err


# prepared data -------------------------------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Manifest]:
    """A prepared folder of four images that are no JPEGs, whose sizes are not looked at."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    with (folder / "val.beton").open("w+b") as file:
        writer = beton.Writer(file, 4)
        for i in range(4):
            writer.add(i % 2, 8, 8, bytes([i]) * 100)
        writer.finish()
    version = content.version_of([("a", "b"), {"test": content.part_digest(folder / "val.beton")}])
    size = (folder / "val.beton").stat().st_size
    part = {"file": "val.beton", "images": 4, "bytes": size, "counts": {}, "per_class_min": 2}
    facts = {"settings": {"max_side": None, "quality": 90}, "source": "0" * 16, "made_with": {}}
    manifest = Manifest.model_validate(
        {"version": version, "dataset": "imagefolder", "classes": ["a", "b"], "train": None, "test": part, **facts}
    )
    return folder, manifest


def check(folder: Path, manifest: Manifest) -> None:
    content.check(folder, manifest, lambda digests: [manifest.classes, digests])


def test_swapped_labels_are_refused(prepared: tuple[Path, Manifest]) -> None:
    folder, manifest = prepared
    check(folder, manifest)
    path = folder / "val.beton"
    data = bytearray(path.read_bytes())
    first = beton._METADATA + beton._SAMPLE.fields["label"][1]
    labels = [slice(first + i * beton._SAMPLE.itemsize, first + i * beton._SAMPLE.itemsize + 8) for i in (0, 1)]
    data[labels[0]], data[labels[1]] = data[labels[1]], data[labels[0]]
    path.write_bytes(data)
    assert beton.read_beton(path).labels.tolist() == [1, 0, 0, 1], "otherwise the file is as before"
    with pytest.raises(WrongData, match="do not hold content"):
        check(folder, manifest)


def test_prepared_data_are_read_once_per_file_and_machine(
    prepared: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, manifest = prepared
    read_parts: list[Path] = []
    digest = content.part_digest
    monkeypatch.setattr(content, "part_digest", lambda path: read_parts.append(path) or digest(path))
    check(folder, manifest)
    check(folder, manifest)
    assert len(read_parts) == 2, "a file that has just been written is read again"
    monkeypatch.setattr(content, "_SETTLED_S", -1.0)
    check(folder, manifest)
    check(folder, manifest)
    assert len(read_parts) == 3
    os.utime(folder / "val.beton", (1, 1))
    check(folder, manifest)
    assert len(read_parts) == 4


def test_an_image_of_another_size_than_its_jpeg_is_refused(prepared: tuple[Path, Manifest]) -> None:
    folder, _ = prepared
    start = bytes.fromhex("ffd8 ffe0 0004 0000 ffc0 0011 08 0010 0020")  # 16 x 32
    for height, is_right in ((16, True), (17, False)):
        with (folder / "val.beton").open("w+b") as file:
            writer = beton.Writer(file, 1)
            writer.add(0, height, 32, start + bytes(20))
            writer.finish()
        if is_right:
            assert len(content.part_digest(folder / "val.beton")) == 64
        else:
            with pytest.raises(WrongData, match="image 0 is of another size than 17 x 32"):
                content.part_digest(folder / "val.beton")

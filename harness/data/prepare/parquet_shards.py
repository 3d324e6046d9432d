"""Parquet shards with the bytes of images in a column and their labels in another, as the Hugging Face Hub has them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.parquet_columns import find_columns
from harness.data.prepare.archives import RowGroup
from harness.data.prepare.examples import Example, Shard
from harness.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


def read_shard(path: Path) -> Shard:
    """List the images of a shard, of which only the columns without image bytes are read.

    Raises:
        UserError: it is damaged, or has no column of image bytes or of labels.
    """
    parquet = _parquet()
    try:
        with parquet.ParquetFile(path) as file:
            columns = find_columns(path, file.schema_arrow)
            wanted = [column for column in (columns.label, columns.name) if column]
            table = file.read(wanted, use_threads=False)
            labels = table.column(columns.label).to_pylist()
            names = _names(table, columns.name)
            size, rows = path.stat().st_size, [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            classes = class_names(file.schema_arrow, columns.label)
    except UserError:
        raise
    except Exception as e:  # a damaged file makes Arrow raise anything
        raise UserError(f"{path}: {_why(path, e)}") from None
    groups = (RowGroup(path, number, columns.content) for number in range(len(rows)))
    places = ((group, row) for group, count in zip(groups, rows, strict=True) for row in range(count))
    examples = [
        Example(name, label, size, group, row) for name, label, (group, row) in zip(names, labels, places, strict=True)
    ]
    return Shard(path, examples, classes, ignored=0)


def class_names(schema: "pa.Schema", label: str) -> tuple[str, ...] | None:
    """Return the names of the classes that the shard's metadata state for a column, if they do."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _names(table: "pa.Table", column: str | None) -> list[str | None]:
    if column is None:
        return [None] * len(table)
    from pyarrow import compute

    return [name or None for name in compute.struct_field(table.column(column.split(".")[0]), [0]).to_pylist()]


def _why(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "empty file"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer instead of the file: git lfs pull"
    return f"no Parquet file, or cut or damaged: {' '.join(str(error).split())[:200]}"


def _parquet() -> Any:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UserError("reading Parquet shards needs pyarrow: pip install 'pyarrow>=18'") from None
    return parquet

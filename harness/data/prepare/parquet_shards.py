"""Parquet shards with the bytes of images in a column and their labels in another, as the Hugging Face Hub has them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.data.prepare.archives import RowGroup
from harness.data.prepare.examples import Example, Shard
from harness.errors import UserError
from harness.phrases import some

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES, LABELS = ("image", "img"), ("label", "fine_label", "labels", "cls")  # the first that is there


class Columns(NamedTuple):
    """The columns of a shard that are read."""

    content: str  # the bytes of the images
    name: str | None  # their file names
    label: str


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


def find_columns(path: Path, schema: "pa.Schema") -> Columns:
    """Return the columns of image bytes, names and labels.

    Raises:
        UserError: there are none, or several and none has a usual name.
    """
    import pyarrow as pa

    def binary(kind: Any) -> bool:
        return kind is not None and bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    def fields(kind: Any) -> dict[str, Any]:
        inner = [kind.field(i) for i in range(kind.num_fields)] if pa.types.is_struct(kind) else []
        return {field.name: field.type for field in inner}

    holders = [field.name for field in schema if binary(field.type) or binary(fields(field.type).get("bytes"))]
    image = _chosen(path, schema, holders, IMAGES, "image bytes (binary, or a structure of bytes and path)")
    kind = schema.field(image).type
    label_kinds = [field.name for field in schema if _is_label(field.type) and field.name in LABELS]
    label = _chosen(path, schema, label_kinds, LABELS, "labels (whole numbers or names)")
    if binary(kind):
        return Columns(image, None, label)
    return Columns(f"{image}.bytes", f"{image}.path" if "path" in fields(kind) else None, label)


def class_names(schema: "pa.Schema", label: str) -> tuple[str, ...] | None:
    """Return the names of the classes that the shard's metadata state for a column, if they do."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _is_label(kind: Any) -> bool:
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_integer(value) or pa.types.is_string(value) or pa.types.is_large_string(value))


def _chosen(path: Path, schema: "pa.Schema", found: Sequence[str], usual: Sequence[str], what: str) -> str:
    for name in usual:
        if name in found:
            return name
    if len(found) == 1:
        return found[0]
    problem = f"several columns of {what}: {some(found)}" if found else f"no column of {what}"
    raise UserError(f"{path}: {problem}; expected one called {' or '.join(usual)}, found {some(schema.names, 9)}")


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

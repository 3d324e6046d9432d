"""Columns of Parquet shards that hold the bytes of images, their names and their labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import UserError, shorten
from harness.phrases import some

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES, LABELS = ("image", "img"), ("label", "fine_label", "labels", "cls")  # the first that is there


class Columns(NamedTuple):
    """The columns of a shard that are read."""

    content: str  # the bytes of the images
    name: str | None  # their file names
    label: str


def find_columns(path: Path, schema: "pa.Schema") -> Columns:
    """Return the columns of image bytes, names and labels.

    Raises:
        UserError: there are none, or several and none has a usual name.
    """
    import pyarrow as pa

    def binary(kind: Any) -> bool:
        tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
        return kind is not None and any(test(kind) for test in tests)

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


def _is_label(kind: Any) -> bool:
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(value) for test in tests)


def _chosen(path: Path, schema: "pa.Schema", found: Sequence[str], usual: Sequence[str], what: str) -> str:
    for name in usual:
        if name in found:
            return name
    if len(found) == 1:
        return found[0]
    others = [f"{field.name} is {shorten(str(field.type))}" for field in schema if field.name in usual]
    problem = f"several columns of {what}: {some(found)}" if found else f"no column of {'; '.join([what, *others])}"
    raise UserError(f"{path}: {problem}; expected one called {' or '.join(usual)}, found {some(schema.names, 9)}")

"""Shards of images: Parquet files as the Hugging Face Hub has them, webdataset tars, and ImageNet's own tars."""

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_parquet(
    path: Path,
    rows: Iterable[tuple[str | None, bytes | None, Any]],
    classes: Sequence[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    row_group_size: int = 4,
) -> None:
    """Write (name, bytes, label) of images; without ``classes``, no metadata state their names."""
    names, contents, labels = zip(*rows, strict=True)
    images = [{"bytes": content, "path": name} for name, content in zip(names, contents, strict=True)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    image, label = columns
    table = pa.table({image: pa.array(images, kind), label: pa.array(labels)})
    if classes:
        features = {image: {"_type": "Image"}, label: {"names": list(classes), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)


def tar_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a tar that holds files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, member in members:
            info = tarfile.TarInfo(name)
            info.size = len(member)
            tar.addfile(info, io.BytesIO(member))
    return content.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_of(members))

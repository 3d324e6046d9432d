"""Webdataset shards: tars in which ``KEY.jpg`` stands next to its label, ``KEY.cls`` or ``KEY.json``."""

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from harness.data.prepare.archives import TarFile
from harness.data.prepare.examples import Example, Shard
from harness.data.prepare.file_names import EXTENSIONS, is_within_hidden
from harness.data.prepare.tar_members import Member, tar_members
from harness.errors import UserError

MAX_LABEL = 1 << 20  # bytes of a .cls or .json
_JSON_KEYS = ("label", "cls", "class_id", "class")


def read_shard(path: Path) -> Shard:
    """List the images of a tar. The key of a member is its name up to the first dot after the last slash.

    Raises:
        UserError: the tar is compressed or damaged, or a key has two images or a label that cannot be read.
    """
    images: dict[str, Member] = {}
    labels: dict[tuple[str, str], Member] = {}  # by key and extension
    ignored, odd = 0, ""
    for member in tar_members(path):
        folder, base = os.path.split(member.name)
        stem, _, extension = base.partition(".")
        key, extension = os.path.join(folder, stem), extension.lower()
        if not member.is_file or is_within_hidden(member.name):  # such as the ._NAME of a Mac
            ignored += 1
        elif f".{extension}" in EXTENSIONS:
            if key in images:
                raise UserError(f"{path}: {member.name}: a second image of the key {key}, after {images[key].name}")
            images[key] = member
        elif extension in ("cls", "json"):
            labels[key, extension] = member
        else:
            ignored += 1
            odd = odd or (member.name if base.lower().endswith(EXTENSIONS) else "")
    if odd and not images:
        raise UserError(
            f"{path}: no image; {odd} has the extension {odd.partition('.')[2]} after its first dot, expected one of "
            f"{' '.join(EXTENSIONS)}"
        )
    ignored += sum(key not in images for key, _ in labels)
    archive = TarFile(path)
    with path.open("rb") as file:
        examples = [
            Example(image.name, _label(file, path, key, labels), image.size, archive, image.start)
            for key, image in images.items()
        ]
    return Shard(path, examples, None, ignored)


def _label(file: BinaryIO, path: Path, key: str, labels: dict[tuple[str, str], Member]) -> int | str | None:
    """Return the label of a key, None if it has none."""
    for extension in ("cls", "json"):
        if (member := labels.get((key, extension))) is None:
            continue
        try:
            if member.size > MAX_LABEL:
                raise ValueError(f"{member.size:,} bytes")
            text = os.pread(file.fileno(), member.size, member.start).decode()
            return _number(text.strip()) if extension == "cls" else _in_json(json.loads(text))
        except (ValueError, RecursionError) as e:
            raise UserError(f"{path}: {member.name}: no label can be read of it: {e}") from None
    return None


def _in_json(content: Any) -> int | str | None:
    values = [content.get(key) for key in _JSON_KEYS] if isinstance(content, dict) else [content]
    label = next((value for value in values if value is not None), None)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if label is not None and (isinstance(label, bool) or not isinstance(label, int | str)):
        raise ValueError(f"{label!r} is neither a number nor a name")
    if isinstance(label, str):
        label.encode()  # a ValueError where JSON's escapes make no text
        return _number(label)
    return label


def _number(text: str) -> int | str:
    if not text:
        raise ValueError("it is empty")
    try:
        return int(text)
    except ValueError:
        return text

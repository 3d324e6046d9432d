"""The JSON of an annotation file, and words for a file that holds something else."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from harness.data.prepare.outlines import box_of_outline
from harness.errors import UserError, shorten

OUTLINE = "box of the outline"  # the key of an entry without a box, next to COCO's
LARGEST = 2**33  # bytes that a compressed file may unfold to: COCO's largest have 2**29
EXPECTED = "expected COCO's images, annotations and categories"

# What a file begins with that is no JSON, and what it is then.
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer instead of the file: fetch it with `git lfs pull`",
    b"<": "HTML or XML, not JSON: perhaps an error page, or annotations in another format",
    b"PK\x03\x04": "a zip archive: unpack it",
}


def read_content(path: Path) -> dict[str, Any]:
    """Return the file's content without outlines, gzip or not. Of an entry that has no box, the box of its outline is
    under OUTLINE.

    Raises:
        UserError: the file cannot be read, or is no JSON object.
    """
    try:
        # Outlines, which boxes do not need, are most of a file: let go one by one as they are read.
        content = json.loads(_text(path), object_hook=_without_outline)
    except (ValueError, RecursionError) as e:
        lines = " (one JSON object a line? COCO's format is a single one)" if "Extra data" in str(e) else ""
        raise UserError(f"{path}: not JSON: {e}{lines}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: {EXPECTED}; found {shorten(content)}")
    return content


def _text(path: Path) -> bytes:
    try:
        text = _unfolded(path, path.read_bytes())
    except (OSError, EOFError, zlib.error) as e:
        raise UserError(f"{path}: {getattr(e, 'strerror', None) or e}") from None
    if not (start := text[:100].lstrip(b"\xef\xbb\xbf \t\r\n")):
        raise UserError(f"{path}: is empty; {EXPECTED}")
    for beginning, meaning in _OTHERS.items():
        if start.startswith(beginning):
            raise UserError(f"{path}: is {meaning}")
    return text


def _unfolded(path: Path, content: bytes) -> bytes:
    if not content.startswith(b"\x1f\x8b"):
        return content
    with gzip.open(path) as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise UserError(f"{path}: unfolds to more than {LARGEST:,} bytes")
    return text


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    if "segmentation" in entry:
        outline = entry.pop("segmentation")
        if not entry.get("bbox") and (box := box_of_outline(outline)):
            entry[OUTLINE] = box
    return entry

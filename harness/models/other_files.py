"""Files that are no checkpoints: web pages, pointers of Git LFS, other libraries' files, named for what they are."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from harness.errors import one_line, shorten
from harness.phrases import some

EXPECTED = "expected a file of safetensors or torch.save"
_BY_START = {
    b"\x1f\x8b": "is compressed by gzip: unpack it first",
    b"BZh": "is compressed by bzip2: unpack it first",
    b"\xfd7zXZ": "is compressed by xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd: unpack it first",
    b"7z\xbc\xaf": "is a 7z archive: unpack it first",
    b"Rar!": "is a rar archive: unpack it first",
    b"\x93NUMPY": f"is a NumPy array; {EXPECTED}",
    b"\x89HDF": f"is an HDF5 file, as Keras writes; {EXPECTED}",
    b"GGUF": f"is a GGUF file; {EXPECTED}",
    b"\x89PNG": f"is an image; {EXPECTED}",
    b"\xff\xd8\xff": f"is an image; {EXPECTED}",
    b"%PDF": f"is a PDF; {EXPECTED}",
    b"\x7fELF": f"is a program; {EXPECTED}",
}
_TEXT_BYTES = 200_000  # of a text that are looked at


def describe_other(start: bytes, path: Path, size: int) -> str:
    """Return what a file is that is no checkpoint, from its first 512 bytes, and what to do."""
    if not size:
        return "is empty"
    for magic, text in _BY_START.items():
        if start.startswith(magic):
            return text
    if start[4:8] == b"TFL3":
        return f"is a TensorFlow Lite model; {EXPECTED}"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "is a plain pickle, not torch.save's: save the state dict by torch.save(model.state_dict(), FILE)"
    if start[:1] == b"\x08" and start[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42"):
        return f"is a model of ONNX or TensorFlow; {EXPECTED}"
    if not any(start):
        return "holds nothing but zeros where it begins: its download or copy is incomplete"
    with path.open("rb") as file:
        return _describe_text(file.read(_TEXT_BYTES)) or f"is no checkpoint, or a damaged one; {EXPECTED}"


def describe_archive(names: Sequence[str]) -> str | None:
    """Return what a zip archive with these entries is; None where torch.save may have written it."""
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return "is a TorchScript archive, which holds code: save the model's state_dict() by torch.save instead"
    if "data.pkl" in inner:
        return None
    if any(name in ("archive_format", "models/model.json") for name in (*inner, *names)):
        return "is an archive of torch.export: save the model's state_dict() by torch.save instead"
    if names and all(name.endswith(".npy") for name in names):
        return f"is an archive of NumPy arrays (.npz); {EXPECTED}"
    if "model.weights.h5" in names:
        return f"is a Keras model; {EXPECTED}"
    return f"is a zip archive of {_listed(names)}; {EXPECTED}: unpack it first"


def describe_tar(names: Sequence[str]) -> str:
    """Return what a tar archive with these files is, which torch has not written."""
    return f"is a tar archive of {_listed(names)}; {EXPECTED}: unpack it first"


def _describe_text(content: bytes) -> str | None:
    try:
        text = content.decode("utf-8-sig", errors="strict" if len(content) < _TEXT_BYTES else "ignore").strip()
    except UnicodeDecodeError:
        return None
    if text.startswith("version https://git-lfs"):
        return "is a Git LFS pointer: fetch the file itself by `git lfs pull`"
    if re.match(r"<(!doctype|html|head|\?xml|!--)", text, re.IGNORECASE):
        title = re.search(r"<title[^>]*>(.*?)</title", text, re.IGNORECASE | re.DOTALL)
        about = f" ({shorten(title[1].strip(), 60)})" if title else ""
        return f"is a web page{about}, not the file that it offers: download that, for example in a browser"
    if text[:1] in ("{", "["):
        return _describe_json(text)
    if re.fullmatch(r"[\w.+-]*(/[\w.+-]+)+", text):
        return f"is the text of a link, {one_line(text, 100)}: name the file that it leads to"
    if any(ord(c) < 32 and c not in "\t\r\n\f" for c in text[:512]):
        return None
    return f"is a text that begins with {shorten(text[:50])}; {EXPECTED}"


def _describe_json(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    files = value.get("weight_map") if isinstance(value, dict) else None
    if isinstance(files, dict):
        names = sorted({str(name) for name in files.values()})
        return f"is the index of weights that are split over {_listed(names)}: expected one file with all of them"
    return f"is a JSON file; {EXPECTED}"


def _listed(names: Sequence[str]) -> str:
    return some([one_line(name, 60) for name in names]) or "nothing"

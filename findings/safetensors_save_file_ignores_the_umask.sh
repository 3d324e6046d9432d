#!/usr/bin/env bash
# safetensors 0.8.0: `save_file` gives the file mode 0600 whatever the umask says, and puts a new file in the place of an old one:
# an existing file's mode is lost, and a symbolic link is replaced by a file of its own, while the file that it led to keeps the old weights.
# On a folder that a group shares, nobody but the writer can read such weights; `numpy.savez` in the same place follows umask, mode and link.
# Seen on Python 3.11 with umask 002: 600 for a new file, 600 for one that was 664, and no link is left.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
seen="$(cd "$folder" && "$folder/venv/bin/python" - 2>&1 <<'PYTHON'
import os

import numpy
from safetensors.numpy import load_file, save_file

os.umask(0o002)


def mode(name):
    return f"{os.stat(name).st_mode & 0o777:o}"


def save_all(ending, save):
    """Save to a new file, over one of mode 664, and through a link; return the modes, and what became of the link."""
    new, old, target, link = (f"{name}.{ending}" for name in ("new", "old", "target", "link"))
    save(new, 0)
    for name in (old, target):
        save(name, 0)
        os.chmod(name, 0o664)
    os.symlink(target, link)
    save(old, 1)
    save(link, 1)
    return mode(new), mode(old), "link" if os.path.islink(link) else "file"


weights = save_all("safetensors", lambda name, value: save_file({"a": numpy.full(3, float(value))}, name))
arrays = save_all("npz", lambda name, value: numpy.savez(name, a=numpy.full(3, float(value))))
behind = load_file("target.safetensors")["a"][0], numpy.load("target.npz")["a"][0]
print(*weights, "|", *arrays, "| behind the link:", *map(int, behind))
PYTHON
)"
echo "new file, file of mode 664, link: $seen"
test "$seen" = "600 600 file | 664 664 link | behind the link: 0 1"

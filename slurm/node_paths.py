"""Paths on a node, which may have variables of the node in them: ``/scratch/$USER/kd``, ``$TMPDIR/kd``."""

import os
import re
from pathlib import Path

from harness.errors import UserError, expected

_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


def node_path(text: str) -> str:
    """Return a path on a node as it is stated.

    Raises:
        ValueError: it is relative, or has more in it than variables that a shell would replace.
    """
    if not text.startswith(("/", "$")) or "$" in _VARIABLE.sub("", text):
        raise ValueError(expected("an absolute path, in which $NAME is a variable, as /scratch/$USER/kd", text))
    return text


def in_shell(text: str) -> str:
    """Return the word of a shell script that is this path, with its variables replaced and nothing else."""
    return '"' + re.sub(r'[\\"`]', r"\\\g<0>", text) + '"'


def on_this_node(text: str) -> Path:
    """Return the path with the variables of this process.

    Raises:
        UserError: one is not set, or the path is relative with them.
    """
    path = os.path.expandvars(text)
    if unset := _VARIABLE.search(path):
        raise UserError(f"{text}: {unset[0]} is not set on this node")
    if not os.path.isabs(path):
        raise UserError(f"{text}: {path} is no absolute path")
    return Path(os.path.normpath(path))

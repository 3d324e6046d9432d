"""Containers that a profile's jobs run in: the command around a job's Python, and what the job sees in there.

The harness adds what a job needs: the store, its code, the data and the weights, where temporary files go.
"""

import os
import shlex
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from harness.errors import UserError, expected
from harness.spec.recipe import Closed
from slurm.node_paths import in_shell, node_path

# The exit code by which a job asks its script, which runs outside of the container, to put it back into the queue.
REQUEUE_CODE = 200
PYTHON = "python3"  # of a container, unless the profile names another
_TEMPORARY = '"${TMPDIR:-/tmp}"'


def _mount(text: str) -> str:
    parts = text.split(":")
    if "," in text or len(parts) > 3 or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise ValueError(expected("FOLDER, FOLDER:PLACE or FOLDER:PLACE:ro", text))
    for part in parts[:2]:
        node_path(part)
    return text


def _image(text: str) -> str:
    if not text or text != text.strip() or text.startswith(("-", "~", ".")):
        raise ValueError(expected("an absolute path or a name, as docker://python:3.12", text))
    return text


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Container(Closed):
    """A container that jobs run in."""

    image: Annotated[str, AfterValidator(_image)] = Field(
        description="its file, by an absolute path, or its name, e.g. `docker://python:3.12`"
    )
    mounts: Annotated[tuple[Annotated[str, AfterValidator(_mount)], ...], BeforeValidator(_one_or_more)] = Field(
        (), description="what else jobs see: `FOLDER`, `FOLDER:PLACE` (its path inside) or `FOLDER:PLACE:ro`"
    )
    runtime: Literal["apptainer", "singularity", "pyxis"] = Field(
        "apptainer", description="what starts it; `pyxis` is a plugin of srun"
    )

    def words(self, paths: Iterable[str], on_node: Iterable[str], folder: str, gpus: bool) -> str:
        """Return the part of a job's script between srun's options and the command that runs inside.

        ``paths``, and ``on_node`` with a node's variables, are what the harness mounts; the command starts in
        ``folder``.
        """
        mounts = self._mounts(paths, on_node)
        if self.runtime == "pyxis":
            return " ".join(
                [
                    f"--container-image={shlex.quote(self.image)}",
                    f"--container-mounts={','.join(mounts)}",
                    "--container-mount-home",  # as apptainer does: the notes on checked data are there
                    f"--container-workdir={shlex.quote(folder)}",
                ]
            )
        binds = " ".join(f"--bind {mount}" for mount in mounts)
        return f"{self.runtime} exec {'--nv ' * gpus}{binds} --pwd {shlex.quote(folder)} {shlex.quote(self.image)}"

    def _mounts(self, paths: Iterable[str], on_node: Iterable[str]) -> list[str]:
        """Return SOURCE:PLACE of all mounts, as words of the shell.

        The user's replace the harness's at the same place. A folder comes before what is mounted inside it.
        """
        by_place = {_TEMPORARY: f"{_TEMPORARY}:{_TEMPORARY}"}
        by_place |= {path: f"{shlex.quote(path)}:{shlex.quote(path)}" for path in paths}
        for text in (*on_node, *self.mounts):
            source, place, options = (*text.split(":"), "", "")[:3]
            place = place or source
            by_place[place] = f"{in_shell(source)}:{in_shell(place)}{':' * bool(options)}{options}"
        return [by_place[place] for place in sorted(by_place)]


def check_mountable(paths: Iterable[str]) -> None:
    """Check that a container can be given paths.

    Raises:
        UserError: one has a character in it that separates paths in the options of containers.
    """
    for path in paths:
        if separator := next((character for character in ":," if character in path), None):
            raise UserError(f"{path}: a container cannot be given a path with {separator!r} in it")


def mounted_paths(store: str, read: Iterable[str], search: Iterable[str], folder: str) -> list[str]:
    """Return the folders that a container is given for its jobs, outermost ones only, without those that are missing.

    ``read``: files and folders outside the store that they read; ``search``: where they find modules; ``folder``: where
    they start.
    """
    folders = [path if os.path.isdir(path) else os.path.dirname(path) for path in read]
    paths = {store, *filter(os.path.isdir, map(os.path.abspath, [*folders, *search, folder]))}
    return sorted(path for path in paths if not any(path.startswith(f"{other}/") for other in paths))

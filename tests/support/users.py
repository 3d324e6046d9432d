"""Commands as other users, with real uids. Only root can start them; the accounts need not exist."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.cli import PATIENCE, REPO, CommandResult, arguments

GROUP = 4100  # which the users of a store share


@dataclass(frozen=True)
class User:
    """A user of this machine, by number."""

    uid: int
    umask: int = 0o002
    in_group: bool = True

    def start(
        self, *words: object, cwd: Path, read_only: Path | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Start a program; ``read_only``: a folder that is mounted without writing for it."""
        groups = str(GROUP) if self.in_group else str(self.uid)
        identity = ["setpriv", "--reuid", self.uid, "--regid", self.uid, "--groups", groups]
        return subprocess.Popen(
            list(map(str, [*_mounts(read_only), *identity, *words])),
            cwd=cwd,
            umask=self.umask,
            text=True,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
        )

    def command(self, name: str, *words: object, cwd: Path, read_only: Path | None = None) -> subprocess.Popen[str]:
        """Start ``python -m harness.NAME WORDS``."""
        return self.start(
            sys.executable, "-m", f"harness.{name}", *arguments(name, *words), cwd=cwd, read_only=read_only
        )

    def run(self, name: str, *words: object, cwd: Path, read_only: Path | None = None) -> CommandResult:
        """Run ``python -m harness.NAME WORDS`` to its end."""
        return result(self.command(name, *words, cwd=cwd, read_only=read_only))


class Session:
    """A process of a user, which runs commands faster than each in its own would start."""

    def __init__(self, user: User, cwd: Path, read_only: Path | None = None):
        words = (sys.executable, "-m", "tests.support.user_session")
        self._process = user.start(*words, cwd=cwd, read_only=read_only, stdin=subprocess.PIPE)

    def ask(self, name: str, *words: object) -> None:
        """Start a command, or one of ``user_session.WRITERS``."""
        assert self._process.stdin is not None
        print(json.dumps([name, *arguments(name, *words)]), file=self._process.stdin, flush=True)

    def answer(self) -> CommandResult:
        """Wait for the command that was started last."""
        assert self._process.stdout is not None
        return CommandResult(*json.loads(self._process.stdout.readline()))

    def run(self, name: str, *words: object) -> CommandResult:
        self.ask(name, *words)
        return self.answer()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def result(process: subprocess.Popen[str]) -> CommandResult:
    """Wait for a command and return what it printed."""
    out, err = process.communicate(timeout=PATIENCE)
    return CommandResult(process.returncode, out, err)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Make a folder that the group may write to, in which new folders belong to the group too; remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="kd-users-", dir="/tmp") as name:
        folder = Path(name)
        os.chown(folder, 0, GROUP)
        folder.chmod(0o2775)
        yield folder


@cache
def missing() -> str:
    """Return why no command can be started as another user here; empty where it can."""
    if os.geteuid() != 0:
        return "needs root, to start commands as other users"
    if not shutil.which("setpriv"):
        return "needs setpriv, of util-linux"
    tried = result(User(4001).start(sys.executable, "-c", "import harness", cwd=Path("/tmp")))
    return f"another user cannot run Python here: {tried.err.strip()[-200:]}" if tried.code else ""


def _mounts(read_only: Path | None) -> list[str]:
    """Return the start of a command with mounts of its own: of Python, where a folder above hides it, and read-only."""
    steps, base = [], Path(sys.base_prefix)
    hidden = [path for path in reversed(base.parents) if not path.stat().st_mode & 0o001]
    if hidden:
        aside, folder, python = "/mnt", shlex.quote(str(hidden[0])), shlex.quote(str(base))
        steps = [
            f"mount --bind {python} {aside}",
            f"mount -t tmpfs -o mode=755 none {folder}",
            f"mkdir -p {python}",
            f"mount --bind {aside} {python}",
        ]
    if read_only:
        place = shlex.quote(str(read_only))
        steps += [f"mount --bind {place} {place}", f"mount -o remount,bind,ro {place}"]
    return ["unshare", "--mount", "sh", "-c", " && ".join([*steps, 'exec "$@"']), "sh"] if steps else []

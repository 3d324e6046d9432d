"""File names of a loopback cluster, and the limits of its folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError

SOCKET_LIMIT = 107  # bytes of a unix socket's path, Linux's sockaddr_un


@dataclass(frozen=True)
class Layout:
    """The private folder of one cluster. Names are short: SLURM puts a unix socket per job step in the spool."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "loopback.json"

    @property
    def slurm_conf(self) -> Path:
        return self.root / "slurm.conf"

    @property
    def slurmdbd_conf(self) -> Path:
        return self.root / "slurmdbd.conf"  # SLURM looks for it next to slurm.conf

    @property
    def env_sh(self) -> Path:
        return self.root / "env.sh"

    @property
    def munge_key(self) -> Path:
        return self.root / "munge" / "key"

    @property
    def munge_seed(self) -> Path:
        return self.root / "munge" / "seed"

    @property
    def munge_socket(self) -> Path:
        return self.root / "run" / "munge.s"

    @property
    def database(self) -> Path:
        return self.root / "db"

    @property
    def database_socket(self) -> Path:
        return self.root / "run" / "db.s"

    @property
    def controller_state(self) -> Path:
        return self.root / "ctld"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    def pid(self, daemon: str) -> Path:
        return self.run / f"{daemon}.pid"

    def log(self, daemon: str) -> Path:
        return self.logs / f"{daemon}.log"

    def make(self, node_names: list[str]) -> None:
        """Create the folders, readable by their owner only: whoever reaches the sockets controls the cluster."""
        for folder in (self.run, self.logs, self.controller_state, self.munge_key.parent, self.database):
            folder.mkdir(mode=0o700)
        for name in node_names:
            (self.spool / name).mkdir(mode=0o700, parents=True)

    def check_length(self, node_names: list[str]) -> None:
        """Check the folder's name.

        Raises:
            UserError: a socket's path would be too long, or SLURM cannot name the folder.
        """
        name = max(node_names, key=len)
        longest = self.spool / name / f"{name}_9999999.4294967291"  # the batch step of a job
        if (over := len(os.fsencode(longest)) - SOCKET_LIMIT) > 0:
            raise UserError(
                f"{self.root}: too long for unix sockets by {over} characters "
                f"({len(os.fsencode(self.root))}, at most {len(os.fsencode(self.root)) - over}); give a shorter --dir"
            )
        if bad := sorted(set(str(self.root)) & set(" \t\n\"'#=,%\\")):
            raise UserError(f"{self.root}: SLURM's files cannot name a folder with {bad[0]!r}; give another --dir")


def default_folder() -> Path:
    """Return ``$KD_LOOPBACK`` (set by env.sh), else a folder under ``$XDG_STATE_HOME``."""
    if named := os.environ.get("KD_LOOPBACK"):
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "kd-loopback"

"""File names of a loopback cluster, and the limits of its folder."""

import os
from pathlib import Path

from harness.errors import UserError

SOCKET_LIMIT = 107  # bytes of a unix socket's path, Linux's sockaddr_un


class Layout:
    """The private folder of one cluster. Names are short: SLURM puts a unix socket per job step in the spool."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "loopback.json"
        self.slurm_conf = root / "slurm.conf"
        self.slurmdbd_conf = root / "slurmdbd.conf"  # SLURM looks for it next to slurm.conf
        self.gres_conf = root / "gres.conf"
        self.env_sh = root / "env.sh"
        self.munge_key = root / "munge" / "key"
        self.munge_seed = root / "munge" / "seed"
        self.run = root / "run"
        self.munge_socket = self.run / "munge.s"
        self.database = root / "db"
        self.database_socket = self.run / "db.s"
        self.database_tables = root / "dbtmp"  # temporary tables
        self.controller_state = root / "ctld"
        self.spool = root / "spool"
        self.logs = root / "log"

    def pid(self, daemon: str) -> Path:
        return self.run / f"{daemon}.pid"

    def log(self, daemon: str) -> Path:
        return self.logs / f"{daemon}.log"

    def gpu(self, number: int) -> Path:
        return self.run / f"gpu{number}"

    def make(self, node_names: list[str]) -> None:
        """Create the folders, readable by their owner only: whoever reaches the sockets controls the cluster."""
        private = (self.run, self.logs, self.controller_state, self.munge_key.parent)
        for folder in (*private, self.database, self.database_tables):
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

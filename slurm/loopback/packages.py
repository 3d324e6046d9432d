"""The programs that a cluster needs, and the Debian packages that they come in."""

import os
import shutil

from harness.errors import UserError

PROGRAMS = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "scontrol": "slurm-wlm",
    "sinfo": "slurm-wlm",
    "sacctmgr": "slurm-wlm",
    "slurmdbd": "slurmdbd",
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "mariadb-admin": "mariadb-server",
}
APT = "apt-get install slurm-wlm slurmdbd munge mariadb-server"


def search_path() -> str:
    """Return PATH with the sbin of each bin: on Debian a user's PATH lacks sbin, where the daemons are."""
    folders = [f for f in os.environ.get("PATH", "").split(os.pathsep) if f]
    folders += [f.rstrip("/")[:-3] + "sbin" for f in folders if f.rstrip("/").endswith("/bin")]
    return os.pathsep.join(dict.fromkeys(folders))


def missing() -> list[str]:
    path = search_path()
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def require() -> None:
    """Check that every program is installed.

    Raises:
        UserError: some are not.
    """
    if absent := missing():
        packages = sorted({PROGRAMS[name] for name in absent})
        raise UserError(
            f"the loopback cluster needs {', '.join(absent)}, not found on PATH "
            f"(Debian: {', '.join(packages)}); as root: {APT}"
        )
